"""Work waits for the conditions that the app needs, and nothing passes without consent."""

import itertools

import pytest
from hushrec.fleet.conditions import Conditions, Require, allowed
from hushrec.fleet.gate import CONDITIONS, NO_CONSENT, STOPPED, Gate
from hushrec_privacy.errors import FleetError

NAMES = ("idle", "charging", "unmetered")
GOOD = Conditions(idle=True, charging=True, unmetered=True)


@pytest.mark.parametrize("now", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("need", list(itertools.product([True, False], repeat=3)))
def test_every_needed_condition_must_hold_and_only_the_network_is_free_after_masking(
    now: tuple[bool, ...], need: tuple[bool, ...]
) -> None:
    moment, wanted = Conditions(*now), Require(*need)
    missing = {name for name, is_, must in zip(NAMES, now, need, strict=True) if must and not is_}
    assert allowed(moment, wanted) == (not missing)
    assert allowed(moment, wanted, masked=True) == (not missing - {"unmetered"})


def test_all_conditions_are_needed_unless_the_app_says_otherwise() -> None:
    assert Require() == Require(idle=True, charging=True, unmetered=True)


def test_the_app_is_asked_anew_every_time() -> None:
    moments = iter([GOOD, Conditions(idle=False, charging=True, unmetered=True), GOOD])
    gate = Gate(lambda: next(moments), Require(), consent=True)
    assert [gate.closed(), gate.closed(), gate.closed()] == [None, CONDITIONS, None]


@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes"])
def test_nothing_but_true_is_consent_and_the_app_is_not_even_asked(answer: object) -> None:
    def never() -> Conditions:
        raise AssertionError

    gate = Gate(never, Require(idle=False, charging=False, unmetered=False), consent=answer)  # type: ignore[arg-type]
    with pytest.raises(FleetError, match="nothing is sent") as refused:
        gate.check()
    assert refused.value.reason == NO_CONSENT
    assert refused.value.retry_after_s is None


def test_consent_can_be_withdrawn_and_given_again() -> None:
    gate = Gate(lambda: GOOD, Require(), consent=True)
    gate.check()
    gate.consent = False
    assert gate.closed(masked=True) == NO_CONSENT
    gate.consent = True
    gate.check()


def test_a_stopped_gate_lets_nothing_pass_and_wakes_whoever_waits() -> None:
    gate = Gate(lambda: GOOD, Require(), consent=True)
    gate.stop()
    gate.pause(1000)
    assert gate.stopping
    assert gate.closed(masked=True) == STOPPED
    gate.reopen()
    assert gate.closed() is None
