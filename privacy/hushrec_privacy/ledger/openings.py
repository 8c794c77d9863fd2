"""How each mechanism is written into a ledger, and how its guarantee is computed again from what stands there.

One reader a mechanism, by name. Whatever a reader does not know has no guarantee: epsilon is infinite.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from hushrec_privacy import canonical
from hushrec_privacy.accounting.claims import CENTRAL_TRUST, USER, poisson_guarantee
from hushrec_privacy.accounting.gaussian import mu_of_participations
from hushrec_privacy.accounting.guarantee import ADJACENCIES, Guarantee
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss
from hushrec_privacy.errors import ConfigError, HushrecError
from hushrec_privacy.ledger.entries import Limits, Open
from hushrec_privacy.plans.plan import PARTS, Plan
from hushrec_privacy.plans.schema import UPDATE, Segment

__all__ = ["counts_opening", "guarantee_after", "plan_of_numbers", "plan_opening", "run_id", "training_opening"]

BANDED, POISSON, GAUSSIAN, LOCAL = "banded-toeplitz", "poisson-gaussian", "gaussian", "local-gaussian"
_NO_NOISE = ("local_steps", "candidates")  # whole numbers that no guarantee depends on
_NUMBERS = (*(f.name for f in fields(Plan) if f.type is int and f.name not in _NO_NOISE), "clip_norm", "delta")


def plan_opening(plan: Plan) -> Open:
    """The entry that opens a plan of federated rounds.

    Args:
        plan: Verified.

    Raises:
        PlanError: It states another epsilon than its numbers give.
    """
    guarantee = plan.check_epsilon()
    return Open(
        plan=plan.plan_id,
        mechanism=BANDED,
        parameters={name: getattr(plan, name) for name in _NUMBERS},
        unit=guarantee.unit,
        adjacency=guarantee.adjacency,
        delta=plan.delta,
        trust=guarantee.trust,
        limits=Limits(max_rounds=plan.rounds),
        demo=plan.demo,
        purpose="; ".join(segment.in_words() for segment in plan.schema),
    )


def training_opening(
    run: str,
    *,
    sampling_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    released_mu: float = 0.0,
    unit: str = USER,
) -> Open:
    """The entry that opens a central training run over Poisson-sampled steps.

    With `released_mu` its first round is the release of tables, and the steps come after it.

    Args:
        run: Id of the run, from `run_id`.
        sampling_rate: q.
        noise_multiplier: z.
        steps: T, the most that may be taken.
        released_mu: Separation of tables that Gaussian noise over all users releases before the steps; 0: none.
        delta: Of the guarantee.
        unit: Whose presence is hidden.
    """
    parameters = {
        "sampling_rate": canonical.float_text(sampling_rate),
        "noise_multiplier": canonical.float_text(noise_multiplier),
    }
    if released_mu:
        parameters["released_mu"] = canonical.float_text_up(released_mu)
        steps += 1
    return _central(run, POISSON, parameters, steps=steps, delta=delta, unit=unit)


def counts_opening(run: str, *, noise_multiplier: float, releases: int, delta: float, unit: str = USER) -> Open:
    """The entry that opens the release of tables of counts under Gaussian noise.

    Args:
        run: Id, from `run_id`.
        noise_multiplier: Standard deviation of the noise over the L2 bound of one user's counts.
        releases: How many tables.
        delta: Of the guarantee.
        unit: Whose presence is hidden.
    """
    parameters = {"noise_multiplier": canonical.float_text(noise_multiplier)}
    return _central(run, GAUSSIAN, parameters, steps=releases, delta=delta, unit=unit)


def run_id(**facts: int | str) -> str:
    """An id for something that is no plan: sha256 of its public facts, 64 hexadecimal digits.

    Args:
        facts: Public values that make it this run and no other, such as a random number.

    >>> len(run_id(kind="training", nonce="ab"))
    64
    """
    return hashlib.sha256(canonical.encode(facts)).hexdigest()


def guarantee_after(opened: Open, rounds: int, last: int) -> Guarantee:
    """What holds once some rounds of an opened plan are spent.

    Args:
        opened: From the ledger.
        rounds: How many are spent.
        last: Number of the last one; rounds count as spent up to it where their noise depends on each other.

    Returns:
        Of the unit and adjacency that the entry states. Epsilon is infinite where the ledger's numbers give no
        guarantee of that, or the mechanism is not known.
    """
    try:
        if rounds == 0:
            return _stated(opened, PrivacyLoss(), "nothing was released yet")
        found = _READERS[opened.mechanism](opened, rounds, last)
        if found.adjacency != opened.adjacency:
            raise ConfigError(f"{opened.mechanism} is {found.adjacency}, and its entry says {opened.adjacency}")
        return found
    except (HushrecError, KeyError, TypeError, ValueError) as error:
        why = getattr(error, "message", f"the mechanism {opened.mechanism!r} is not known to this hushrec")
        return _stated(opened, None, f"no guarantee: {why}")


def _central(
    run: str, mechanism: str, parameters: Mapping[str, int | str], *, steps: int, delta: float, unit: str
) -> Open:
    return Open(
        plan=run,
        mechanism=mechanism,
        parameters=parameters,
        unit=unit,
        adjacency="add-or-remove",
        delta=canonical.float_text(delta),
        trust=CENTRAL_TRUST,
        limits=Limits(max_rounds=steps),
    )


def plan_of_numbers(opened: Open, **changes: int) -> Plan:
    """A plan with the noise of an opened one, for its guarantee; what it does not depend on is made up.

    Args:
        opened: From a ledger, its mechanism `BANDED`.
        changes: Numbers to take instead of the entry's.

    Raises:
        PlanError: The numbers do not fit each other.
        KeyError, TypeError: A number is missing, or one too many.
    """
    given: dict[str, Any] = {**opened.parameters, "delta": opened.delta, **changes}
    return Plan(
        purpose=UPDATE,
        schema=(Segment(UPDATE, given["parameters"], given["clip_norm"], "not told"),),
        direct=(),
        parts=PARTS[0],
        local_steps=1,
        local_rate="1",
        candidates=1,
        secagg="active",
        authority="",
        rotation_seed="0" * 64,
        epsilon="0",
        demo=opened.demo,
        **given,
    )


def _banded(opened: Open, rounds: int, last: int) -> Guarantee:
    plan = plan_of_numbers(opened)
    del rounds  # a round that was left out costs nothing less: its neighbours' noise is spent
    part = replace(
        plan,
        rounds=last,
        bands=min(plan.bands, last),
        participations=min(plan.participations, -(-last // plan.min_separation)),
    )
    return replace(part.guarantee(), unit=opened.unit, trust=opened.trust)


def _poisson(opened: Open, rounds: int, last: int) -> Guarantee:
    rate, noise = (_number(opened, name) for name in ("sampling_rate", "noise_multiplier"))
    released = _number(opened, "released_mu") if "released_mu" in opened.parameters else 0.0
    steps = rounds - 1 if released and rounds == last else rounds  # was one left out, it may be that of the tables
    found = poisson_guarantee(rate, steps, noise, float(opened.delta), released_mu=released)
    return replace(found, unit=opened.unit)


def _gaussian(opened: Open, rounds: int, last: int) -> Guarantee:
    del last
    noise = _number(opened, "noise_multiplier")
    loss = PrivacyLoss(mu_of_participations(noise, rounds))
    mechanism = f"Gaussian, noise multiplier {noise:g}, {rounds} releases, exact curve"
    return _stated(opened, loss, mechanism, ("the L2 norm of one unit's contribution is bounded as stated",))


def _number(opened: Open, name: str) -> float:
    value = opened.parameters[name]
    return float(value if isinstance(value, int) else canonical.decimal(value, name=name))


def _stated(opened: Open, loss: PrivacyLoss | None, mechanism: str, assumptions: tuple[str, ...] = ()) -> Guarantee:
    """With an infinite epsilon if there is no loss that is known."""
    adjacency = next(known for known in ADJACENCIES if known == opened.adjacency)
    delta = float(opened.delta)
    if not 0 <= delta < 1:
        raise ConfigError("delta must be below 1")
    epsilon = math.inf if loss is None else loss.epsilon(delta)
    return Guarantee(epsilon, delta, opened.unit, adjacency, mechanism, opened.trust, assumptions, loss=loss)


_READERS: dict[str, Callable[[Open, int, int], Guarantee]] = {
    BANDED: _banded,
    POISSON: _poisson,
    GAUSSIAN: _gaussian,
}
