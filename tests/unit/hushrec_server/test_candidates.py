"""A new model is staged, compared, and then out or refused; whoever dies in between decides nothing twice."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec_privacy.errors import ConfigError, LedgerError, ReleaseError
from hushrec_server import candidates
from hushrec_server.model_releases import Guard, ModelReleases
from hushrec_server.publishing import Newest, RoundResult, Verdict
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.fleet_plans import COUNTS, a_fleet_plan
from tests.learning_shop import ANCHORS, NOW, Shop, comparing_plan, plan_of
from tests.small_fleet import SmallFleet

DECIDED = Verdict(keep=True)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.begin()
    return shop


def asked(shop: Shop, result: RoundResult, guard: Guard | None = None) -> Verdict:
    """What a process says that has just started."""
    return shop.publisher(guard, by_devices=True).publish(result)


def staged(shop: Shop, number: int = 1) -> RoundResult:
    """The result of a round whose model waits."""
    result = shop.result(number)
    assert asked(shop, result).waiting
    return result


def versions(shop: Shop) -> list[int]:
    return [release.model_version for release in shop.repository.list()]


def test_a_new_model_waits_where_devices_can_fetch_it_and_none_uses_it(shop: Shop) -> None:
    result = shop.result(1)
    verdict = asked(shop, result)
    assert verdict == Verdict(waiting="model version 2 waits until devices have compared it with the one in use")
    candidate = shop.repository.candidate()
    assert candidate is not None
    assert shop.publisher(by_devices=True).candidate() == Newest(2, candidate.bundle)
    assert shop.publisher(by_devices=True).newest() == Newest(1, shop.first.sha256)
    assert (candidate.ledger_head, candidate.demo) == (str(ANCHORS[1]), True)


def test_it_is_the_model_that_would_have_gone_out(shop: Shop, tmp_path: Path) -> None:
    result = staged(shop)
    candidate = shop.repository.candidate()
    assert candidate is not None
    other = Shop(tmp_path / "other")
    other.begin()
    other.publisher().publish(replace(result, plan=shop.plan, release=other.first.sha256))
    same = {file.name: file.sha256 for file in other.repository.list()[-1].files if file.name != "manifest.json"}
    assert {file.name: file.sha256 for file in candidate.files if file.name != "manifest.json"} == same


def test_asked_again_it_waits_and_makes_nothing_anew(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    result = staged(shop)
    before = (shop.repository.folder / "metadata" / "timestamp.json").read_bytes()
    monkeypatch.setattr(ModelReleases, "_next", lambda *_: pytest.fail("it was made anew"))
    assert asked(shop, result).waiting
    assert (shop.repository.folder / "metadata" / "timestamp.json").read_bytes() == before


def test_a_model_that_devices_found_no_worse_goes_out_with_the_head_of_their_round(shop: Shop) -> None:
    result, candidate = staged(shop), shop.repository.candidate()
    assert candidate is not None
    found = shop.compared(2, gain=0.3)
    assert asked(shop, found) == DECIDED
    newest = shop.repository.list()[-1]
    assert (newest.bundle, newest.ledger_head) == (candidate.bundle, str(ANCHORS[2]))
    assert shop.repository.candidate() is None
    assert asked(shop, result) == Verdict()
    assert asked(shop, found) == DECIDED
    assert versions(shop) == [1, 2]
    assert asked(shop, shop.result(2)).waiting.startswith("model version 3 waits")


def test_a_model_that_devices_found_worse_is_refused_and_training_goes_on_from_the_one_in_use(shop: Shop) -> None:
    result = staged(shop)
    found = shop.compared(1, gain=-0.4, found=2.0)
    assert asked(shop, found) == DECIDED
    assert shop.repository.candidate() is None
    verdict = asked(shop, result)
    assert verdict == Verdict(refused=verdict.refused)
    said = r"devices compared: NDCG@10 would change by -0\.[34]\d*, where the release in use has [12]\.?\d* \(sums .*\)"
    assert re.fullmatch(said, verdict.refused), "to lattice steps"
    assert "deviation of 0.7" in verdict.refused
    assert len(verdict.refused) < 200, "a round has no room for more"
    assert versions(shop) == [1]
    assert asked(shop, shop.result(2)).waiting
    assert asked(shop, found) == DECIDED
    assert shop.repository.candidate() is not None, "the next one is another bundle"


@pytest.mark.parametrize(
    ("gain", "found", "refused"),
    [(0.1, 2.0, False), (-0.039, 2.0, False), (-0.041, 2.0, True), (0.002, -1.0, False), (-0.002, -1.0, True)],
)
def test_it_may_lose_two_per_cent_of_what_there_is(
    shop: Shop, gain: float, found: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = np.array([3.0, found, 5.0, 0.1, gain]) / shop.comparing.cohort  # in lattice steps it would be rounded
    result = staged(shop)
    monkeypatch.setattr(candidates, "decode_sum", lambda *_: exact)
    asked(shop, shop.compared(1, gain=gain, found=found))
    assert bool(asked(shop, result).refused) is refused
    assert versions(shop) == ([1] if refused else [1, 2])


def test_how_much_it_may_lose_is_the_shops(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="most_loss"):
        ModelReleases(shop.repository, shop.folder / "masters", most_loss=1.5)
    generous = ModelReleases(shop.repository, shop.folder / "masters", evaluated_by_devices=True, most_loss=0.5)
    staged(shop)
    generous.publish(shop.compared(1, gain=-0.9))
    assert versions(shop) == [1, 2]


def test_a_round_that_compared_another_bundle_decides_nothing(shop: Shop) -> None:
    staged(shop)
    for release in (shop.first.sha256, "ab" * 32, ""):
        assert asked(shop, shop.compared(1, gain=-1.0, release=release)) == DECIDED
    assert shop.repository.candidate() is not None
    assert versions(shop) == [1]


def test_the_first_round_decides_and_a_later_one_changes_nothing(shop: Shop) -> None:
    result = staged(shop)
    worse, better = shop.compared(2, gain=-1.0), shop.compared(1, gain=1.0, plan=comparing_plan("cd" * 32))
    asked(shop, worse)
    asked(shop, better)
    assert versions(shop) == [1]
    assert asked(shop, result).refused


class TestKilled:
    """The process dies at a step; another one goes on."""

    def die(self, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def test_before_it_is_staged_the_same_model_is_staged_by_the_next_process(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result, made = shop.result(1), []

        def die(_: ReleaseRepository, bundle: Path, **__: Any) -> None:
            made.append(Bundle.open(bundle).sha256)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ReleaseRepository, "stage", die)
            with pytest.raises(KeyboardInterrupt):
                asked(shop, result)
        assert asked(shop, result).waiting
        assert [shop.publisher(by_devices=True).candidate().bundle] == made

    def test_before_the_refusal_is_on_the_disk_nothing_is_decided(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result, found = staged(shop), shop.compared(1, gain=-1.0)
        with monkeypatch.context() as patch:
            patch.setattr(candidates, "write_durably", self.die)
            with pytest.raises(KeyboardInterrupt):
                asked(shop, found)
        assert asked(shop, result).waiting
        asked(shop, found)
        assert asked(shop, result).refused

    @pytest.mark.parametrize("first", ["the round that trained", "the round that compared"])
    def test_between_refusal_and_withdrawal_it_stays_refused(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, first: str
    ) -> None:
        result, found = staged(shop), shop.compared(1, gain=-1.0)
        with monkeypatch.context() as patch:
            patch.setattr(ReleaseRepository, "withdraw", self.die)
            with pytest.raises(KeyboardInterrupt):
                asked(shop, found)
        assert shop.repository.candidate() is not None
        assert shop.publisher(by_devices=True).candidate() == Newest(), "nobody is to compare it any more"
        if first == "the round that trained":
            assert asked(shop, result).refused
        assert asked(shop, found) == DECIDED
        assert shop.repository.candidate() is None
        assert asked(shop, result).refused
        assert versions(shop) == [1]

    def test_between_refusal_and_withdrawal_it_makes_room_for_the_next_one(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staged(shop)
        refused = shop.repository.candidate()
        with monkeypatch.context() as patch:
            patch.setattr(ReleaseRepository, "withdraw", self.die)
            with pytest.raises(KeyboardInterrupt):
                asked(shop, shop.compared(1, gain=-1.0))
        assert asked(shop, shop.result(2)).waiting
        assert shop.repository.candidate() != refused

    def test_after_it_was_accepted_it_is_out_once(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        result, found = staged(shop), shop.compared(1, gain=1.0)
        right = ReleaseRepository.accept

        def die(self: ReleaseRepository, *given: Any, **named: Any) -> None:
            right(self, *given, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ReleaseRepository, "accept", die)
            with pytest.raises(KeyboardInterrupt):
                asked(shop, found)
        assert asked(shop, found) == DECIDED
        assert asked(shop, result) == Verdict()
        assert versions(shop) == [1, 2]

    def test_held_up_for_long_it_stages_nothing_that_was_refused_meanwhile(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result, right = shop.result(1), ModelReleases._next

        def slow(self: ModelReleases, *given: Any) -> Bundle:
            monkeypatch.setattr(ModelReleases, "_next", right)
            assert asked(shop, result).waiting
            asked(shop, shop.compared(1, gain=-1.0))
            assert asked(shop, result).refused
            return right(self, *given)

        monkeypatch.setattr(ModelReleases, "_next", slow)
        assert asked(shop, result).refused
        assert shop.repository.candidate() is None


@pytest.mark.parametrize("how", ["publish", "rollback"])
def test_a_release_of_the_shops_takes_its_place(shop: Shop, how: str) -> None:
    shop.publisher().publish(shop.result(1))
    result = staged(shop, 2)
    found = shop.compared(1, gain=1.0)
    if how == "rollback":
        shop.repository.rollback(1)
    else:
        shop.repository.publish(version_nine(shop), ledger_head=None, demo=False)
    before = versions(shop)
    assert asked(shop, result).refused.startswith("another release came out")
    assert asked(shop, found) == DECIDED
    assert shop.repository.candidate() is None
    assert versions(shop) == before


@pytest.mark.parametrize("says", ["it is worse", ""])
def test_with_both_guards_the_servers_own_comes_first(shop: Shop, says: str) -> None:
    result = shop.result(1)
    verdict = asked(shop, result, lambda *_: says)
    assert (verdict.refused, bool(verdict.waiting)) == (says, not says)
    assert (shop.repository.candidate() is None) is bool(says)


def test_the_model_of_another_plan_waits_until_the_first_one_is_decided(shop: Shop) -> None:
    first = staged(shop)
    other = shop.result(1, plan=plan_of(shop.plan.parameters, "adapter", "cd" * 32), seed=5)
    assert asked(shop, other).waiting.endswith("; this round's model comes after it")
    asked(shop, shop.compared(1, gain=-1.0))
    assert asked(shop, other).waiting.endswith("the one in use")
    assert asked(shop, first).refused
    asked(shop, shop.compared(2, gain=1.0))
    assert asked(shop, other) == Verdict()


def test_the_model_of_another_plan_is_refused_if_the_first_one_went_out(shop: Shop) -> None:
    staged(shop)
    other = shop.result(1, plan=plan_of(shop.plan.parameters, "adapter", "cd" * 32), seed=5)
    assert asked(shop, other).waiting
    asked(shop, shop.compared(1, gain=1.0))
    assert "another release" in asked(shop, other).refused


def test_once_devices_are_no_guard_any_more_what_waits_goes_out(shop: Shop) -> None:
    result = staged(shop)
    assert shop.publisher().candidate() == Newest()
    assert shop.publisher().publish(shop.compared(1, gain=-1.0)) == DECIDED
    assert shop.publisher().publish(result) == Verdict()
    assert versions(shop) == [1, 2]
    assert shop.repository.candidate() is None


def test_counts_that_compare_nothing_decide_nothing(shop: Shop) -> None:
    result = staged(shop)
    counts = a_fleet_plan(vector=COUNTS)
    assert not counts.compares
    assert asked(shop, replace(shop.compared(1, gain=-1.0), plan=counts)) == DECIDED
    assert asked(shop, result).waiting


def test_where_the_ledger_stood_is_known_of_what_waits_and_of_what_was_refused(shop: Shop) -> None:
    plan_id = shop.plan.plan_id
    staged(shop, 4)
    for by_devices in (True, False):
        publisher = shop.publisher(by_devices=by_devices)
        assert (publisher.anchor(), publisher.last_published(plan_id)) == (ANCHORS[4], 4)
    asked(shop, shop.compared(5, gain=-1.0))
    for by_devices in (True, False):
        publisher = shop.publisher(by_devices=by_devices)
        assert (publisher.anchor(), publisher.last_published(plan_id)) == (ANCHORS[5], 4)
    shop.repository.publish(version_nine(shop), ledger_head=None, demo=False)
    publisher = shop.publisher(by_devices=True)
    assert (publisher.anchor(), publisher.last_published(plan_id)) == (None, 0), "as the runbook wants it"


def test_where_the_ledger_stood_when_devices_had_compared_is_known_of_what_went_out(shop: Shop) -> None:
    staged(shop, 1)
    asked(shop, shop.compared(6, gain=1.0))
    assert shop.publisher().anchor() == ANCHORS[6]
    shop.repository.publish(version_nine(shop), ledger_head=str(ANCHORS[9]), demo=False)
    shop.repository.rollback(2)  # with the head of the shop's other ledger
    assert shop.repository.list()[-1].ledger_head == str(ANCHORS[9])
    assert shop.publisher().anchor() == ANCHORS[6]


def version_nine(shop: Shop) -> Path:
    """A bundle of the shop's own."""
    manifest = msgspec.structs.replace(shop.first.manifest, model_version=9)
    files: dict[str, Path | bytes] = {name: shop.first.path(name) for name in manifest.files}
    origins = {name: info.origin for name, info in manifest.files.items()}
    return write_bundle(shop.folder / "nine.hush", manifest, files, origins).root


def test_a_database_set_back_to_before_the_round_of_what_waits_is_found_out(shop: Shop, tmp_path: Path) -> None:
    fleet = SmallFleet(tmp_path, f"sqlite:///{tmp_path / 'fleet.sqlite'}")
    fleet.plan = plan_of(shop.plan.parameters, "adapter", fleet.authority.public().hex())
    service = fleet.service(shop.publisher(by_devices=True))
    shutil.copy(tmp_path / "fleet.sqlite", tmp_path / "older.sqlite")
    fleet.run(service, *range(5))
    assert fleet.state(service) == "erased"
    service.database.close()
    fleet.url = f"sqlite:///{tmp_path / 'older.sqlite'}"
    with pytest.raises(LedgerError):
        fleet.service(shop.publisher(by_devices=True))


def test_masters_of_what_waits_are_kept_and_refusals_go_when_a_release_overtakes_them(shop: Shop) -> None:
    masters = shop.folder / "masters"
    staged(shop, 1)
    asked(shop, shop.compared(1, gain=-1.0))
    assert len(list(masters.glob("refused-*.json"))) == 1
    waits = staged(shop, 2)
    for path in masters.glob("*.adam"):
        os.utime(path, (10**9, 10**9))  # long ago
    for path in masters.glob("*.master"):
        os.utime(path, (10**9, 10**9))
    (masters / f"{'0' * 64}.master").write_bytes(b"")  # young: all the others are old
    before = len(list(masters.glob("*.master")))
    shop.publisher(by_devices=True)._forget()
    assert len(list(masters.glob("*.master"))) == before - 1, "the refused one's, not those of what waits"
    assert len(list(masters.glob("refused-*.json"))) == 1
    asked(shop, shop.compared(2, gain=1.0))
    assert asked(shop, waits) == Verdict()
    assert not list(masters.glob("refused-*.json"))
    assert asked(shop, shop.result(3)).waiting
    candidate = shop.repository.candidate()
    assert candidate is not None
    assert candidate.model_version == 3


def test_without_the_targets_key_nothing_is_staged_and_it_can_be_asked_again(shop: Shop) -> None:
    repository = ReleaseRepository(
        shop.folder / "repository", ReleaseKeys.read(shop.folder / "online"), clock=lambda: NOW
    )
    poor = ModelReleases(repository, shop.folder / "masters", evaluated_by_devices=True)
    result = shop.result(1)
    with pytest.raises(ReleaseError, match="key"):
        poor.publish(result)
    assert asked(shop, result).waiting
    with pytest.raises(ReleaseError, match="key"):
        poor.publish(shop.compared(1, gain=1.0))
    assert versions(shop) == [1]


def test_a_damaged_refusal_is_named_and_nothing_is_decided(shop: Shop) -> None:
    result = staged(shop)
    asked(shop, shop.compared(1, gain=-1.0))
    (path,) = (shop.folder / "masters").glob("refused-*.json")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match=path.name):
        asked(shop, result)
    assert versions(shop) == [1]


def test_the_card_says_that_what_devices_compared_is_not_in_its_epsilon(tmp_path: Path) -> None:
    shop = Shop(tmp_path, origin="public")
    shop.begin()
    staged(shop, 1)
    asked(shop, shop.compared(1, gain=1.0))
    shop.publisher().publish(shop.result(2))  # devices are no guard any more: what they chose is in there still
    for release in shop.repository.list()[1:]:
        out = tmp_path / f"seen-{release.model_version}.hush"
        out.mkdir()
        for file in release.files:
            (blob,) = (shop.folder / "repository" / "targets" / "blobs").glob(f"*{file.sha256}")
            shutil.copy(blob, out / file.name)
        headline = Bundle.open(out).manifest.card["headline"]
        assert headline.startswith("epsilon ")
        assert headline.endswith("; what rounds cost in which devices compared models comes on top")
