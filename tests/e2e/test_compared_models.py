"""The server as `hushrec serve` assembles it: a model that a round of training made is compared before it goes out.

Real keys, releases, ledger, noise and secure aggregation; what devices would have trained and counted is given. Time
stands still until a test moves it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.federated.layout import ParameterLayout
from hushrec.messages import path_of
from hushrec_privacy.encoding.vectors import encode_update, join_segments
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg import Phase, SecAggDevice, Session
from hushrec_server.assembly import assemble
from hushrec_server.config import read_config
from hushrec_server.data_folder import prepare_folder
from hushrec_server.key_sets import next_key_set, signed_key_set
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from numpy.typing import NDArray

from tests.asgi import ask
from tests.learning_bundle import learning_bundle
from tests.learning_shop import comparing_plan, plan_of
from tests.small_fleet import ROUND_S, START, SmallFleet

LEASE_S = ROUND_S // 50
CONFIG = '[server]\nname = "shop"\ndata = "data"\nplans = [{plans}]\n[releases]\nevaluated_by_devices = true\n'


class ComparingShop:
    """A shop whose models go out only once devices have compared them, its server, and five devices."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fleet, self.said = folder, SmallFleet(folder, ""), list[str]()
        self.clock, data = self.fleet.clock, folder / "data"
        keys, key = prepare_folder(data, self.said.append), self.fleet.plan_key
        key_set = next_key_set(keys.envelopes[0].public(), server="shop", at_s=START - 60, lifetime_s=86_400)
        (data / "keys.json").write_bytes(signed_key_set(key, key_set))
        (data / "plan.pub").write_text(key.public().hex(), encoding="ascii")
        first, _ = learning_bundle(folder / "first.hush")
        release_keys = ReleaseKeys.create(folder / "safe", data / "online")
        shutil.copy(folder / "safe" / "targets.key", data / "online")
        self.repository = ReleaseRepository.create(data / "releases", release_keys, clock=self.clock)
        self.repository.publish(first.root, ledger_head=None, demo=False)
        authority, size = self.fleet.authority.public().hex(), ParameterLayout.of(first.manifest, "adapter").size
        self.training = plan_of(size, "adapter", authority, first_round_at=START, round_seconds=ROUND_S)
        self.comparing = comparing_plan(
            authority, first_round_at=START + ROUND_S // 2, round_seconds=ROUND_S, noise_multiplier=0.05
        )

    def serve(self, *plans: Plan) -> None:
        """Start the server with these plans."""
        for plan in plans:
            (self.folder / f"{plan.plan_id[:8]}.json").write_bytes(plan.encode())
            (self.folder / f"{plan.plan_id[:8]}.json.sig").write_bytes(self.fleet.plan_key.sign(plan))
        config = self.folder / "hushrec.toml"
        config.write_text(CONFIG.format(plans=", ".join(f'"{plan.plan_id[:8]}.json"' for plan in plans)))
        self.server = assemble(read_config(config), self.said.append, clock=self.clock)

    def train(self, number: int) -> str:
        """A round of training whose devices send anything; its state afterwards."""
        self.clock.now = max(self.clock.now, START + (number - 1) * ROUND_S)
        rng = np.random.default_rng(number)
        vectors = rng.integers(-3, 4, (5, self.training.coordinates), dtype=np.int64)
        return self._round(self.training, number, vectors)

    def compare(self, number: int, gain: float) -> str:
        """A round in which each device finds the candidate's NDCG so much better; its state afterwards."""
        self.clock.now = max(self.clock.now, self.comparing.first_round_at + (number - 1) * ROUND_S)
        found = {EVALUATION: np.array([1.0, 0.5, 1.0]), GAIN: np.array([0.0, gain])}
        joined = join_segments(self.comparing, found)
        vectors = np.array([encode_update(self.comparing, joined, OsRandom()) for _ in range(5)])
        return self._round(self.comparing, number, vectors)

    def decided(self, number: int) -> tuple[str, str]:
        """State and reason of a round of training once the server has asked again."""
        self.clock.now += LEASE_S
        self.server.service.tick()
        found = {each["round"]: each for each in self.server.service.rounds(self.training.plan_id)}[number]
        return str(found["state"]), str(found["reason"])

    def admin(self, name: str) -> Any:
        """What an administrator is answered."""
        token = (self.folder / "data" / "admin.token").read_text().strip()
        answer = ask(self.server.app, "GET", path_of(name), headers={"authorization": f"Bearer {token}"})
        assert answer.status == 200
        return json.loads(answer.body) if name.startswith("admin") else answer.body.decode()

    def _round(self, plan: Plan, number: int, vectors: NDArray[np.int64]) -> str:
        service, self.fleet.plan = self.server.service, plan
        devices, names = [], [self.fleet.pseudonym(place) for place in range(5)]
        for place, name in enumerate(names):
            certificate = self.fleet.certificate(place)
            found = service.check_in(plan.plan_id, name, certificate)
            session = Session.decode(found.session)
            devices.append(SecAggDevice(session, self.fleet.identity(place), certificate, cohort_floor=2))
        for phase in Phase:
            for name, device, vector in zip(names, devices, vectors, strict=True):
                answer = service.reply(plan.plan_id, number, phase - 1, name) if phase > 1 else b""
                assert answer is not None
                service.upload(plan.plan_id, number, phase, name, said(device, phase, answer, vector))
            service.tick()
        return self.fleet.state(service, number)


def said(device: SecAggDevice, phase: Phase, answer: bytes, vector: NDArray[np.int64]) -> bytes:
    """What a device says in a phase."""
    if phase is Phase.ADVERTISE:
        return device.advertise()
    if phase is Phase.MASK:
        return device.mask(answer, vector)
    step = {Phase.CHOOSE: device.choose, Phase.SHARE: device.share, Phase.AGREE: device.agree}
    return step.get(phase, device.reveal)(answer)


@pytest.fixture
def shop(tmp_path: Path) -> ComparingShop:
    return ComparingShop(tmp_path)


def versions(shop: ComparingShop) -> list[int]:
    return [release.model_version for release in shop.repository.list()]


def test_a_candidate_is_compared_and_goes_out_and_the_next_round_trains_from_it(shop: ComparingShop) -> None:
    shop.serve(shop.training, shop.comparing)
    assert any(shop.comparing.plan_id[:16] in line for line in shop.said)
    assert shop.train(1) == "erased"
    assert versions(shop) == [1]
    candidate = shop.repository.candidate()
    assert candidate is not None
    waits = f"a round of {shop.comparing.plan_id}"
    told = {"model_version": 2, "bundle": candidate.bundle, "waits_for": waits}
    assert shop.admin("admin-status")["candidate"] == told
    assert "hushrec_candidate 2\n" in shop.admin("metrics")
    assert shop.decided(1) == ("erased", "model version 2 waits until devices have compared it with the one in use")

    assert shop.compare(1, gain=0.1) == "published"
    assert shop.decided(1) == ("published", "")
    newest = shop.repository.list()[-1]
    assert (newest.model_version, newest.bundle) == (2, candidate.bundle)
    assert newest.ledger_head == str(shop.server.service.ledger.anchor())
    assert shop.admin("admin-status")["candidate"] is None
    counts = shop.server.service.counts(shop.comparing.plan_id)["rounds"]
    assert isinstance(counts, list)
    assert counts[0]["segments"][GAIN]["values"][1] == pytest.approx(0.5, abs=0.3)
    assert counts[0]["gain"]["ndcg"] == pytest.approx(0.1, abs=0.06)

    assert shop.train(2) == "erased"
    assert shop.server.service.rounds(shop.training.plan_id)[0]["release"] == candidate.bundle
    shop.server.close()


def test_a_spoiled_candidate_is_refused_and_training_goes_on_with_its_next_round(shop: ComparingShop) -> None:
    shop.serve(shop.training, shop.comparing)
    assert shop.train(1) == "erased"
    assert shop.compare(1, gain=-0.4) == "published"
    state, reason = shop.decided(1)
    assert (state, reason[:43]) == ("aborted", "devices compared: NDCG@10 would change by -")
    assert versions(shop) == [1]
    assert shop.admin("admin-status")["candidate"] is None

    assert shop.train(2) == "erased"
    first = shop.repository.list()[0].bundle
    assert shop.server.service.rounds(shop.training.plan_id)[0]["release"] == first
    assert shop.compare(2, gain=0.1) == "published"
    assert shop.decided(2) == ("published", "")
    assert versions(shop) == [1, 2]
    shop.server.close()


def test_without_a_plan_that_compares_nothing_goes_out_until_one_is_added(shop: ComparingShop) -> None:
    shop.serve(shop.training)
    assert any("until one is added, no model goes out" in line for line in shop.said)
    assert shop.train(1) == "erased"
    assert shop.decided(1)[1].endswith("no plan that compares is open: add one")
    assert shop.admin("admin-status")["candidate"]["waits_for"] == "a plan that compares: none is open"
    assert versions(shop) == [1]

    shop.server.service.add_plan(shop.comparing.encode(), shop.fleet.plan_key.sign(shop.comparing))
    assert shop.compare(1, gain=0.1) == "published"
    assert shop.decided(1) == ("published", "")
    assert versions(shop) == [1, 2]
    shop.server.close()


def test_a_server_that_is_started_again_goes_on_with_what_waits(shop: ComparingShop) -> None:
    shop.serve(shop.training, shop.comparing)
    assert shop.train(1) == "erased"
    shop.server.close()
    shop.serve(shop.training, shop.comparing)
    assert shop.decided(1)[0] == "erased"
    assert shop.compare(1, gain=0.1) == "published"
    shop.server.close()
    shop.serve(shop.training, shop.comparing)
    assert shop.decided(1) == ("published", "")
    assert versions(shop) == [1, 2]
    shop.server.close()
