"""What a server does with the integer sum of a round: to lattice steps before the noise, and back to numbers after it.

The noise is added between `to_lattice` and `decode_sum`, in the turned domain; turning back keeps it Gaussian and
independent. Adds no noise itself (see `mechanisms.banded`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan

__all__ = ["decode_sum", "noise_deviation", "rounding_deviation", "split_segments", "to_lattice"]


def to_lattice(plan: Plan, ring_sum: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of a round in lattice steps, where its noise is added.

    Args:
        plan: Says how fine the lattice is.
        ring_sum: Sum of the survivors' encoded vectors, centred, shape (d,). As secret as single updates.

    Returns:
        Shape (d,): every coordinate times 2^lattice_bits, exactly.

    Raises:
        ConfigError: `ring_sum` has another shape or type, or a coordinate that no cohort can reach.
    """
    _check(plan, ring_sum, "a round's sum")
    if int(np.abs(ring_sum).max()) > plan.cohort * plan.coordinate_limit:
        raise ConfigError("a coordinate of the round's sum is beyond what the plan's cohort can reach")
    return np.left_shift(ring_sum, plan.lattice_bits)


def decode_sum(plan: Plan, noised: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the plan's cohort of what devices sent.

    Divided by `plan.cohort`, however many devices survived: the true number is not protected, but must not decide how
    large the noise is.

    Args:
        plan: As it was encoded under.
        noised: Sum of the encoded vectors and the noise, in lattice steps, shape (d,).

    Returns:
        Shape (P,), each segment in its own unit; of an update in the unit of the weights.

    Raises:
        ConfigError: `noised` has another shape or type.
    """
    _check(plan, noised, "a noised sum")
    turned = np.ldexp(noised.astype(np.float64), -plan.lattice_bits)
    mean = Rotation(plan.rotation_seed, plan.parameters, plan.coordinates).back(turned)
    first = 0
    for segment in plan.schema:
        mean[first : first + segment.length] *= _step(plan, segment.clip) / plan.cohort
        first += segment.length
    return mean


def split_segments(plan: Plan, decoded: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The segments of a decoded vector by name, each of shape (length,).

    Args:
        plan: Names them.
        decoded: From `decode_sum`, shape (P,).

    Raises:
        ConfigError: `decoded` has another shape.
    """
    if decoded.shape != (plan.parameters,):
        raise ConfigError(f"a decoded vector has shape {decoded.shape}; the plan says {plan.parameters} numbers")
    ends = np.cumsum([segment.length for segment in plan.schema])[:-1]
    return {segment.name: part for segment, part in zip(plan.schema, np.split(decoded, ends), strict=True)}


def noise_deviation(plan: Plan) -> dict[str, float]:
    """Standard deviation of the noise in one number of `decode_sum`, by segment, in its unit.

    noise_multiplier * clip_i * sqrt(m) / cohort for m segments: for an update noise_multiplier * clip_norm / cohort. Of
    the uncorrelated noise z; with bands above 1 that is round 1, and later rounds have about 1.13 times as much.
    """
    return {
        segment.name: math.ldexp(plan.noise_deviation, -plan.lattice_bits) * _step(plan, segment.clip) / plan.cohort
        for segment in plan.schema
    }


def rounding_deviation(plan: Plan, devices: int) -> dict[str, float]:
    """The most that rounding on devices adds to the standard deviation of one number of `decode_sum`, by segment.

    sqrt(n) / 2 ring steps for n devices: sqrt(n) clip_i sqrt(m) / (2 clip_steps cohort). A root mean square over the
    numbers; where fractions are spread evenly it is sqrt(2/3) of that.

    Args:
        plan: As it was encoded under.
        devices: n, that survived.

    Raises:
        ConfigError: `devices` is no whole number of at least 0.
    """
    checks.at_least(0, devices=devices)
    steps = math.sqrt(devices) / 2
    return {segment.name: steps * _step(plan, segment.clip) / plan.cohort for segment in plan.schema}


def _step(plan: Plan, clip: str) -> float:
    """One ring step in the unit of a segment."""
    return float(clip) * math.sqrt(len(plan.schema)) / plan.clip_steps


def _check(plan: Plan, values: NDArray[np.int64], name: str) -> None:
    if values.shape != (plan.coordinates,) or values.dtype != np.int64:
        raise ConfigError(
            f"{name} has shape {values.shape} and type {values.dtype}; it must be {plan.coordinates} int64 numbers"
        )
