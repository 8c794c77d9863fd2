"""What docs/runbook.md says of lost keys and restored databases is what the server does."""

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hushrec.bundle import write_bundle
from hushrec.federated.layout import ParameterLayout
from hushrec_privacy.errors import LedgerError, NoiseStateError
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_server.model_releases import ModelReleases
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.learning_bundle import learning_bundle
from tests.learning_shop import Shop
from tests.small_fleet import ROUND_S, START, SmallFleet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
END_ALL = "UPDATE fleet_plan SET status = 'ended' WHERE status <> 'ended'"


def new_plan(fleet: SmallFleet, parameters: int) -> Plan:
    """Another plan of the same fleet."""
    plan = make_plan(
        Request(
            population=250,
            cohort=fleet.cohort,
            rounds=fleet.rounds,
            delta=1e-6,
            noise_multiplier=2.0,
            parameters=parameters,
            round_seconds=ROUND_S,
            first_round_at=START,
            authority=fleet.authority.public().hex(),
        )
    )
    assert plan is not None
    return plan


def starts(fleet: SmallFleet, publisher: ModelReleases | None = None) -> None:
    fleet.service(publisher).database.close()


def test_without_its_seal_key_a_server_starts_again_once_open_plans_are_ended(tmp_path: Path) -> None:
    assert END_ALL in PAGE
    fleet = SmallFleet(tmp_path, f"sqlite:///{tmp_path / 'fleet.sqlite'}")
    service = fleet.service()
    fleet.run(service, 0, 1, 2, 3, 4)
    spent = service.status()["ledger"]
    service.database.close()
    fleet.seal_key = SealKey(b"x" * 32)
    with pytest.raises(NoiseStateError, match="seal key"):
        fleet.service(add_plan=False)
    with sqlite3.connect(tmp_path / "fleet.sqlite") as database:
        database.execute(END_ALL)
    database.close()
    service = fleet.service(add_plan=False)
    assert (service.info().plans, service.status()["ledger"]) == ((), spent)  # the ledger goes on
    fleet.plan = new_plan(fleet, 32)
    service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    fleet.run(service, 5, 6, 7, 8, 9)
    assert fleet.state(service) == "published"
    service.database.close()


def test_after_a_release_of_another_fleet_a_roll_back_and_pruning_lead_to_a_server_that_starts(tmp_path: Path) -> None:
    """The other fleet's ledger is ahead of the server's, which has spent nothing."""
    (tmp_path / "other").mkdir()
    other = Shop(tmp_path / "other")
    other.begin()
    for number in (1, 5):
        other.publisher().publish(other.result(number))
    shop = Shop(tmp_path)
    shop.begin()
    fleet = SmallFleet(tmp_path, f"sqlite:///{tmp_path / 'fleet.sqlite'}")
    fleet.plan = new_plan(fleet, ParameterLayout.of(shop.first.manifest, "adapter").size)
    starts(fleet, shop.publisher())

    shop.repository.publish(other.bundle().root, ledger_head=None, demo=False)
    named = (
        rf"entry 5: .*that of release 3, of round 5 of plan {other.plan.plan_id[:16]}: see docs/runbook\.md, A database"
    )
    with pytest.raises(LedgerError, match=named):
        starts(fleet, shop.publisher())
    assert "\n## A database was restored\n" in PAGE
    assert "hushrec release rollback hushrec-data/releases VERSION" in PAGE
    assert "hushrec release prune hushrec-data/releases --keep 1" in PAGE
    shop.repository.rollback(1)
    with pytest.raises(LedgerError):
        starts(fleet, shop.publisher())  # the foreign release is there still
    shop.repository.prune(1)
    starts(fleet, shop.publisher())


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True], ids=["a bundle made anew", "a roll-back"])
def test_after_a_lost_database_the_runbooks_steps_lead_to_a_server_that_starts(tmp_path: Path, back: bool) -> None:
    first, _ = learning_bundle(tmp_path / "first.hush")
    keys = ReleaseKeys.create(tmp_path / "safe", tmp_path / "online")
    repository = ReleaseRepository.create(tmp_path / "repository", keys, clock=lambda: START)
    repository.publish(first.root, ledger_head=None, demo=False)
    publisher = ModelReleases(repository, tmp_path / "masters")
    fleet = SmallFleet(tmp_path, f"sqlite:///{tmp_path / 'fleet.sqlite'}")
    fleet.plan = new_plan(fleet, ParameterLayout.of(first.manifest, "adapter").size)
    starts(fleet, publisher)
    shutil.copy(tmp_path / "fleet.sqlite", tmp_path / "backup.sqlite")
    service = fleet.service(publisher)
    fleet.run(service, 0, 1, 2, 3, 4)
    assert publisher.newest().version == 2
    service.database.close()

    starts(fleet, publisher)
    fleet.url = f"sqlite:///{tmp_path / 'backup.sqlite'}"
    with pytest.raises(LedgerError, match="this is an older copy"):
        starts(fleet, publisher)
    assert "*this is\nan older copy*" in PAGE
    fleet.url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    with pytest.raises(LedgerError, match="no first entry"):
        starts(fleet, publisher)

    if back:
        repository.rollback(1)
    else:
        later = msgspec.structs.replace(first.manifest, model_version=9)
        files: dict[str, Path | bytes] = {name: first.path(name) for name in later.files}
        origins = {name: info.origin for name, info in later.files.items()}
        again = write_bundle(tmp_path / "again.hush", later, files, origins)
        repository.publish(again.root, ledger_head=None, demo=False)
    with pytest.raises(LedgerError):
        starts(fleet, publisher)  # the release of the round is there still
    repository.prune(1)
    starts(fleet, publisher)
    fleet.url = f"sqlite:///{tmp_path / 'backup.sqlite'}"
    starts(fleet, publisher)  # why the runbook says to delete it: nothing tells that it is old any more
