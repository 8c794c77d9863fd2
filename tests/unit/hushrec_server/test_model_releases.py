"""A round becomes one release: the server's step of the mean on the float32 master, recognised when asked again."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.schedule import share_of_rate
from hushrec.manifest import NO_GUARANTEE
from hushrec_privacy.encoding.sums import decode_sum
from hushrec_privacy.errors import ConfigError, LedgerError, PlanError, ReleaseError
from hushrec_privacy.plans.plan import Plan
from hushrec_server.held_out import HeldOut
from hushrec_server.masters import Masters, content_of
from hushrec_server.model_releases import ModelReleases
from hushrec_server.publishing import Newest, RoundResult, Verdict
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.learning_bundle import ITEMS
from tests.learning_shop import ANCHORS, NOW, Shop, plan_of
from tests.small_fleet import SmallFleet
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.begin()
    return shop


def test_a_round_becomes_the_next_version_with_the_servers_step_on_the_master(shop: Shop) -> None:
    result = shop.result(1)
    assert shop.publisher().publish(result) == Verdict()
    assert shop.publisher().newest().version == 2
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    step = share(result) * FedAdam(layout.size, AdamSettings()).step(decode_sum(shop.plan, result.noised))
    for name, change in layout.unflatten(step).items():
        expected = shop.first.array(name) + change.astype(np.float32)
        np.testing.assert_array_equal(shop.bundle().array(name), expected)


def test_master_and_optimizer_go_on_from_round_to_round(shop: Shop) -> None:
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    adam, master = FedAdam(layout.size, AdamSettings()), Master.of(shop.first)
    for number in (1, 2, 3):
        result = shop.result(number)
        shop.publisher().publish(result)
        master.apply(layout, share(result) * adam.step(decode_sum(shop.plan, result.noised)), lambda: None)  # type: ignore[arg-type, return-value]
    assert shop.publisher().newest().version == 4
    for name in layout.shapes:
        np.testing.assert_array_equal(shop.bundle().array(name), master.encoder[name.removeprefix("params.")])


def share(result: RoundResult) -> float:
    """Of the server's rate, in a round."""
    return share_of_rate(result.number, result.plan.rounds, result.plan.noise_to_clip)


def other_plan(shop: Shop, parts: str = "adapter", **changes: Any) -> Plan:
    """A later plan over the same bundle."""
    size = ParameterLayout.of(shop.first.manifest, parts).size
    return plan_of(size, parts, **{"rounds": 30, **changes})


def stepped(shop: Shop, publish: Callable[[FedAdam, ParameterLayout, Master], None]) -> None:
    """The newest release is what a plain loop over its rounds comes to."""
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    master = Master.of(shop.first)
    publish(FedAdam(layout.size, AdamSettings()), layout, master)
    for name in layout.shapes:
        np.testing.assert_array_equal(shop.bundle().array(name), master.encoder[name.removeprefix("params.")])


def test_a_second_plan_for_the_same_parts_goes_on_with_the_moments_of_the_first(shop: Shop) -> None:
    first = shop.result(1)
    shop.publisher().publish(first)
    second = shop.result(1, plan=other_plan(shop), seed=7)
    shop.publisher().publish(second)
    again = shop.result(2)
    shop.publisher().publish(again)

    def one_optimizer(adam: FedAdam, layout: ParameterLayout, master: Master) -> None:
        for result in (first, second, again):
            master.apply(layout, share(result) * adam.step(decode_sum(result.plan, result.noised)), lambda: None)  # type: ignore[arg-type, return-value]

    stepped(shop, one_optimizer)


def test_a_plan_of_another_clip_norm_begins_anew(shop: Shop) -> None:
    first = shop.result(1)
    shop.publisher().publish(first)
    second = shop.result(1, plan=other_plan(shop, clip_norm=0.5), seed=7)
    shop.publisher().publish(second)

    def two_optimizers(adam: FedAdam, layout: ParameterLayout, master: Master) -> None:
        for result in (first, second):
            adam = FedAdam(layout.size, AdamSettings())
            master.apply(layout, share(result) * adam.step(decode_sum(result.plan, result.noised)), lambda: None)  # type: ignore[arg-type, return-value]

    stepped(shop, two_optimizers)


@pytest.mark.parametrize("parts", ["adapter", "encoder"])
def test_a_plan_fits_when_it_has_the_parameters_of_its_part_in_the_newest_release(shop: Shop, parts: str) -> None:
    size = ParameterLayout.of(shop.first.manifest, parts).size
    shop.publisher().check_plan(plan_of(size, parts))
    shop.publisher().check_plan(shop.comparing)
    for other in (size - 1, size + 1):
        with pytest.raises(PlanError, match=rf"trains {other:,} numbers, and {parts} of release 1 has {size:,}"):
            shop.publisher().check_plan(plan_of(other, parts))


def test_no_plan_for_updates_fits_a_release_that_devices_cannot_train(tmp_path: Path) -> None:
    keys = ReleaseKeys.create(tmp_path / "safe", tmp_path / "online")
    repository = ReleaseRepository.create(tmp_path / "repository", keys, clock=lambda: NOW)
    publisher, plan = ModelReleases(repository, tmp_path / "masters"), plan_of(2_048, "adapter")
    publisher.check_plan(plan)  # without a release there is nothing to fit
    repository.publish(write_tiny_bundle(tmp_path / "shop.hush", train=False), ledger_head=None, demo=False)
    with pytest.raises(PlanError, match=r"cannot train adapter of release 1: the bundle has no train step"):
        publisher.check_plan(plan)


def test_moments_of_another_size_are_not_used(shop: Shop) -> None:
    masters, layout = Masters(shop.folder / "masters"), ParameterLayout.of(shop.first.manifest, "adapter")
    content, adam = "ab" * 32, FedAdam(layout.size - 1, AdamSettings())
    adam.step(np.ones(layout.size - 1))
    masters.keep(content, Master.of(shop.first), shop.plan, adam, base="cd" * 32)
    found = masters.optimizer(content, shop.plan, layout, AdamSettings())
    assert found.to_bytes() == FedAdam(layout.size, AdamSettings()).to_bytes()


def test_a_plan_for_other_parts_carries_the_moments_of_the_first_along(shop: Shop) -> None:
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    adam, first = FedAdam(layout.size, AdamSettings()), shop.result(1)
    shop.publisher().publish(first)
    adam.step(decode_sum(shop.plan, first.noised))
    encoder = other_plan(shop, "encoder")
    for number in (1, 2):
        shop.publisher().publish(shop.result(number, plan=encoder))
    masters = Masters(shop.folder / "masters")
    content = content_of(shop.repository.list()[-1])
    assert masters.optimizer(content, shop.plan, layout, AdamSettings()).to_bytes() == adam.to_bytes()
    moved = masters.optimizer(content, encoder, ParameterLayout.of(shop.first.manifest, "encoder"), AdamSettings())
    assert moved.to_bytes() != FedAdam(moved.size, AdamSettings()).to_bytes()


def test_asked_again_it_publishes_nothing_more(shop: Shop) -> None:
    results = [shop.result(1)]
    shop.publisher().publish(results[0])
    results.append(shop.result(2))
    shop.publisher().publish(results[1])
    for result in results:
        assert shop.publisher().publish(result) == Verdict()
    assert [release.model_version for release in shop.repository.list()] == [1, 2, 3]


def test_killed_before_the_repository_took_it_it_publishes_the_same_bundle(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, made = shop.result(1), []

    def die(_: ReleaseRepository, bundle: Path, **__: Any) -> None:
        made.append(Bundle.open(bundle).sha256)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseRepository, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            shop.publisher().publish(result)
    assert shop.publisher().newest().version == 1
    shop.publisher().publish(result)
    assert [shop.publisher().newest().bundle] == made


def test_it_knows_from_what_was_published_which_rounds_and_where_the_ledger_stood(shop: Shop) -> None:
    assert shop.publisher().anchor() is None
    assert shop.publisher().last_published(shop.plan.plan_id) == 0
    for number in (1, 4):
        shop.publisher().publish(shop.result(number))
    assert shop.publisher().anchor() == ANCHORS[4]
    assert shop.publisher().last_published(shop.plan.plan_id) == 4
    assert shop.publisher().last_published("cd" * 32) == 0
    assert shop.repository.list()[-1].ledger_head == str(ANCHORS[4])


def test_a_roll_back_forgets_nothing_of_where_the_ledger_stood(shop: Shop) -> None:
    for number in (1, 2, 3):
        shop.publisher().publish(shop.result(number))
    shop.repository.rollback(2)  # what round 1 made
    assert shop.publisher().anchor() == ANCHORS[3]
    assert shop.publisher().last_published(shop.plan.plan_id) == 3


def test_what_no_release_holds_any_more_is_forgotten_after_a_day(shop: Shop) -> None:
    masters = shop.folder / "masters"
    for number in (1, 2, 3):
        shop.publisher().publish(shop.result(number))
    shop.repository.prune(2)
    before = set(masters.iterdir())
    shop.publisher().publish(shop.result(4))
    assert before < set(masters.iterdir()), "they could belong to a round of another process"
    for path in before:
        os.utime(path, (10**9, 10**9))  # long ago
    shop.repository.prune(2)
    shop.publisher().publish(shop.result(5))
    assert len({path.name[:64] for path in masters.iterdir()}) == len(shop.repository.list())
    shop.publisher().publish(shop.result(6))
    assert shop.publisher().newest().version == 7


def test_a_head_of_another_ledger_in_the_shops_own_release_is_no_anchor(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.repository.publish(shop.first.root, ledger_head=str(ANCHORS[9]), demo=False)
    assert shop.publisher().anchor() is None


def test_a_round_that_started_from_an_older_release_is_refused(shop: Shop) -> None:
    late = shop.result(1)
    shop.publisher().publish(shop.result(2))
    other = replace(late, plan=plan_of(shop.plan.parameters, "adapter"))
    verdict = shop.publisher().publish(other)
    assert "another release" in verdict.refused
    assert shop.publisher().newest().version == 2


def test_after_a_roll_back_the_master_of_that_content_is_gone_on_with(shop: Shop) -> None:
    first = shop.result(1)
    shop.publisher().publish(first)
    shop.publisher().publish(shop.result(2))
    shop.repository.rollback(2)
    assert shop.publisher().newest().version == 4
    again = shop.result(3)
    shop.publisher().publish(again)
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    adam, master = FedAdam(layout.size, AdamSettings()), Master.of(shop.first)
    for result in (first, again):
        master.apply(layout, share(result) * adam.step(decode_sum(shop.plan, result.noised)), lambda: None)  # type: ignore[arg-type, return-value]
    for name in layout.shapes:
        np.testing.assert_array_equal(shop.bundle().array(name), master.encoder[name.removeprefix("params.")])


def test_without_a_release_there_is_nothing_to_improve(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert shop.publisher().newest() == Newest()
    assert shop.publisher().publish(shop.result(1)).refused


def test_a_model_that_the_guard_refuses_does_not_go_out_and_changes_nothing(shop: Shop) -> None:
    assert shop.publisher(lambda *_: "it is worse").publish(shop.result(1)) == Verdict(refused="it is worse")
    assert shop.publisher().newest().version == 1
    result = shop.result(2)
    shop.publisher().publish(result)
    layout = ParameterLayout.of(shop.first.manifest, "adapter")
    step = share(result) * FedAdam(layout.size, AdamSettings()).step(decode_sum(shop.plan, result.noised))
    for name, change in layout.unflatten(step).items():
        np.testing.assert_array_equal(shop.bundle().array(name), shop.first.array(name) + change.astype(np.float32))


def test_a_plan_of_another_size_does_not_fit_and_nothing_goes_out(shop: Shop) -> None:
    with pytest.raises(ConfigError):
        shop.publisher().publish(shop.result(1, plan=plan_of(7, "adapter")))
    assert shop.publisher().newest().version == 1
    assert not list((shop.folder / "masters").glob("part-*"))


def test_without_the_targets_key_nothing_goes_out_and_it_can_be_asked_again(shop: Shop) -> None:
    repository = ReleaseRepository(
        shop.folder / "repository", ReleaseKeys.read(shop.folder / "online"), clock=lambda: NOW
    )
    result = shop.result(1)
    with pytest.raises(ReleaseError, match="key"):
        ModelReleases(repository, shop.folder / "masters").publish(result)
    assert shop.publisher().publish(result) == Verdict()


def test_a_demo_plan_makes_a_demo_release(shop: Shop) -> None:
    assert shop.plan.demo
    shop.publisher().publish(shop.result(1))
    assert shop.repository.list()[-1].demo is True
    assert shop.bundle().manifest.card["round"]["demo"] is True


def test_rounds_of_a_server_become_releases_and_a_database_set_back_is_found_out(shop: Shop, tmp_path: Path) -> None:
    fleet = SmallFleet(tmp_path, f"sqlite:///{tmp_path / 'fleet.sqlite'}")
    fleet.plan = plan_of(shop.plan.parameters, "adapter", fleet.authority.public().hex())
    service = fleet.service(shop.publisher())
    shutil.copy(tmp_path / "fleet.sqlite", tmp_path / "older.sqlite")
    first = service.check_in(fleet.plan.plan_id, fleet.pseudonym(0), fleet.certificate(0))
    assert first.release == shop.first.sha256
    fleet.run(service, *range(5))
    assert fleet.state(service) == "published"
    assert service.info().release == 2
    card = shop.bundle().manifest.card["round"]
    assert (card["plan"], card["number"], card["devices"]) == (fleet.plan.plan_id, 1, 5)
    assert card["ledger"] == str(service.ledger.anchor())
    service.database.close()
    fleet.url = f"sqlite:///{tmp_path / 'older.sqlite'}"
    with pytest.raises(LedgerError):
        fleet.service(shop.publisher())


@pytest.mark.parametrize(
    ("origin", "after", "guaranteed"),
    [("public", "dp", True), ("private", "private", False), ("dp(another-run)", "private", False)],
)
def test_only_a_start_from_public_facts_has_the_runs_own_epsilon(
    tmp_path: Path, origin: str, after: str, guaranteed: bool
) -> None:
    shop = Shop(tmp_path, origin=origin)
    shop.begin()
    for number in (1, 2):
        shop.publisher().publish(shop.result(number))
    manifest = shop.bundle().manifest
    own = f"dp({shop.plan.plan_id})"
    for name in ("encoder.bin", "params.bin"):
        assert manifest.files[name].origin == (own if after == "dp" else after)
    assert manifest.files["items.bin"].origin == origin
    assert (manifest.card["headline"] != NO_GUARANTEE) is guaranteed
    if guaranteed:
        assert manifest.card["headline"].startswith("epsilon ")


@pytest.mark.parametrize("parts", ["encoder", "encoder+features", "full"])
def test_every_part_can_be_published(tmp_path: Path, parts: str) -> None:
    shop = Shop(tmp_path, parts=parts)
    shop.begin()
    assert shop.publisher().publish(shop.result(1)) == Verdict()
    assert shop.bundle().manifest.model_version == 2


class TestHeldOut:
    """A guard over the shop's held-out histories."""

    HISTORIES: ClassVar = [[f"sku-{(start + step) % ITEMS}" for step in range(6)] for start in range(30)]

    def test_a_model_is_as_good_as_itself(self, shop: Shop) -> None:
        assert HeldOut(self.HISTORIES)(shop.first, shop.first) == ""

    def test_a_model_that_lost_more_than_is_allowed_is_refused(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guard, found = HeldOut(self.HISTORIES, most_loss=0.02), iter((0.5, 0.4899, 0.5, 0.4901))
        monkeypatch.setattr(HeldOut, "ndcg", lambda *_: next(found))
        assert "from 0.5000 to 0.4899" in guard(shop.first, shop.first)
        assert guard(shop.first, shop.first) == ""

    def test_a_file_that_is_not_there_or_is_none_is_told_what_it_should_hold(self, tmp_path: Path) -> None:
        for path, told in ((tmp_path / "none.jsonl", "does not exist"), (tmp_path, "Is a directory")):
            with pytest.raises(ConfigError, match=rf"{path.name}: .*{told}.* a JSON array of item ids on each line"):
                HeldOut.read(path)

    def test_ndcg_is_that_of_the_last_event(self, shop: Shop) -> None:
        value = HeldOut(self.HISTORIES).ndcg(shop.first)
        each = [HeldOut([history]).ndcg(shop.first) for history in self.HISTORIES]
        assert value == pytest.approx(np.mean(each))
        assert 0 <= value <= 1

    def test_items_that_the_catalogue_does_not_have_are_left_out(self, shop: Shop) -> None:
        longer = [["unknown", *history, "gone"] for history in self.HISTORIES]
        assert HeldOut(longer).ndcg(shop.first) == HeldOut(self.HISTORIES).ndcg(shop.first)

    def test_it_is_read_from_a_file(self, shop: Shop, tmp_path: Path) -> None:
        path = tmp_path / "held-out.jsonl"
        path.write_bytes(b"\n".join(msgspec.json.encode(history) for history in self.HISTORIES))
        assert HeldOut.read(path).ndcg(shop.first) == HeldOut(self.HISTORIES).ndcg(shop.first)

    @pytest.mark.parametrize("text", ["", "{}", "[1]", "[", '["a"]\n"b"'])
    def test_a_file_of_anything_else_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "held-out.jsonl"
        path.write_text(text)
        with pytest.raises(ConfigError):
            HeldOut.read(path)
        with pytest.raises(ConfigError):
            HeldOut.read(tmp_path / "missing")

    def test_histories_that_say_nothing_are_refused(self, shop: Shop) -> None:
        with pytest.raises(ConfigError, match="two events"):
            HeldOut([["sku-1"], ["unknown", "gone"]]).ndcg(shop.first)
