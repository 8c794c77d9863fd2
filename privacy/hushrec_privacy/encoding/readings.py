"""What a round of counts says: sums over the devices that took part, each with how far noise moves it.

A sum within two or three deviations of 0 says nothing. Post-processing alone: it costs no privacy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.encoding.sums import noise_deviation, rounding_deviation, split_segments
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, UPDATE

__all__ = ["Evaluation", "Gain", "Reading", "read_counts", "read_evaluation", "read_gain"]

_LEAST_DEVIATIONS = 3.0  # of a count of events, below which its ratio to another is no number


class Reading(NamedTuple):
    """One segment of a round.

    Attributes:
        values: Sums over devices in the segment's unit, noise included, some negative, shape (length,).
        deviation: Standard deviation of the noise in each of them, rounding on the devices included.
    """

    values: NDArray[np.float64]
    deviation: float


class Evaluation(NamedTuple):
    """How well the release in use guesses what shoppers took next.

    Attributes:
        hit_rate: HR@10.
        ndcg: NDCG@10.
        evaluated: Events that both are over, as far as noise lets one tell.
        deviation: Standard deviation of the noise in `hit_rate`, to first order; that of `ndcg` is no larger if it is
            below `hit_rate`. How far chance moves the events themselves is not in it.
    """

    hit_rate: float
    ndcg: float
    evaluated: float
    deviation: float


class Gain(NamedTuple):
    """How much better a candidate guesses than the release in use, on the very events of the evaluation beside it.

    Attributes:
        hit_rate: HR@10 of the candidate less that of the release.
        ndcg: NDCG@10 of the candidate less that of the release.
        deviation: Standard deviation of the noise in each of the two, to first order: no less than it is. How far
            chance moves the events themselves is not in it, nor what clipping took: see docs/plan.md.
    """

    hit_rate: float
    ndcg: float
    deviation: float


def read_counts(plan: Plan, decoded: NDArray[np.float64]) -> dict[str, Reading]:
    """The segments of a round of counts or features.

    Each value is the mean that was decoded times the cohort: an unbiased sum over the devices that took part, but for
    what clipping took from those that had more than a segment's clip.

    Args:
        plan: Of the round.
        decoded: From `sums.decode_sum`, shape (P,).

    Returns:
        By name, in the plan's order.

    Raises:
        ConfigError: The plan trains, or `decoded` has another shape.
    """
    if plan.purpose == UPDATE:
        raise ConfigError("this plan trains; its sum is an update, and there are no counts in it")
    noise, rounding = noise_deviation(plan), rounding_deviation(plan, plan.cohort)
    return {
        name: Reading(values * plan.cohort, math.hypot(noise[name], rounding[name]) * plan.cohort)
        for name, values in split_segments(plan, decoded).items()
    }


def read_evaluation(readings: dict[str, Reading]) -> Evaluation | None:
    """The metrics of a federated evaluation.

    Args:
        readings: From `read_counts`.

    Returns:
        None where the round evaluated nothing, or so few events that noise may have made them up.

    >>> found = read_evaluation({"evaluation": Reading(np.array([20.0, 10.0, 200.0]), 2.0)})
    >>> found and (found.hit_rate, found.ndcg, round(found.deviation, 4))
    (0.1, 0.05, 0.01)
    """
    if EVALUATION not in readings:
        return None
    (hits, gains, evaluated), deviation = readings[EVALUATION]
    if not evaluated > _LEAST_DEVIATIONS * deviation:
        return None
    rate = float(hits / evaluated)
    return Evaluation(
        hit_rate=rate,
        ndcg=float(gains / evaluated),
        evaluated=float(evaluated),
        deviation=float(deviation / evaluated * math.hypot(1.0, rate)),
    )


def read_gain(readings: dict[str, Reading]) -> Gain | None:
    """What a round that compared found out about its candidate.

    Args:
        readings: From `read_counts`.

    Returns:
        None where the round compared nothing, or evaluated so few events that noise may have made them up.

    >>> found = read_gain({"evaluation": Reading(np.array([20.0, 10.0, 200.0]), 2.0),
    ...                    "gain": Reading(np.array([-4.0, -2.0]), 1.0)})
    >>> found and (found.hit_rate, found.ndcg, round(found.deviation, 4))
    (-0.02, -0.01, 0.005)
    """
    if GAIN not in readings or read_evaluation(readings) is None:
        return None
    evaluated, noise = float(readings[EVALUATION].values[2]), readings[EVALUATION].deviation
    hits, gains = (float(value / evaluated) for value in readings[GAIN].values)
    moved = math.hypot(readings[GAIN].deviation, max(abs(hits), abs(gains)) * noise)
    return Gain(hit_rate=hits, ndcg=gains, deviation=moved / evaluated)
