"""What taking part costs one device: computed from its own participations, never from the rounds that a server counts.

A device does not know how many rounds are published after its last one, and through correlated noise all of them tell
of it. So a cost is that of the whole plan with all its rounds published, for a device that takes part so many times,
in those rounds that are worst for it. One reader a mechanism, by name; what no reader knows has no guarantee.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from hushrec_privacy import canonical, checks
from hushrec_privacy.accounting.claims import DEVICE, LOCAL_TRUST, gaussian_guarantee, local_guarantee
from hushrec_privacy.accounting.guarantee import ADJACENCIES, Guarantee
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss
from hushrec_privacy.accounting.toeplitz import most_participations
from hushrec_privacy.errors import ConfigError, HushrecError, PlanError
from hushrec_privacy.ledger.entries import Limits, Open
from hushrec_privacy.ledger.openings import BANDED, GAUSSIAN, LOCAL, plan_of_numbers, plan_opening, run_id
from hushrec_privacy.mechanisms.local_noise import LocalNoise
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.plan import Plan

__all__ = ["device_guarantee", "device_opening", "device_rho", "direct_opening", "participation_rho"]

_UP = 1 + 4 * 2.0**-52


def device_opening(plan: Plan, limits: DeviceLimits) -> Open:
    """The entry by which a device's record joins a plan: the stricter of the plan's limits and the device's.

    Args:
        plan: One that `plans.limits.check_plan` accepted.
        limits: Of this device.

    Raises:
        PlanError: It states another epsilon than its numbers give.
    """
    cap = min(plan.participations, limits.participations)
    return replace(plan_opening(plan), limits=Limits(plan.rounds, cap=cap, separation=plan.min_separation))


def direct_opening(plan: Plan, name: str, limits: DeviceLimits) -> Open:
    """The entry by which a device's record joins a direct payload of a plan: a budget of its own beside the rounds'.

    Releases are its rounds, numbered from 1. What one costs is computed from the noise between any two vectors, which
    is more than zero-out asks, so that the total of a receipt holds for both.

    Args:
        plan: One that `plans.limits.check_plan` accepted.
        name: Of the payload.
        limits: Of this device.

    Raises:
        PlanError: The plan has no such payload.
        ConfigError: Its noise cannot be drawn.
    """
    payload = next((row for row in plan.direct if row.name == name), None)
    if payload is None:
        raise PlanError(f"the plan has no direct payload {name!r}; nothing of that name may leave this device")
    noise = LocalNoise(payload.length, float(payload.clip), float(payload.epsilon), float(payload.delta))
    return Open(
        plan=run_id(kind="direct", name=name, plan=plan.plan_id),
        mechanism=LOCAL,
        parameters={
            "noise_multiplier": canonical.float_text(noise.noise_multiplier),
            "parameters": payload.length,
            "clip_norm": payload.clip,
            "keep_days": payload.keep_days,
        },
        unit=DEVICE,
        adjacency="zero-out",
        delta=payload.delta,
        trust=LOCAL_TRUST,
        limits=Limits(payload.releases, cap=min(payload.releases, limits.participations)),
        demo=plan.demo,
        purpose=f"{payload.name}: {payload.purpose}",
    )


def device_guarantee(opened: Open, participations: int) -> Guarantee:
    """What holds for a device that takes part so many times in a plan, once all rounds of the plan are published.

    Guarantee:
        Epsilon never falls when a participation is added, and holds for every choice of rounds that the entry's
        limits allow. Without a participation it is 0: nothing left the device.

    Args:
        opened: From the device's record.
        participations: At least 0.

    Returns:
        Epsilon is infinite where the entry's numbers give no guarantee, or the mechanism is none that a device knows.

    Raises:
        ConfigError: `participations` is not a whole number of at least 0.
    """
    checks.at_least(0, participations=participations)
    try:
        return _read(opened, participations)
    except (HushrecError, KeyError, TypeError, ValueError) as error:
        why = getattr(error, "message", "its numbers are not those of its mechanism")
        adjacency = next(known for known in ADJACENCIES if known == opened.adjacency)
        epsilon = math.inf if participations else 0.0
        mechanism = f"no guarantee: {why}" if participations else "nothing was sent"
        loss = None if participations else PrivacyLoss()
        return Guarantee(epsilon, float(opened.delta), opened.unit, adjacency, mechanism, opened.trust, loss=loss)


def device_rho(opened: Open, participations: int) -> float:
    """mu^2 / 2 of what `device_guarantee` states, rounded up; infinite where it states no guarantee.

    Args:
        opened: From the device's record.
        participations: At least 0.

    Raises:
        ConfigError: `participations` is not a whole number of at least 0.
    """
    checks.at_least(0, participations=participations)
    try:
        loss = _read(opened, participations).loss
    except (HushrecError, KeyError, TypeError, ValueError):
        loss = None if participations else PrivacyLoss()
    mu = math.inf if loss is None else loss.mu
    return mu * mu / 2 * _UP


def participation_rho(opened: Open, before: int) -> str:
    """By how much the plan's rho rises through one more participation: what `ParticipationRecord.participate` is told.

    The sum over all participations is `device_rho` of them, rounded up, and no more.

    Args:
        opened: From the device's record.
        before: Participations so far.

    Raises:
        ConfigError: The plan has no guarantee with one more.
    """
    with_it = device_rho(opened, before + 1)
    if not math.isfinite(with_it):
        raise ConfigError(f"one more participation has {device_guarantee(opened, before + 1).mechanism}")
    return canonical.subtract_decimals(
        canonical.float_text_up(with_it), canonical.float_text_up(device_rho(opened, before))
    )


def _read(opened: Open, participations: int) -> Guarantee:
    if opened.adjacency != "zero-out":
        raise ConfigError("rounds hide what a device sends, not that it is there: they are zero-out")
    if opened.mechanism not in _READERS:
        raise ConfigError(f"the mechanism {opened.mechanism!r} is none that hushrec has for rounds of devices")
    found = replace(_READERS[opened.mechanism](opened, participations), unit=opened.unit, trust=opened.trust)
    return found if participations else replace(found, epsilon=0.0, loss=PrivacyLoss())


def _banded(opened: Open, participations: int) -> Guarantee:
    given = opened.parameters
    rounds, separation = int(given["rounds"]), min(int(given["min_separation"]), opened.limits.separation)
    most = most_participations(rounds, separation)
    cap = min(opened.limits.cap or most, most)
    plan = plan_of_numbers(opened, min_separation=separation, participations=cap)
    part = replace(plan, participations=max(participations, 1))
    return replace(part.guarantee(), assumptions=plan.guarantee().assumptions)


def _independent(claim: Callable[[float, int, float], Guarantee], opened: Open, participations: int) -> Guarantee:
    given, delta = opened.parameters["noise_multiplier"], float(opened.delta)
    noise = float(given if isinstance(given, int) else canonical.decimal(given))
    cap = opened.limits.cap or opened.limits.max_rounds
    return replace(claim(noise, participations, delta), assumptions=claim(noise, cap, delta).assumptions)


_READERS: dict[str, Callable[[Open, int], Guarantee]] = {
    BANDED: _banded,
    GAUSSIAN: partial(_independent, gaussian_guarantee),
    LOCAL: partial(_independent, local_guarantee),
}
