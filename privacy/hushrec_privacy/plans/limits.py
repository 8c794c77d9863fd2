"""What a device allows at most, whatever a signed plan says, and the one check before it joins."""

from dataclasses import dataclass

from hushrec_privacy import checks
from hushrec_privacy.accounting.guarantee import Guarantee
from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.plans.plan import Plan

__all__ = ["COHORT_FLOOR", "DeviceLimits", "UnsafeDemoLimits", "check_plan"]

COHORT_FLOOR = 100


@dataclass(frozen=True)
class DeviceLimits:
    """Limits of one device.

    Attributes:
        participations: Rounds of one plan that it joins at most.
        lifetime_rho: What all its participations in all plans may sum to: mu^2 / 2 of each plan.
        cohort_floor: Devices of a round at least; can be raised above 100, not lowered.

    Raises:
        ConfigError: A limit is out of range.
    """

    participations: int = 100
    lifetime_rho: float = 1.0
    cohort_floor: int = COHORT_FLOOR

    def __post_init__(self) -> None:
        checks.at_least(1, participations=self.participations)
        checks.positive(lifetime_rho=self.lifetime_rho)
        checks.at_least(self._least_floor(), cohort_floor=self.cohort_floor)

    def _least_floor(self) -> int:
        return COHORT_FLOOR


@dataclass(frozen=True)
class UnsafeDemoLimits(DeviceLimits):
    """Limits that accept plans marked as demonstrations, with any cohort. Protects nobody: never ship it.

    A type of its own, so that no configuration file and no environment variable can select it.
    """

    cohort_floor: int = 1

    def _least_floor(self) -> int:
        return 1


def check_plan(plan: Plan, limits: DeviceLimits, *, spent_rho: float = 0.0) -> Guarantee:
    """Decide on a device whether to join a plan whose signature was right.

    Args:
        plan: From `signing.verified_plan`.
        limits: Of this device.
        spent_rho: Of its earlier plans, from its participation record.

    Returns:
        What the plan guarantees, computed here.

    Raises:
        PlanError: The plan is past a limit, is a demonstration, names no authority for certificates, or states an
            epsilon that its numbers do not give.
    """
    if not spent_rho >= 0:
        raise ConfigError(f"spent_rho is {spent_rho!r}; it must be at least 0")
    if plan.demo != isinstance(limits, UnsafeDemoLimits):
        raise PlanError(
            "the plan is a DEMO and protects nobody; this device refuses it"
            if plan.demo
            else "this device runs with demonstration limits and joins no real plan"
        )
    if not plan.authority:
        raise PlanError("the plan names no authority, so anybody could pass for a fleet; this device refuses it")
    guarantee = plan.check_epsilon()
    if plan.min_cohort < limits.cohort_floor:
        raise PlanError(
            f"rounds of {plan.min_cohort} devices are allowed by the plan; here {limits.cohort_floor} must join"
        )
    if plan.participations > limits.participations:
        raise PlanError(f"the plan allows {plan.participations} participations; this device {limits.participations}")
    mu = plan.mu()
    rho = mu * mu / 2
    if spent_rho + rho > limits.lifetime_rho:
        raise PlanError(
            f"the plan costs rho {rho:.4g}; of the lifetime limit {limits.lifetime_rho:g} are "
            f"{max(0.0, limits.lifetime_rho - spent_rho):.4g} left"
        )
    return guarantee
