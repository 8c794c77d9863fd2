"""From a configuration to an application that can be served: opens what is there, and names what is missing.

The order is that of the errors: configuration, folder and keys, database, plans, releases. Starts nothing.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hushrec_privacy.accounting.guarantee import rounded_up
from hushrec_privacy.errors import ConfigError, PlanError, ReleaseError, StorageError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.timing import utc_text, when

from hushrec_server.app import server_app
from hushrec_server.authority import Authority
from hushrec_server.authority_app import certificate_route
from hushrec_server.config import Config
from hushrec_server.data_folder import EnvelopeKeys, check_signed, prepare_folder, read_public_key, seal_key
from hushrec_server.database import Database
from hushrec_server.device_requests import DeviceRequests
from hushrec_server.front import AdminToken, Front
from hushrec_server.metrics import Metrics
from hushrec_server.plans import PlanStatus, check_seal
from hushrec_server.publishing import Publisher
from hushrec_server.rates import TokenBuckets
from hushrec_server.readiness import Readiness
from hushrec_server.service import FleetService, FleetSettings
from hushrec_server.slow_clients import BodyRoom

if TYPE_CHECKING:
    from hushrec_server.held_out import HeldOut
    from hushrec_server.model_releases import ModelReleases
    from hushrec_server.releases import ReleaseRepository
    from hushrec_server.slow_clients import App

__all__ = ["Assembled", "assemble"]

RELEASES, ONLINE, MASTERS = "releases", "online", "masters"
_PLAN_BYTES, _SIGNATURE_BYTES = 1 << 16, 64


@dataclass(frozen=True)
class Assembled:
    """A server that can be served.

    Attributes:
        app: The application.
        service: Its inside.
        authority: Served as well, in a demonstration.
    """

    app: "App"
    service: FleetService
    authority: Authority | None = None

    def close(self) -> None:
        """Close the databases."""
        self.service.database.close()
        if self.authority is not None:
            self.authority.close()


def assemble(config: Config, say: Callable[[str], None], *, clock: Callable[[], float] = time.time) -> Assembled:
    """Open everything that a configuration names.

    Args:
        config: What to open.
        say: Told, in lines for the operator, what is made and found.
        clock: Seconds since 1970-01-01 UTC.

    Raises:
        BundleError: The newest release cannot be used.
        ConfigError: A file is missing, unreadable or not what it should be; or no held-out history can be used.
        LedgerError: The ledger in the database is damaged, or older than the newest release.
        NoiseStateError: The seal key is missing or not the one that the database was used with, and plans are open.
        PlanError: A plan is not signed by the shop, or cannot be carried out.
        ReleaseError: The release repository is damaged.
        StorageError: The database cannot be used.
    """
    keys, name = prepare_folder(config.data, say), config.server.name
    check_signed(config.data, config.plan_key_file, name)
    plan_key = read_public_key(config.plan_key_file, "plan key's public half")
    envelopes = EnvelopeKeys.read(config.data, keys.envelopes, plan_key, server=name, at_s=int(clock()))
    authority = _demo_authority(config, clock, say)
    repository, publisher = _releases(config, clock, say)
    database = Database.open(config.database_url())
    try:
        sealed = seal_key(config.data, say, lambda: check_seal(database, None))
        settings = FleetSettings(name, plan_key, sealed, envelopes.document)
        service = FleetService(database, settings, clock=lambda: int(clock()), publisher=publisher)
        for path in config.server.plans:
            say(_add_plan(service, Path(path), int(clock())))
        for doubt in service.doubts():
            say(f"WARNING: {doubt}")
        if publisher is not None and config.releases.evaluated_by_devices:
            _say_who_compares(service, say)
        front = _front(config, service, envelopes, AdminToken(keys.admin_token), clock, repository)
        app = server_app(
            front,
            config.limits,
            more=() if authority is None else (certificate_route(authority),),
            chores=() if repository is None else (repository.refresh,),
        )
    except BaseException:
        database.close()
        raise
    return Assembled(app, service, authority)


def _front(
    config: Config,
    service: FleetService,
    envelopes: EnvelopeKeys,
    admin: AdminToken,
    clock: Callable[[], float],
    repository: "ReleaseRepository | None",
) -> Front:
    limits = config.limits
    rates = TokenBuckets(
        per_minute=limits.device_per_minute, burst=max(10, limits.device_per_minute // 3), clock=time.monotonic
    )
    requests = DeviceRequests(
        service,
        server=config.server.name,
        keys=lambda: envelopes.in_force(int(clock())),
        rates=rates,
        clock=clock,
    )
    ready = Readiness()
    ready.add("database", service.check)
    ready.add("envelope-keys", lambda: envelopes.check(int(clock())))
    ready.add("releases", lambda: _check_releases(service, repository, clock))

    def expires_at() -> dict[str, float]:
        found = {"envelope-keys": float(envelopes.expires_at())}
        if repository is not None:
            with suppress(ReleaseError):  # /readyz tells of the damage; what else is counted must be seen all the same
                found |= repository.expires_at()
        return found

    return Front(
        fleet=service,
        requests=requests,
        metrics=Metrics(),
        ready=ready,
        room=BodyRoom(limits.body_megabytes << 20),
        admin=admin,
        releases=None if repository is None else config.data / RELEASES,
        expires_at=expires_at,
    )


def _add_plan(service: FleetService, path: Path, at_s: int) -> str:
    data = _read(path, "plan", _PLAN_BYTES)
    signature = _read(path.with_name(path.name + ".sig"), "plan's signature", _SIGNATURE_BYTES)
    try:
        service.add_plan(data, signature)
    except PlanError as error:
        raise PlanError(f"{path}: {error.message}") from error
    signed = service.plan(Plan.decode(data).plan_id)
    plan = signed.plan
    demo = "DEMO, protects nobody: " if plan.demo else ""
    promise = f"epsilon {rounded_up(float(plan.epsilon))} at delta {plan.delta}"
    halted = f"HALTED, opens no round ({signed.reason or 'no reason is kept'}); see docs/runbook.md, A plan is halted"
    state = {PlanStatus.HALTED: halted, PlanStatus.ENDED: "it has ended; its rounds are over"}
    told = state.get(signed.status, when(plan, at_s))
    return f"{demo}plan {plan.plan_id[:16]}: {plan.rounds} rounds of {plan.cohort} devices, {promise}; {told}"


def _read(path: Path, name: str, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        hint = "; a plan and its .sig lie side by side, and hushrec privacy sign writes the .sig"
        raise ConfigError(f"{path}: the {name} cannot be read: {error.strerror}{hint}") from error


def _releases(
    config: Config, clock: Callable[[], float], say: Callable[[str], None]
) -> tuple["ReleaseRepository | None", Publisher | None]:
    """The release repository in the data folder, and what publishes into it if the keys for that are there."""
    folder, keys_folder = config.data / RELEASES, config.data / ONLINE
    if not (folder / "metadata").is_dir():
        return None, None
    from hushrec_server.releases import ReleaseKeys, ReleaseRepository

    keys = ReleaseKeys.read(keys_folder) if keys_folder.is_dir() else ReleaseKeys()
    repository = ReleaseRepository(folder, keys, clock=clock)
    if keys.targets is None or keys.online is None:
        say(f"{keys_folder}: without targets.key and online.key results stay in the database, and nothing is published")
        if keys.online is None:
            expires_at = min(repository.expires_at()[role] for role in ("snapshot", "timestamp"))
            say(
                f"{keys_folder}: without online.key nobody here signs the releases anew: devices take nothing new from "
                f"{utc_text(expires_at)} on; put the key there, or sign elsewhere: hushrec release refresh"
            )
        return repository, None
    from hushrec.federated.fedadam import AdamSettings

    from hushrec_server.held_out import HeldOut
    from hushrec_server.model_releases import ModelReleases

    settings = config.releases
    guard = HeldOut.read(Path(settings.held_out), most_loss=settings.most_loss) if settings.held_out else None
    if guard is None and not settings.evaluated_by_devices:
        say("no held-out histories are configured: each new model goes out, however it ranks")
    publisher = ModelReleases(
        repository,
        config.data / MASTERS,
        guard=guard,
        evaluated_by_devices=settings.evaluated_by_devices,
        most_loss=settings.most_loss,
        optimizer=AdamSettings(rate=settings.server_rate),
    )
    if guard is not None:
        _check_guard(guard, publisher, settings.held_out)
    return repository, publisher


def _check_guard(guard: "HeldOut", publisher: "ModelReleases", path: str) -> None:
    """Find out before a round is spent that no model could be judged."""
    with publisher.newest_bundle() as newest:
        if newest is None:
            return
        try:
            guard.check(newest)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}") from error


def _say_who_compares(service: FleetService, say: Callable[[str], None]) -> None:
    plans = [Plan.decode(data) for data, _ in service.info().plans]
    named = ", ".join(plan.plan_id[:16] for plan in plans if plan.compares)
    say(
        f"new models go out once devices have compared them, in rounds of plan {named}"
        if named
        else "devices are to compare new models, and no plan has them do that: until one is added, no model goes out"
    )


def _check_releases(service: FleetService, repository: "ReleaseRepository | None", clock: Callable[[], float]) -> None:
    expires_at = {} if repository is None else repository.expires_at()
    over = [role for role, at in expires_at.items() if at <= clock()]
    if over:
        raise ReleaseError(f"the {' and '.join(over)} metadata of the releases has expired: devices take nothing new")
    with suppress(PlanError, StorageError):  # the check of the database tells
        if doubts := service.doubts():
            raise ReleaseError("; ".join(doubts))


def _demo_authority(config: Config, clock: Callable[[], float], say: Callable[[str], None]) -> Authority | None:
    """The authority, if the configuration wants one operator to be both."""
    if not config.trust.run_authority:
        return None
    folder = Path(config.trust.run_authority)
    say(
        f"DEMONSTRATION: this server is the authority as well ({folder}). Whoever runs it can make up devices, and "
        "secure aggregation does not protect anyone against that"
    )
    return Authority(folder, clock=clock)
