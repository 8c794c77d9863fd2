"""The shop of `killed_server.py`: what people prepare for a server, and what devices see of it.

Its releases are made a second time, from the same noised sums, by a publisher that nobody kills: every release of the
killed servers must be that one, bit for bit.
"""

import http.server
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hushrec.bundle import Bundle
from hushrec.federated.fedadam import AdamSettings
from hushrec.federated.layout import ParameterLayout
from hushrec.fleet import FleetFile
from hushrec.updates import Updater
from hushrec_privacy.envelope import PUBLIC_KEY_BYTES
from hushrec_privacy.errors import FleetError, HushrecError
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.limits import UnsafeDemoLimits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, Segment, Vector
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.config import ReleaseSettings
from hushrec_server.data_folder import prepare_folder, read_public_key
from hushrec_server.key_sets import next_key_set, signed_key_set
from hushrec_server.model_releases import ModelReleases
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from killed_server_process import NOTES, SharedClock
from sqlalchemy import make_url

__all__ = ["COHORT", "LEASE_S", "ROUND_S", "START", "Shop", "Watcher", "empty_database"]

COHORT, ROUNDS, ROUND_S, START = 6, 5_000, 1_000, 1_800_000_000
LEASE_S = ROUND_S // 50
"""For how long a dead process holds a round up at most, as docs/rounds.md says: 2 %."""

SERVER = "killed"
LIFETIME_S = ROUNDS * ROUND_S
PAUSE_S = 0.2
COMPARISON = Vector(
    "counts",
    (
        Segment(EVALUATION, 3, "1.5", "how well the model would have guessed what you took last"),
        Segment(GAIN, 2, "0.5", "whether a new model would have guessed better"),
    ),
)
CONFIG = f"""\
[server]
name = "{SERVER}"
port = 0
data = "data"
plans = ["training.json", "comparing.json"]

[releases]
evaluated_by_devices = true

[limits]
address_per_minute = 100000000
device_per_minute = 100000000
"""


class Shop:
    """A data folder with all keys, two plans and one release, ready for `hushrec serve`.

    Args:
        folder: Empty.
        bundle: The first release; devices can train on it.
        authority: Public key of whoever certifies devices.

    Attributes:
        training: A plan whose rounds make models.
        comparing: One whose rounds compare them with the release in use, before they go out.
        undisturbed: Makes the same releases of the same sums, elsewhere.
    """

    def __init__(self, folder: Path, bundle: Path, authority: bytes) -> None:
        self.folder, self.data, self.clock = folder, folder / "data", SharedClock.create(folder, START)
        key, size = (
            PlanKey.create(folder / "plan.key"),
            ParameterLayout.of(Bundle.open(bundle).manifest, "adapter").size,
        )
        self.training = _plan(authority, parameters=size, noise_multiplier=2.0)
        self.comparing = _plan(authority, vector=COMPARISON, noise_multiplier=0.05)
        for name, plan in (("training", self.training), ("comparing", self.comparing)):
            (folder / f"{name}.json").write_bytes(plan.encode())
            (folder / f"{name}.json.sig").write_bytes(key.sign(plan))
        (folder / "hushrec.toml").write_text(CONFIG, encoding="utf-8")
        for notes in NOTES:
            (folder / notes).mkdir()
        prepare_folder(self.data, lambda _: None)
        public = read_public_key(self.data / "envelope-1.pub", "envelope key", PUBLIC_KEY_BYTES)
        key_set = next_key_set(public, server=SERVER, at_s=self.clock(), lifetime_s=LIFETIME_S)
        (self.data / "keys.json").write_bytes(signed_key_set(key, key_set))
        (self.data / "plan.pub").write_text(key.public().hex() + "\n", encoding="ascii")
        self.releases = self._repository(folder / "offline", self.data, bundle)
        shutil.copy2(folder / "offline" / "targets.key", self.data / "online")  # the server of a fleet publishes
        root = self.releases.root_bytes()
        self.trust = FleetFile(SERVER, key.public().hex(), "https://login.shop.example", root.decode())
        beside = self._repository(folder / "beside" / "offline", folder / "beside", bundle)
        rate = ReleaseSettings().server_rate
        self.undisturbed = ModelReleases(
            beside, folder / "beside" / "masters", evaluated_by_devices=True, optimizer=AdamSettings(rate=rate)
        )

    @property
    def plans(self) -> tuple[Plan, Plan]:
        """Both."""
        return self.training, self.comparing

    def seal_key(self) -> SealKey:
        """The key that a server made when it began."""
        return SealKey.read(self.data / "seal.key")

    def _repository(self, offline: Path, data: Path, bundle: Path) -> ReleaseRepository:
        keys = ReleaseKeys.create(offline, data / "online")
        repository = ReleaseRepository.create(data / "releases", keys, clock=self.clock)
        repository.publish(bundle, ledger_head=None, demo=True)
        return repository


class Watcher:
    """A device that fetches whatever is newest, without a pause, from the files of the repository as they lie there."""

    def __init__(self, shop: Shop) -> None:
        """Begin."""
        handler = partial(_Quiet, directory=str(shop.releases.folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._serving = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._device = Updater(
            f"http://127.0.0.1:{self._server.server_address[1]}",
            shop.folder / "device",
            shop.trust.root.encode(),
            limits=UnsafeDemoLimits(lifetime_rho=1e9),
            clock=shop.clock,
        )
        self._lock, self._over = threading.Lock(), threading.Event()
        self._looking = threading.Thread(target=self._look_again, daemon=True)
        self.looks, self.refused = 0, list[str]()

    def __enter__(self) -> "Watcher":
        self._serving.start()
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._looking.join()
        self._server.shutdown()
        self._server.server_close()

    def look(self) -> tuple[str, str]:
        """Fetch the newest release and the candidate, if they are new; the hash of each, empty where there is none."""
        with self._lock:
            while True:
                try:
                    self._device.fetch()
                    found = self._device.candidate()
                    self.looks += 1
                    release = Bundle.open(self._device.current(), verify=True).sha256
                    return release, "" if found is None or found.path is None else found.sha256
                except HushrecError as error:
                    if isinstance(error, FleetError) and error.reason == "release":
                        continue  # the candidate became the newest release between the two questions
                    self.refused.append(error.message)
                    return "", ""

    def _look_again(self) -> None:
        while not self._over.wait(PAUSE_S):
            self.look()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def empty_database(folder: Path, kind: str, postgres: str) -> Iterator[str]:
    """The address of a database of a kind, without a table."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'data' / 'hushrec.sqlite'}"
        return
    import psycopg

    server, name = make_url(postgres), f"hushrec_killed_{secrets.token_hex(6)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _plan(authority: bytes, **wanted: Any) -> Plan:
    request = Request(
        population=COHORT * 50,
        cohort=COHORT,
        rounds=ROUNDS,
        delta=1e-6,
        round_seconds=ROUND_S,
        first_round_at=START,
        authority=authority.hex(),
        **wanted,
    )
    plan = make_plan(request)
    assert plan is not None
    return plan
