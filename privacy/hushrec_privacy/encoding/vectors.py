"""What a device does with its vector before it is masked: clip, scale, turn, cut, round.

Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Algorithm 1, the client's part without its noise: here the server adds
it to the sum. Masks nothing (see `secagg`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.clipping import clip_update
from hushrec_privacy.mechanisms.rounding import round_conditionally
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.randomness import OsRandom

__all__ = ["encode_update", "join_segments"]


def encode_update(plan: Plan, update: NDArray[np.float32], source: OsRandom) -> NDArray[np.int64]:
    """Encode what this device adds to a round.

    Guarantee:
        For every `update`, NaN, infinity and the largest floats included, and in exact whole-number arithmetic: the
        squared norm of the result is at most `plan.rounded_norm_squared`, which is what its epsilon is computed from,
        and no coordinate is beyond `plan.coordinate_limit`, so that no sum of `plan.cohort` devices wraps. A segment
        that is not finite is sent as zeros.

    The sum of n devices differs from the sum of their clipped vectors by rounding: at most n/4 ring steps squared of
    variance in a coordinate, about n/6 where fractions are spread evenly; see `sums.rounding_deviation`. Beside it the
    condition on the norm moves the mean by a share of at most beta / (1 - beta), and cutting takes what is beyond the
    limit: six standard deviations of a coordinate, for a rotation that was drawn without knowing the update.

    Args:
        plan: Says all bounds.
        update: The segments one after another, each in its own unit, shape (P,). Private.
        source: Where the coins of the rounding come from.

    Returns:
        Shape (d,), in ring steps. Private: it goes nowhere unmasked.

    Raises:
        ConfigError: `update` has another shape. Never depends on its values.
    """
    if np.shape(update) != (plan.parameters,):
        raise ConfigError(f"the vector has shape {np.shape(update)}; the plan says {plan.parameters} numbers")
    turned = Rotation(plan.rotation_seed, plan.parameters, plan.coordinates).turn(_in_steps(plan, update))
    cut = np.clip(turned, -plan.coordinate_limit, plan.coordinate_limit)
    try:
        return round_conditionally(source, cut, clip_norm=float(plan.clip_steps), most_square=plan.rounded_norm_squared)
    except ConfigError:  # no draw was within the bound: chance exp(-50), and a bound is a bound
        return np.zeros(plan.coordinates, np.int64)


def join_segments(plan: Plan, segments: dict[str, NDArray[np.floating]]) -> NDArray[np.float32]:
    """Put named segments one after another, zeros for those that this device does not have.

    Args:
        plan: Names the segments and their lengths.
        segments: By name, each of its length, in its own unit. Private.

    Returns:
        Shape (P,): what `encode_update` takes.

    Raises:
        ConfigError: A name is not in the plan, or a segment has another shape.
    """
    lengths = {segment.name: segment.length for segment in plan.schema}
    for name, values in segments.items():
        if name not in lengths:
            raise ConfigError(f"the plan has no segment {name!r}; it has {', '.join(lengths)}")
        if np.shape(values) != (lengths[name],):
            raise ConfigError(f"{name!r} has shape {np.shape(values)}; the plan says {lengths[name]} numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite there, and sent as zeros
        parts = [np.asarray(segments.get(name, np.zeros(length)), np.float32) for name, length in lengths.items()]
    return np.concatenate(parts)


def _in_steps(plan: Plan, update: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each segment clipped to its own bound, then all scaled so that the whole is at most clip_steps long."""
    scaled = np.empty(plan.parameters)
    first, share = 0, plan.clip_steps / math.sqrt(len(plan.schema))
    for segment in plan.schema:
        clip, last = float(segment.clip), first + segment.length
        np.multiply(clip_update(update[first:last], clip_norm=clip), share / clip, out=scaled[first:last])
        first = last
    return scaled
