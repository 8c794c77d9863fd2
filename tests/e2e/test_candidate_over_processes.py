"""The guard by devices as people run it: the commands of docs/deployment.md, servers and devices as processes.

FOR TESTS ONLY are the numbers: six devices, rounds of a minute, next to no noise where devices compare. Devices are
`hushrec join` with a demonstration's limits; their shoppers took what the first release would have guessed. Nothing is
changed to make the second model a bad one: its operator sets `server_rate` far too high, and starts the server again.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hushrec.recommender import Recommender
from hushrec_privacy.enrolment import login_token

from tests.docs.test_deployment_page import BLOCKS, free_port, run, served, with_hushrec
from tests.e2e.commands import hushrec
from tests.learning_bundle import ITEMS, learning_bundle

DEVICES, ROUND_S, PREPARATION_S, PATIENCE_S = 6, 60, 30, 400.0
JOIN = Path(__file__).resolve().parents[1] / "demo_join.py"
SAFE, HARMFUL = 0.0001, 1.0  # server_rate: so far a round moves each weight at most; .2 spoils all lists


class Shop:
    """The places of docs/deployment.md, prepared by its commands, with a test's numbers in the place of a shop's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, folder / "server"
        self.port, self.login = free_port(), free_port()
        self.starts_at = int(time.time()) + PREPARATION_S
        for place in ("office", "authority", "server", "device"):
            (folder / place).mkdir()
        learning_bundle(folder / "office" / "shop.hush")
        for place, kind, text in BLOCKS:
            if kind not in ("serves", "joins", "database") and "curl" not in text:
                run(self._small(text), folder / place, 2 if kind == "refused" else 0)
        self.training, self.comparing = (
            sha256((self.server / name).read_bytes()).hexdigest() for name in ("plan.json", "compare-plan.json")
        )
        self.configure({"port": self.port, "address_per_minute": 100_000, "device_per_minute": 100_000})

    def _small(self, text: str) -> str:
        """Commands with a test's numbers; rounds begin as the page has it, those that compare half of one later."""
        compares = "compare" in text
        begins = datetime.fromtimestamp(self.starts_at + compares * ROUND_S // 2, UTC)
        changes = {
            r"--population \d+ --cohort \d+": f"--population {DEVICES} --cohort {DEVICES} --min-separation 1",
            r"--rounds \d+": "--rounds 20",  # the server's rate rises for five of them
            r"--epsilon \S+": f"--noise-multiplier {0.02 if compares else 0.05}",
            r"--first-round \S+": f"--first-round {begins:%Y-%m-%dT%H:%M:%S} --round-minutes 1",
            "https://authority.example": f"http://127.0.0.1:{self.login}",
        }
        for found, wanted in changes.items():
            text = re.sub(found, wanted, text)
        return text

    def configure(self, values: dict[str, object]) -> None:
        """Set keys of hushrec.toml, as an editor would."""
        config = self.server / "hushrec.toml"
        text = config.read_text()
        for key, value in values.items():
            text, count = re.subn(rf"(?m)^(# )?{key} = \S+", f"{key} = {value}", text)
            assert count == 1, key
        config.write_text(text)

    def commands(self, place: str) -> str:
        """What the page starts last at a place."""
        command = [text for where, kind, text in BLOCKS if (where, kind) == (place, "serves")][-1]
        return re.sub("8470|8471", lambda port: {"8470": self.port, "8471": self.login}[port[0]], command).strip()

    def releases(self) -> tuple[list[int], int | None]:
        """Versions of the releases and of the candidate, as `hushrec release list` has them."""
        done = hushrec("release", "list", self.server / "hushrec-data" / "releases", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return [one["model_version"] for one in told["releases"]], (told["candidate"] or {}).get("model_version")

    def ask(self, path: str) -> bytes:
        """What the server tells its operator."""
        token = (self.server / "hushrec-data" / "admin.token").read_text().strip()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def told(self, path: str) -> Any:
        """The same, of JSON."""
        return json.loads(self.ask(f"admin/v1/{path}"))

    def rounds(self, plan: str) -> dict[int, dict[str, Any]]:
        """The rounds of a plan, by number."""
        return {each["round"]: each for each in self.told(f"plans/{plan}/rounds")}

    def log(self) -> list[dict[str, Any]]:
        """Events that the server has logged since its start."""
        lines = (self.server / "serves.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Devices:
    """`hushrec join` for six shoppers, each in a process and a folder of its own."""

    def __init__(self, shop: Shop) -> None:
        self.folders = [shop.folder / f"device-{number}" for number in range(DEVICES)]
        key = (shop.folder / "authority" / "authority" / "login.key").read_bytes()
        for number, folder in enumerate(self.folders):
            folder.mkdir()
            shutil.copy(shop.folder / "office" / "fleet.json", folder)
            until = int(time.time()) + 600
            plans = shop.training, shop.comparing
            tokens = "\n".join(login_token(key, f"shopper {number}", plan, until) for plan in plans)
            (folder / "tokens.txt").write_text(tokens)
            with Recommender.open(shop.folder / "office" / "shop.hush", profile=folder / "ann.profile") as shopper:
                for place in range(8):
                    shopper.observe(f"sku-{(5 * number + place) % ITEMS}", at=_ago(90 - place))
                last = f"sku-{(5 * number + 7) % ITEMS}"
                guessed = next(found.item for found in shopper.recommend(2) if found.item != last)
                shopper.observe(guessed, at=_ago(60))

    @contextmanager
    def joined(self, shop: Shop) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """They take part; killed at the end, if they still do."""
        options = ("--profile", "ann.profile", "--token", "tokens.txt", "--vault-key", "vault.key")
        command = [sys.executable, str(JOIN), "join", f"http://127.0.0.1:{shop.port}", *options]
        with ExitStack() as stack:
            processes = []
            for folder in self.folders:
                out, said = (stack.enter_context((folder / name).open("wb")) for name in ("receipt.md", "said.log"))
                process = subprocess.Popen(command, cwd=folder, env=with_hushrec(), stdout=out, stderr=said)
                stack.callback(process.wait)
                stack.callback(process.kill)
                processes.append(process)
            yield processes

    def said(self) -> list[list[str]]:
        """The lines that each has told its shopper."""
        return [(folder / "said.log").read_text().splitlines() for folder in self.folders]


def _ago(seconds: int) -> datetime:
    return datetime.fromtimestamp(time.time() - seconds, UTC)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.5)


@pytest.mark.slow
def test_a_model_reaches_devices_once_they_have_compared_it_and_a_harmful_one_never(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    devices = Devices(shop)
    with served(shop.commands("authority"), tmp_path / "authority"), ExitStack() as joined:
        shop.configure({"server_rate": SAFE})
        with served(shop.commands("server"), shop.server):
            processes = joined.enter_context(devices.joined(shop))
            a_good_model_waits_and_goes_out(shop)
        shop.configure({"server_rate": HARMFUL})  # devices meet a server that is away, and come again
        with served(shop.commands("server"), shop.server):
            a_harmful_model_waits_and_is_refused(shop)
            wait_until(lambda: all(len(models(said)) == 2 for said in devices.said()), "release 2 on each device")
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(60) for process in processes] == [0] * DEVICES
    for folder, said in zip(devices.folders, devices.said(), strict=True):
        assert [version for version, _ in models(said)] == ["1", "2"]
        assert "Privacy receipt" in (folder / "receipt.md").read_text()
        use_the_release(folder, Path(models(said)[-1][1]))


def models(said: list[str]) -> list[tuple[str, str]]:
    """Each release that a device has told of, and its folder."""
    found = (re.fullmatch("model: release (.*), the bundle (.*)", line) for line in said)
    return [(match[1], match[2]) for match in found if match]


def a_candidate(shop: Shop, version: int) -> dict[str, Any]:
    """What waits, seen by every way that an operator has, and not out."""
    status: dict[str, Any] = {}

    def made() -> bool:
        status.update(shop.told("status"))
        return status["candidate"] is not None or status["release"] >= version

    wait_until(made, f"a candidate {version}")
    assert status["release"] == version - 1, "not out"
    found: dict[str, Any] = status["candidate"]
    assert (found["model_version"], found["waits_for"]) == (version, f"a round of {shop.comparing}")
    assert f"\nhushrec_candidate {version}\n" in shop.ask("metrics").decode()
    assert shop.releases() == (list(range(1, version)), version)
    made_by = max(shop.rounds(shop.training).items())[1]
    assert made_by["state"] == "erased"
    assert made_by["reason"] == f"model version {version} waits until devices have compared it with the one in use"
    return found | {"round": made_by["round"]}


def a_good_model_waits_and_goes_out(shop: Shop) -> None:
    waited = a_candidate(shop, 2)
    wait_until(lambda: shop.releases()[1] is None, "a verdict of devices")
    assert shop.releases() == ([1, 2], None)
    assert max(shop.rounds(shop.comparing).items())[1]["release"] == waited["bundle"]
    wait_until(lambda: shop.rounds(shop.training)[waited["round"]]["state"] == "published", "the round that made it")
    (found,) = shop.told(f"plans/{shop.comparing}/counts")["rounds"]
    assert found["devices"] >= DEVICES - 1
    assert found["evaluation"]["evaluated"] == pytest.approx(found["devices"], abs=0.5)
    assert found["evaluation"]["ndcg"] > 0.3
    assert found["gain"]["ndcg"] == pytest.approx(0, abs=0.05)


def a_harmful_model_waits_and_is_refused(shop: Shop) -> None:
    waited = a_candidate(shop, 3)
    wait_until(lambda: shop.releases()[1] is None, "a verdict of devices")
    assert shop.releases() == ([1, 2], None)
    made_by, number = shop.training, waited["round"]
    wait_until(lambda: shop.rounds(made_by)[number]["state"] != "erased", "the round that made it")
    ended = shop.rounds(made_by)[number]
    assert ended["state"] == "aborted"
    assert ended["reason"].startswith("devices compared: NDCG@10 would change by -")
    refused = [event for event in shop.log() if event["event"] == "release refused"]
    assert (made_by, number, ended["reason"]) in [(event["plan"], event["round"], event["reason"]) for event in refused]
    metrics = shop.ask("metrics").decode()
    assert "\nhushrec_release 2\n" in metrics
    assert "\nhushrec_candidate 0\n" in metrics
    assert f'hushrec_rounds{{plan="{made_by[:16]}",state="aborted"}}' in metrics
    assert json.loads(shop.ask("readyz"))["ready"] is True, "a refused model is no fault"
    assert (shop.server / "hushrec-data" / "masters" / f"refused-{waited['bundle']}.json").exists()


def use_the_release(folder: Path, newest: Path) -> None:
    """The app opens what the device has now, offline."""
    with Recommender.open(newest, profile=folder / "ann.profile") as shopper:
        assert shopper.bundle.manifest.model_version == 2
        assert len(shopper.recommend(10)) == 10
