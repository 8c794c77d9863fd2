"""The second half of the demo: a shop's server, its authority, and a few device processes that learn together.

Everything is what a shop would use: the real server and authority as processes of their own on this machine, the real
client in every device process. Only the numbers are a demonstration's, and say so: a handful protects nobody.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hushrec_privacy.errors import FleetError

from hushrec_cli.demo_device import FEATURE, FEATURE_LENGTH

if TYPE_CHECKING:
    from hushrec_privacy.plans.plan import Plan
    from hushrec_privacy.plans.schema import Vector

__all__ = ["run_fleet"]

DEVICES = 6
ROUNDS = 2
_SERVER = "demo-shop"
_ROUND_S = 60  # a phase of small messages may take 6 % of it, also on a busy machine; rounds end long before
_START_S = 12
_READY_S, _STOP_S = 60.0, 20.0
_DELTA, _EPSILON = 1e-5, 8.0


class _Shop(NamedTuple):
    """What was made before the first process starts."""

    folder: Path
    plans: "dict[str, Plan]"
    ends_at: int


def run_fleet(bundle: Path, histories: list[list[str]], folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Let some devices learn together, from keys to a release that reaches them.

    Args:
        bundle: What the shop ships today.
        histories: Items of each shopper, oldest first; one device each.
        folder: New, or of an earlier demo: keys, database, releases and devices go there.
        tell: Takes lines on what happens.

    Returns:
        "folder" (as given), "budget" (the ledger's report), "rounds" by plan, "devices", "counts" and "features" (what
        the shop reads of those rounds), "direct" (payloads that the server holds), "status" and "seconds".
        `demo_check` says whether it is what it must be.

    Raises:
        FleetError: A process did not start, or a device failed.
    """
    began = time.monotonic()
    with ExitStack() as running:
        authority_folder, server_folder = folder / "authority", folder / "server"
        public = _make_keys(folder, bundle)
        authority = running.enter_context(_served(["authority", "serve", authority_folder, "--port", "0"], folder))
        shop = _signed_plans(folder, bundle, public)
        tell(f"authority: a process of its own, at {authority}")
        plans = [argument for name in shop.plans for argument in ("--plan", folder / f"{name}.json")]
        config = _write_config(folder)
        server = running.enter_context(
            _served(["serve", "--config", config, "--data", server_folder, *plans], folder, "server.log")
        )
        tell(f"server: {server}, SQLite, {len(shop.plans)} signed plans, each marked DEMO")
        _write_fleet_file(folder, authority)
        devices = _devices(shop, bundle, histories[:DEVICES], server)
        tell(f"{len(devices)} device processes: {ROUNDS} rounds that train, one that counts, one for features")
        found = [_report(device, number) for number, device in enumerate(devices, start=1)]
        read = _read_results(server, server_folder, shop)
    return {
        "folder": str(folder),
        "devices": found,
        **read,
        "budget": _budget(server_folder),
        "seconds": time.monotonic() - began,
    }


def _make_keys(folder: Path, bundle: Path) -> str:
    """Keys of shop, authority, server and releases; the first release. Gives the authority's public half."""
    from hushrec_privacy.plans.signing import PlanKey
    from hushrec_server.authority import create_authority
    from hushrec_server.data_folder import prepare_folder
    from hushrec_server.releases import ReleaseKeys, ReleaseRepository

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = folder / "server"
    prepare_folder(server, lambda _line: None)
    _sign_envelope_key(PlanKey.create(folder / "plan.key"), server)
    keys = ReleaseKeys.create(folder / "offline", server / "online")
    (folder / "offline" / "targets.key").rename(server / "online" / "targets.key")  # this server publishes by itself
    ReleaseRepository.create(server / "releases", keys, clock=time.time).publish(bundle, ledger_head=None, demo=True)
    return create_authority(folder / "authority").hex()


def _sign_envelope_key(key: Any, server: Path) -> None:
    from hushrec_privacy.envelope import PUBLIC_KEY_BYTES
    from hushrec_server.data_folder import KEYS_FILE, read_public_key
    from hushrec_server.key_sets import next_key_set, signed_key_set

    fresh = read_public_key(server / "envelope-1.pub", "envelope key's public half", PUBLIC_KEY_BYTES)
    key_set = next_key_set(
        fresh, server=_SERVER, at_s=int(time.time()), lifetime_s=86_400, before=None, overlap_s=3_600
    )
    (server / KEYS_FILE).write_bytes(signed_key_set(key, key_set))
    (server / "plan.pub").write_text(key.public().hex() + "\n", encoding="ascii")


def _signed_plans(folder: Path, bundle: Path, authority: str) -> _Shop:
    """Plans that train, count and gather features; written and signed as `hushrec privacy plan` and `sign` do."""
    from hushrec.bundle import Bundle
    from hushrec.federated.layout import ParameterLayout
    from hushrec_privacy.plans.planner import Request, make_plan
    from hushrec_privacy.plans.signing import PlanKey

    key, manifest = PlanKey.read(folder / "plan.key"), Bundle.open(bundle).manifest
    start = int(time.time()) + _START_S
    common: dict[str, Any] = {
        "population": DEVICES,
        "cohort": DEVICES,
        "delta": _DELTA,
        "epsilon": _EPSILON,
        "authority": authority,
    }
    counts, features = _vectors(manifest.model.items)
    training = {"parts": "adapter", "parameters": ParameterLayout.of(manifest, "adapter").size}
    wanted: dict[str, dict[str, Any]] = {
        "training": {**training, "rounds": ROUNDS, "first_round_at": start},
        "counts": {"vector": counts, "rounds": 1, "first_round_at": start + _ROUND_S // 3},
        "features": {"vector": features, "rounds": 1, "first_round_at": start + 2 * _ROUND_S // 3},
    }
    plans = {}
    for name, changed in wanted.items():
        plan = make_plan(Request(min_separation=1, round_seconds=_ROUND_S, **common, **changed))
        assert plan is not None  # only a request without noise gives none
        (folder / f"{name}.json").write_bytes(plan.encode())
        (folder / f"{name}.json.sig").write_bytes(key.sign(plan))
        plans[name] = plan
    return _Shop(folder, plans, start + ROUNDS * _ROUND_S)


def _vectors(items: int) -> "tuple[Vector, Vector]":
    """What devices count by themselves, and what their app gives: in a sum, and by itself."""
    from hushrec_privacy.plans.schema import DirectPayload, Segment, Vector

    prices = f"which price bands the shopper looks at, {FEATURE_LENGTH} shares"
    counts = (
        Segment("trending", items, "4", "which items were looked at", 30),
        Segment("evaluation", 3, "1.5", "how well the model does on this device's latest events"),
    )
    features = Segment(FEATURE, FEATURE_LENGTH, "1", prices)
    direct = DirectPayload(f"{FEATURE}-direct", FEATURE_LENGTH, "1", prices, "8", "0.00001", 1, 30)
    return Vector("counts", counts), Vector("features", (features,), (direct,))


def _write_config(folder: Path) -> Path:
    path = folder / "hushrec.toml"
    path.write_text(
        f'[server]\nname = "{_SERVER}"\nport = 0\n\n'
        "[limits]\naddress_per_minute = 100000  # all devices share this machine's address\n",
        encoding="utf-8",
    )
    return path


def _write_fleet_file(folder: Path, authority: str) -> None:
    from hushrec.fleet import FleetFile

    server = folder / "server"
    plan_key = (server / "plan.pub").read_text(encoding="ascii").strip()
    root = (server / "releases" / "metadata" / "1.root.json").read_text(encoding="utf-8")
    (folder / "fleet.json").write_bytes(FleetFile(_SERVER, plan_key, authority, root).encode())


@contextmanager
def _served(command: list[object], folder: Path, log: str = "authority.log") -> Iterator[str]:
    """Run a command that serves until the body ends; gives its address."""
    with (folder / log).open("wb") as errors:
        process = subprocess.Popen(_hushrec(*command), stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # ends with the process, if it cannot start
        if not line.startswith("ready "):
            said = (folder / log).read_text(encoding="utf-8", errors="replace")
            raise FleetError(f"{command[0]} did not start: {said.strip()[-500:]}", reason="demo")
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _hushrec(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from hushrec_cli.main import run; run()", *map(str, arguments)]


def _devices(shop: _Shop, bundle: Path, histories: list[list[str]], url: str) -> "list[subprocess.Popen[str]]":
    from hushrec_server.authority import Authority

    processes = []
    login = Authority(shop.folder / "authority", clock=time.time)  # stands in for the shop's own login
    try:
        for number, history in enumerate(histories, start=1):
            folder = shop.folder / f"device-{number}"
            folder.mkdir()
            tokens = {
                plan.plan_id: login.token(f"customer {number}", plan.plan_id, valid_s=600)
                for plan in shop.plans.values()
            }
            task = {
                "url": url,
                "fleet": str(shop.folder / "fleet.json"),
                "bundle": str(bundle),
                "folder": str(folder),
                "vault_key": os.urandom(32).hex(),
                "history": history,
                "tokens": tokens,
                "rounds": ROUNDS + 2,
                "release": 1 + ROUNDS,
                "until": shop.ends_at,
            }
            path = folder / "task.json"
            path.write_text(json.dumps(task), encoding="utf-8")
            command = [sys.executable, "-m", "hushrec_cli.demo_device", str(path)]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    finally:
        login.close()
    return processes


def _report(process: "subprocess.Popen[str]", number: int) -> dict[str, Any]:
    out, errors = process.communicate()
    if process.returncode:
        raise FleetError(f"device {number} of the demo failed: {errors.strip()[-500:]}", reason="demo")
    found: dict[str, Any] = json.loads(out)
    return found


def _read_results(url: str, server: Path, shop: _Shop) -> dict[str, Any]:
    """What the shop's own people read over HTTP, with the administrator's token."""
    import urllib3

    token = (server / "admin.token").read_text(encoding="ascii").strip()
    ids = {name: plan.plan_id for name, plan in shop.plans.items()}

    def get(path: str) -> Any:
        answer = urllib3.request("GET", f"{url}/admin/v1/{path}", headers={"authorization": f"Bearer {token}"})
        if answer.status != 200:
            raise FleetError(f"the server answered {answer.status} to /admin/v1/{path}", reason="demo")
        return answer.json()

    return {
        "rounds": {name: get(f"plans/{plan}/rounds") for name, plan in ids.items()},
        "counts": get(f"plans/{ids['counts']}/counts"),
        "features": get(f"plans/{ids['features']}/counts"),
        "direct": len(get(f"plans/{ids['features']}/features/{FEATURE}-direct")["values"]),
        "status": get("status"),
    }


def _budget(server: Path) -> dict[str, Any]:
    from hushrec_privacy.report.spending import spending_report
    from hushrec_server.database import Database
    from hushrec_server.ledger_store import DatabaseLedgerStore

    database = Database.open(f"sqlite:///{(server / 'hushrec.sqlite').resolve()}")
    try:
        return spending_report(DatabaseLedgerStore(database)).to_dict()
    finally:
        database.close()
