"""Vectors of the app wait for a sum, or go by themselves: with consent by name, noise of their own, on the record."""

import numpy as np
import pytest
from hushrec.fleet.features import Features
from hushrec.fleet.joining import Accepted
from hushrec_privacy.errors import BudgetError, ConfigError, FleetError
from hushrec_privacy.ledger import MemoryLedgerStore, ParticipationRecord
from hushrec_privacy.ledger.device_cost import device_opening, direct_opening
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.schema import DirectPayload, Segment, Vector

from tests.fleet_plans import COUNTS, FEATURES, a_fleet_plan

LIMITS = DeviceLimits(lifetime_rho=1000.0)


def accepted(vector: Vector | None = FEATURES) -> Accepted:
    plan = a_fleet_plan(vector=vector)
    return Accepted(plan, plan.plan_id, device_opening(plan, LIMITS))


PLAN = accepted()
PLANS = {PLAN.plan_id: PLAN}


@pytest.fixture
def record() -> ParticipationRecord:
    return ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho="1000")


@pytest.fixture
def features(record: ParticipationRecord) -> Features:
    return Features(lambda: record, LIMITS)


def test_a_vector_of_the_schema_waits_for_a_round_which_takes_it_once(
    features: Features, record: ParticipationRecord
) -> None:
    vector = np.arange(16.0)
    assert not features.give("interests", vector, PLANS)
    vector[:] = 7  # a copy waits
    waiting = features.waiting(PLAN.plan)
    np.testing.assert_array_equal(waiting["interests"], np.arange(16, dtype=np.float32))
    features.taken(waiting)
    assert not features.waiting(PLAN.plan)
    assert features.next_plan() is None
    assert record.totals().rho == "0"


def test_a_later_vector_replaces_one_that_waits(features: Features) -> None:
    for value in (1.0, 2.0):
        features.give("interests", np.full(16, value), PLANS)
    assert features.waiting(PLAN.plan)["interests"][0] == 2


def test_a_vector_that_comes_while_a_round_is_running_waits_for_the_next_one(features: Features) -> None:
    features.give("interests", np.full(16, 1.0), PLANS)
    put_in = features.waiting(PLAN.plan)
    features.give("interests", np.full(16, 2.0), PLANS)
    features.taken(put_in)
    assert features.waiting(PLAN.plan)["interests"][0] == 2
    features.taken(put_in)
    assert features.waiting(PLAN.plan)["interests"][0] == 2, "the old one is taken once"
    features.taken(features.waiting(PLAN.plan))
    assert not features.waiting(PLAN.plan)


def test_a_vector_that_says_the_same_again_waits_all_the_same(features: Features) -> None:
    features.give("interests", np.ones(16), PLANS)
    put_in = features.waiting(PLAN.plan)
    features.give("interests", np.ones(16), PLANS)
    features.taken(put_in)
    assert set(features.waiting(PLAN.plan)) == {"interests"}


def test_what_hushrec_counts_by_itself_the_app_gives_to_no_plan_of_counts(features: Features) -> None:
    counts = accepted(COUNTS)
    with pytest.raises(ConfigError, match="no plan of this fleet asks for 'evaluation'"):
        features.give("evaluation", np.ones(3), {counts.plan_id: counts})
    own = accepted(Vector("features", (Segment("evaluation", 3, "1", "how well the app's own model does"),)))
    features.give("evaluation", np.ones(3), {counts.plan_id: counts, own.plan_id: own})
    assert set(features.waiting(own.plan)) == {"evaluation"}
    assert not features.waiting(counts.plan), "its rounds would be left"


def test_a_counter_of_the_app_waits_for_a_plan_of_counts_and_for_no_other(features: Features) -> None:
    counts = accepted(COUNTS)
    features.give("visits", np.array([3.0]), {counts.plan_id: counts})
    assert set(features.waiting(counts.plan)) == {"visits"}
    assert not features.waiting(PLAN.plan)


def test_another_plan_with_a_longer_segment_of_that_name_does_not_get_it(features: Features) -> None:
    longer = accepted(Vector("features", (Segment("interests", 17, "1", "what the shopper likes"),)))
    features.give("interests", np.ones(16), PLANS)
    assert not features.waiting(longer.plan), "its rounds would be joined, and left when the vector does not fit"
    features.taken(features.waiting(longer.plan))
    assert set(features.waiting(PLAN.plan)) == {"interests"}


@pytest.mark.parametrize(("name", "length"), [("interests", 15), ("unknown", 16), ("update", 2048), ("interests", 0)])
def test_what_no_plan_asks_for_is_not_kept(features: Features, name: str, length: int) -> None:
    update = accepted(None)
    with pytest.raises(ConfigError):
        features.give(name, np.ones(length), {**PLANS, update.plan_id: update})
    assert not features.waiting(PLAN.plan)


def test_a_direct_payload_needs_consent_by_its_name(features: Features) -> None:
    with pytest.raises(FleetError, match="did not agree") as refused:
        features.give("user-vector", np.ones(8), PLANS)
    assert refused.value.reason == "no-consent"
    features.allow("interests", True)
    with pytest.raises(FleetError):
        features.give("user-vector", np.ones(8), PLANS)
    features.allow("user-vector", 1)  # type: ignore[arg-type]  # nothing but True is consent
    with pytest.raises(FleetError):
        features.give("user-vector", np.ones(8), PLANS)
    features.allow("user-vector", True)
    assert features.give("user-vector", np.ones(8), PLANS)


def test_a_direct_payload_is_noised_and_on_the_record_before_it_is_given_out(
    features: Features, record: ParticipationRecord
) -> None:
    features.allow("user-vector", True)
    features.give("user-vector", np.full(8, 1000.0), PLANS)
    assert features.next_plan() is PLAN
    assert record.totals().rho == "0", "nothing is spent while it waits"
    noised = features.next_noised()
    assert noised is not None
    assert (noised.accepted, noised.name, len(noised.values)) == (PLAN, "user-vector", 32)
    opened = direct_opening(PLAN.plan, "user-vector", LIMITS)
    assert record.totals().plans[opened.plan].rounds == 1
    assert float(record.totals().rho) > 0
    values = np.frombuffer(noised.values, "<f4")
    assert np.abs(values).max() < 100, "clipped to length 1 before noise of deviation 2.4"


def test_the_noise_is_drawn_once_however_often_it_must_be_sent(features: Features, record: ParticipationRecord) -> None:
    features.allow("user-vector", True)
    features.give("user-vector", np.ones(8), PLANS)
    first = features.next_noised()
    features.give("user-vector", np.zeros(8), PLANS)
    assert features.next_noised() is first
    features.sent()
    second = features.next_noised()
    assert second is not None
    assert second.values != first.values  # type: ignore[union-attr]
    features.sent()
    assert features.next_noised() is None
    assert record.totals().plans[direct_opening(PLAN.plan, "user-vector", LIMITS).plan].rounds == 2


def test_it_is_sent_no_more_often_than_the_plan_says(features: Features, record: ParticipationRecord) -> None:
    features.allow("user-vector", True)
    for _ in range(5):
        features.give("user-vector", np.ones(8), PLANS)
        assert features.next_noised() is not None
        features.sent()
    spent = record.totals().rho
    features.give("user-vector", np.ones(8), PLANS)
    with pytest.raises(BudgetError):
        features.next_noised()
    assert features.next_noised() is None, "it is dropped"
    assert record.totals().rho == spent


def test_the_lifetime_limit_holds_for_direct_payloads_too() -> None:
    record = ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho="0.01")
    features = Features(lambda: record, LIMITS)
    features.allow("user-vector", True)
    features.give("user-vector", np.ones(8), PLANS)
    with pytest.raises(BudgetError):
        features.next_noised()


@pytest.mark.parametrize("noised", [False, True])
def test_withdrawn_consent_drops_what_waits_and_what_is_noised(features: Features, noised: bool) -> None:
    features.allow("user-vector", True)
    features.give("user-vector", np.ones(8), PLANS)
    if noised:
        features.next_noised()
    features.allow("user-vector", False)
    assert features.next_plan() is None
    assert features.next_noised() is None


def test_leaving_drops_everything_and_all_consent(features: Features) -> None:
    features.allow("user-vector", True)
    features.give("user-vector", np.ones(8), PLANS)
    features.give("interests", np.ones(16), PLANS)
    features.forget()
    assert features.next_plan() is None
    assert not features.waiting(PLAN.plan)
    with pytest.raises(FleetError):
        features.give("user-vector", np.ones(8), PLANS)


def test_a_payload_that_does_not_fit_into_its_envelope_is_refused(features: Features) -> None:
    long = DirectPayload("long", 3_751, "1", "too long to send", "4", "0.000001", 5, 30)
    plan = accepted(Vector("features", (Segment("interests", 16, "1", "how much you like each category"),), (long,)))
    features.allow("long", True)
    with pytest.raises(ConfigError, match="fit into an envelope"):
        features.give("long", np.ones(3_751), {plan.plan_id: plan})


def test_what_is_not_finite_is_taken_and_sent_as_zeros(features: Features) -> None:
    features.allow("user-vector", True)
    features.give("user-vector", np.array([np.nan, np.inf, 1e300, 0, 0, 0, 0, 0]), PLANS)
    noised = features.next_noised()
    assert noised is not None
    assert np.isfinite(np.frombuffer(noised.values, "<f4")).all()
