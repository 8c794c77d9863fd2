"""Devices train, compare what came of it with the release they use, and get it: real clients, the real server.

One process, no waiting: HTTP is a call, but for releases, which a small web server has; time stands still until moved.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.federated.fedadam import AdamSettings
from hushrec.federated.layout import ParameterLayout
from hushrec.recommender import Recommender
from hushrec.updates import Updater
from hushrec.updates.self_test import self_test
from hushrec_privacy.errors import BundleError
from hushrec_server.model_releases import ModelReleases
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.learning_bundle import ITEMS, learning_bundle
from tests.learning_shop import comparing_plan
from tests.release_shop import serving
from tests.whole_fleet import ROUND_S, START, TestClient, WholeFleet

LEASE_S = ROUND_S // 50


class Learning:
    """A shop, its server, six devices, one plan that trains and one that compares."""

    def __init__(self, folder: Path) -> None:
        self.first, _ = learning_bundle(folder / "first.hush")
        size = ParameterLayout.of(self.first.manifest, "adapter").size
        self.fleet = WholeFleet(folder / "fleet", real=True, parameters=size, parts="adapter")
        keys = ReleaseKeys.create(folder / "safe", folder / "online")
        clock = self.fleet.clock
        self.repository = ReleaseRepository.create(folder / "repository", keys, clock=clock)
        self.repository.publish(self.first.root, ledger_head=None, demo=False)
        self.fleet.service.database.close()
        self.fleet.publisher = ModelReleases(  # type: ignore[assignment]
            self.repository,
            folder / "masters",
            evaluated_by_devices=True,
            most_loss=0.3,
            optimizer=AdamSettings(rate=1e-4),  # what six devices under noise come to must not be worse by chance
        )
        self.fleet.open()
        self.comparing = comparing_plan(
            self.fleet.authority.public().hex(),
            population=6,
            cohort=6,
            rounds=40,
            first_round_at=START + ROUND_S // 2,
            round_seconds=ROUND_S,
            noise_multiplier=0.05,
        )
        self.fleet.service.add_plan(self.comparing.encode(), self.fleet.plan_key.sign(self.comparing))

    def devices(self) -> list[TestClient]:
        found = []
        for number in range(6):
            shopper = Recommender.open(self.first.root)
            for place in range(8):
                shopper.observe(
                    f"sku-{(5 * number + place) % ITEMS}", at=datetime.fromtimestamp(START - 90 + place, UTC)
                )
            found.append(self.fleet.device(number, shopper.profile))
        return found

    def state(self, number: int) -> tuple[str, str]:
        rounds = {each["round"]: each for each in self.fleet.service.rounds(self.fleet.plan.plan_id)}
        return str(rounds[number]["state"]), str(rounds[number]["reason"])


@pytest.fixture
def learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Learning]:
    learning = Learning(tmp_path)
    with serving(learning.repository.folder) as server:
        monkeypatch.setattr(
            TestClient,
            "_updater",
            lambda self: Updater(
                server.url,
                self._folder.releases,
                learning.repository.root_bytes(),
                limits=learning.fleet.limits,
                clock=learning.fleet.clock,
            ),
        )
        yield learning
    learning.fleet.service.database.close()


@pytest.mark.slow
def test_devices_train_a_model_compare_it_and_get_it(learning: Learning) -> None:
    devices = learning.devices()
    fleet = learning.fleet
    fleet.play(*devices, until=lambda: learning.repository.candidate() is not None)
    assert learning.state(1)[0] == "erased"
    candidate = learning.repository.candidate()
    assert candidate is not None
    fleet.play(*devices, until=lambda: learning.repository.candidate() is None, seconds=3 * ROUND_S)
    compared = fleet.service.rounds(learning.comparing.plan_id)[0]
    assert (compared["state"], compared["release"]) == ("published", candidate.bundle)
    fleet.play(*devices, seconds=LEASE_S + 1)
    assert learning.state(1) == ("published", "")
    assert learning.repository.list()[1].bundle == candidate.bundle
    for device in devices:
        device._participant._look_at = device._participant._update_at = 0.0  # as an hour later
    fleet.play(*devices, seconds=60)
    assert min(device.status().model_version for device in devices) >= 2


@pytest.mark.slow
def test_devices_refuse_a_model_that_does_not_work_and_train_on(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, fleet = learning.devices(), learning.fleet
    right = self_test

    def spoiled(bundle: Path) -> None:
        if Bundle.open(bundle).manifest.model_version == 2:
            raise BundleError("its lists are full of NaN")
        right(bundle)

    with monkeypatch.context() as patch:
        patch.setattr("hushrec.updates.updater.self_test", spoiled)
        fleet.play(*devices, until=lambda: learning.repository.candidate() is not None)
        fleet.play(*devices, until=lambda: learning.repository.candidate() is None, seconds=3 * ROUND_S)
    fleet.play(*devices, seconds=LEASE_S + 1)
    state, reason = learning.state(1)
    assert state == "aborted"
    assert reason.startswith("devices compared: NDCG@10 would change by -")
    assert [release.model_version for release in learning.repository.list()] == [1]
    fleet.play(*devices, until=lambda: learning.repository.candidate() is not None, seconds=3 * ROUND_S)
    assert learning.repository.candidate() is not None, "made by the next round, from the release in use"
    assert {device.status().model_version for device in devices} == {1}
