"""One privacy statement with everything it depends on; a number alone says nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, Literal

from hushrec_privacy import checks
from hushrec_privacy.accounting.gaussian import check_delta, check_epsilon
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss
from hushrec_privacy.errors import ConfigError

__all__ = ["ADJACENCIES", "WEAK_EPSILON", "Adjacency", "Guarantee", "compose", "number", "rounded_up"]

Adjacency = Literal["zero-out", "add-or-remove"]
ADJACENCIES: tuple[Adjacency, ...] = ("zero-out", "add-or-remove")
"""Neighbours differ in one unit: its contributions replaced by zeros, who takes part being public; or the unit and all
it did there or not there at all."""

WEAK_EPSILON = 10
"""An epsilon above this promises next to nothing; whoever states one is told so."""

_FIXED = (
    "which plans or runs there are, their noise, their sampling rates and their numbers of rounds were chosen without "
    "looking at what earlier ones had published; what they compute may depend on it"
)


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of one thing that was, or will be, published.

    Attributes:
        epsilon: 0 to infinity.
        delta: 0 to 1.
        unit: Whose presence is hidden, e.g. "one enrolled device, over all rounds".
        adjacency: What neighbours are.
        mechanism: What adds the noise, and how much.
        trust: Who must behave for it to hold.
        assumptions: What must be true beside that, one sentence each.
        slack: What the numbers already contain for rounding: name of the term and its size.
        loss: What epsilon comes from, so that it composes exactly; None: nothing is known but epsilon and delta.

    Raises:
        ConfigError: A number is NaN or out of range, or the adjacency is not one of `ADJACENCIES`.
    """

    epsilon: float
    delta: float
    unit: str
    adjacency: Adjacency
    mechanism: str
    trust: str
    assumptions: tuple[str, ...] = ()
    slack: tuple[tuple[str, float], ...] = ()
    loss: PrivacyLoss | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.delta != 1:
            check_delta(self.delta)
        checks.one_of(ADJACENCIES, adjacency=self.adjacency)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; infinity is the string "inf".

        >>> Guarantee(math.inf, 0.0, "a user", "zero-out", "none", "nobody").to_dict()["epsilon"]
        'inf'
        """
        return {
            "epsilon": number(self.epsilon),
            "delta": self.delta,
            "unit": self.unit,
            "adjacency": self.adjacency,
            "mechanism": self.mechanism,
            "trust": self.trust,
            "assumptions": list(self.assumptions),
            "slack": dict(self.slack),
        }


def compose(guarantees: Iterable[Guarantee]) -> Guarantee:
    """What several publications about the same unit are together: the epsilon of all losses, at the sum of deltas.

    Losses compose exactly, see `PrivacyLoss`. Where one is not known, epsilons are added (basic composition: Dwork,
    Roth 2014, theorem 3.16), and the result is never above that sum. Delta is the sum either way, so that the two can
    be compared. As it is larger than the delta of each part, epsilon can be smaller than that of a part.

    Args:
        guarantees: At least one, all of one unit and one adjacency.

    Raises:
        ConfigError: None is given, or they differ in unit or adjacency: such a sum would mean nothing.

    >>> one = Guarantee(0.5, 1e-7, "a user", "zero-out", "some noise", "the server")
    >>> round(compose([one, one]).epsilon, 12)
    1.0
    >>> loss = PrivacyLoss(mu=0.1)
    >>> gaussian = Guarantee(loss.epsilon(1e-7), 1e-7, "a user", "zero-out", "Gaussian", "the server", loss=loss)
    >>> round(gaussian.epsilon, 4), round(compose([gaussian, gaussian]).epsilon, 4)
    (0.4471, 0.6247)
    """
    parts = tuple(guarantees)
    if not parts:
        raise ConfigError("nothing to compose; give at least one guarantee")
    for name in ("adjacency", "unit"):
        found = sorted({str(getattr(part, name)) for part in parts})
        if len(found) > 1:
            raise ConfigError(f"guarantees of different {name} cannot be composed: {' and '.join(found)}")
    if len(parts) == 1:
        return parts[0]
    delta = min(1.0, _sum_above(part.delta for part in parts))
    epsilon = _sum_above(part.epsilon for part in parts)
    losses = [part.loss for part in parts if part.loss is not None]
    loss = reduce(add, losses) if len(losses) == len(parts) else None
    if loss is not None and delta < 1:
        epsilon = min(epsilon, loss.epsilon(delta))
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        unit=parts[0].unit,
        adjacency=parts[0].adjacency,
        mechanism=_joined(part.mechanism for part in parts),
        trust=_joined(part.trust for part in parts),
        assumptions=tuple(dict.fromkeys((*(line for part in parts for line in part.assumptions), _FIXED))),
        slack=_largest(term for part in parts for term in part.slack),
        loss=loss,
    )


def number(value: float) -> float | str:
    """A float as JSON can hold it: infinity becomes "inf".

    >>> number(1.5), number(math.inf)
    (1.5, 'inf')
    """
    return "inf" if value == math.inf else value


def rounded_up(value: float, digits: int = 6) -> str:
    """A number for people, rounded up: what is printed is never below what holds.

    >>> rounded_up(2.124581388), rounded_up(0.0001, 3), rounded_up(2.49172e-05, 3), rounded_up(math.inf)
    ('2.12459', '0.0001', '2.5e-05', 'inf')
    """
    from decimal import ROUND_CEILING, Context

    if not math.isfinite(value):
        return str(value)
    return f"{float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value))):.{digits}g}"


def _sum_above(values: Iterable[float]) -> float:
    found = math.fsum(values)
    return found if found in (0, math.inf) else math.nextafter(found, math.inf)


def _largest(terms: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """One term of each name, the largest."""
    sizes: dict[str, float] = {}
    for name, size in terms:
        sizes[name] = max(size, sizes.get(name, size))
    return tuple(sizes.items())


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
