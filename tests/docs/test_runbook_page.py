"""docs/runbook.md: its commands are run, its tables name every reason, and what it quotes is what the code says."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec import messages
from hushrec.bundle import write_bundle
from hushrec.fleet.gate import GATED
from hushrec.fleet.joining import REFUSALS
from hushrec.fleet.round_run import OVER, WORK_STOPPED
from hushrec_privacy.enrolment import pseudonym
from hushrec_privacy.errors import CheckpointError, DataError, FleetError, HushrecError, ToleranceError
from hushrec_server.metrics import METRICS
from hushrec_server.refusals import Reason
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from hushrec_server.rounds.states import State
from hushrec_server.schema import FEATURE, PLAN

from tests.docs.test_deployment_page import BLOCKS as FIRST_BLOCKS
from tests.docs.test_deployment_page import free_port, run, served
from tests.learning_bundle import learning_bundle

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console (\w+)(?: (\w+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SOURCES = {
    name: re.sub(r"^   ", "", text, flags=re.MULTILINE)
    for name, text in re.findall(r"^ *```python (\w+)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
}
CODE = "\n".join(
    path.read_text(encoding="utf-8") for name in ("server", "privacy") for path in (ROOT / name).rglob("*.py")
)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def named(text: str) -> set[str]:
    """What stands in backquotes in the first cell of a row."""
    return {word for row in re.findall(r"^\| (.*?) \| ", text, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)}


def all_kinds(kind: type[HushrecError]) -> set[type[HushrecError]]:
    return {kind}.union(*map(all_kinds, kind.__subclasses__()))


def test_every_reason_of_a_device_is_explained() -> None:
    of_server = {reason.value for reason in Reason if reason is not Reason.TOO_LATE}
    of_http = set(messages._FLEET_STATUS) - {"unauthorized"}  # as administrators are told
    of_device = {"unreachable", "bad-answer", "http-…", "refused", OVER, WORK_STOPPED}
    of_shops = {kind.code for kind in (CheckpointError, DataError, FleetError, ToleranceError)}
    codes = {kind.code for kind in all_kinds(HushrecError)} - of_shops
    told = named(section("A device does not take part"))
    assert not ({*REFUSALS, *GATED} | of_server | of_http | of_device | codes) - told


def test_every_text_of_an_aborted_round_is_in_the_code() -> None:
    told = named(section("A round was aborted"))
    assert len(told) > 12
    lost = [text for text in told if " " in text and text not in CODE]
    assert not lost


def test_every_metric_and_state_that_is_named_is_there() -> None:
    assert set(re.findall(r"`(hushrec_\w+)", PAGE)) <= set(METRICS)
    states = set(re.findall(r'state="(\w+)"', PAGE))
    assert states
    assert states <= {state.value for state in State}


def test_every_statement_for_the_database_names_what_it_has() -> None:
    assert {"fleet_plan", "fleet_feature"} == {PLAN.name, FEATURE.name}
    assert {"status", "plan"} <= set(PLAN.c.keys())
    assert "pseudonym" in FEATURE.c
    assert PAGE.count("UPDATE fleet_plan SET status = 'ended'") == 2


def test_every_link_to_a_heading_leads_to_one() -> None:
    for page in ("threat-model", "deployment", "runbook", "releases", "wire-protocol"):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for target, heading in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", text):
            headings = re.findall(r"^##+ (.*)$", (ROOT / "docs" / target).read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in slugs, f"{page}: {target}#{heading}"


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """What deployment.md comes to, without a running server, and a second release."""
    for place in ("office", "authority", "server", "device"):
        (tmp_path / place).mkdir()
    first, _ = learning_bundle(tmp_path / "office" / "shop.hush")
    for place, kind, text in FIRST_BLOCKS:
        if kind not in ("serves", "database", "joins") and "curl" not in text:
            run(text, tmp_path / place, 2 if kind == "refused" else 0)
    later = msgspec.structs.replace(first.manifest, model_version=2)
    files: dict[str, Path | bytes] = {name: first.path(name) for name in later.files}
    origins = {name: info.origin for name, info in later.files.items()}
    second = write_bundle(tmp_path / "second.hush", later, files, origins)
    data = tmp_path / "server" / "hushrec-data"
    repository = ReleaseRepository(data / "releases", ReleaseKeys.read(data / "online"), clock=time.time)
    repository.publish(second.root, ledger_head=None, demo=False)
    return tmp_path


@contextlib.contextmanager
def asked(places: Path) -> Iterator[str]:
    """The server runs; gives its port."""
    port, config = free_port(), places / "server" / "hushrec.toml"
    config.write_text(config.read_text().replace("# port = 8470", f"port = {port}"))
    with served("hushrec serve --config hushrec.toml --plan plan.json", places / "server"):
        yield port


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
def test_the_commands_of_the_page_work_one_after_the_other(places: Path) -> None:
    with asked(places) as port:
        for place, kind, text in BLOCKS:
            if kind == "asks":
                run(text.replace("8470", port), places / place)
        run_the_python_of_the_page(places)
    for place, kind, text in BLOCKS:
        if kind != "asks":
            run(text, places / place)
    assert (places / "server" / "hushrec-data" / "releases" / "metadata").is_dir()
    with served("hushrec serve --config hushrec.toml", places / "server"):
        pass  # with the new keys


def run_the_python_of_the_page(places: Path) -> None:
    plan = places / "server" / "plan.json"
    plan_id = subprocess.run(["sha256sum", plan], capture_output=True, text=True, check=True).stdout.split()[0]
    said: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(places / "server")
        exec(SOURCES["budget"], {"print": said.append})
        assert said[0]["plans"]
        patch.chdir(places / "authority")
        exec(SOURCES["forget"], {"PLAN": plan_id, "ACCOUNT": "ann", "print": said.append})
    secret = (places / "authority" / "authority" / "pseudonyms.key").read_bytes()
    assert said[-1] == pseudonym(secret, "ann", plan_id)
