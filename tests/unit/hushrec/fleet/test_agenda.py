"""A device asks for the plan that has waited longest, and for none that it has nothing for."""

import math

from hushrec.fleet.agenda import Agenda
from hushrec.fleet.joining import Accepted
from hushrec.fleet.pacing import LONGEST_POLL_S, Pace
from hushrec_privacy.ledger.device_cost import device_opening
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.plan import Plan

from tests.fleet_plans import COUNTS, a_fleet_plan


def accepted(**changes: object) -> Accepted:
    plan = a_fleet_plan(**changes)
    return Accepted(plan, plan.plan_id, device_opening(plan, DeviceLimits(lifetime_rho=100.0)))


UPDATE, COUNT = accepted(), accepted(vector=COUNTS)


def always(_plan: Plan) -> bool:
    return True


def test_the_plan_that_has_waited_longest_comes_first() -> None:
    agenda = Agenda()
    agenda.renew([(UPDATE, 20.0), (COUNT, 10.0)])
    assert agenda.due(5, always) is None
    assert agenda.wait_s(5, always) == 5
    assert agenda.due(30, always).accepted is COUNT  # type: ignore[union-attr]


def test_a_plan_without_anything_to_send_is_passed_over() -> None:
    agenda = Agenda()
    agenda.renew([(UPDATE, 20.0), (COUNT, 10.0)])

    def updates(plan: Plan) -> bool:
        return plan.purpose == "update"

    assert agenda.due(30, updates).accepted is UPDATE  # type: ignore[union-attr]
    assert agenda.wait_s(5, updates) == 15


def test_a_plan_that_is_offered_again_keeps_its_later_time_and_its_waits() -> None:
    agenda = Agenda()
    agenda.renew([(UPDATE, 10.0)])
    offer = agenda.due(10, always)
    assert offer is not None
    for _ in range(5):
        offer.backoff.wait_s()
    offer.not_before = 500.0
    agenda.renew([(UPDATE, 100.0), (COUNT, 600.0)])
    assert agenda.due(499, always) is None
    again = agenda.due(500, always)
    assert again is offer
    agenda.renew([(UPDATE, 700.0)])
    assert agenda.wait_s(0, always) == 700


def test_what_is_dropped_or_offered_no_more_is_not_asked_for() -> None:
    agenda = Agenda()
    agenda.renew([(UPDATE, 10.0), (COUNT, 10.0)])
    offer = agenda.due(10, always)
    assert offer is not None
    agenda.drop(offer)
    assert agenda.due(10, always).accepted is not offer.accepted  # type: ignore[union-attr]
    agenda.renew([])
    assert agenda.due(10, always) is None
    assert agenda.wait_s(10, always) == math.inf


def test_waits_follow_the_plan_s_time_and_have_bounds() -> None:
    for round_seconds in (1, 30, 600, 3_600, 10**6):
        least, most = Pace(round_seconds).poll_s
        assert 0.05 <= least <= most <= LONGEST_POLL_S
        assert Pace(round_seconds).patience_s >= max(60, 2 * round_seconds)
        for backoff in (Pace(round_seconds).polls(), Pace(round_seconds).retries(), Pace(round_seconds).check_ins()):
            assert backoff.wait_s() >= least
