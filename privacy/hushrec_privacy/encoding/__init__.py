"""From a device's vector to ring integers, and from the noised sum of many back to numbers.

rotation   the one public rotation of a plan, and its inverse
vectors    on the device: clip, scale, turn, cut, round
sums       on the server: lattice steps, mean over the cohort, segments
readings   counts and evaluations of a round, with the noise beside each

    source = OsRandom()
    total = sum(encode_update(plan, update, source) for update in updates)  # secure aggregation computes this
    mean = decode_sum(plan, to_lattice(plan, total) + noise)
"""

from hushrec_privacy.encoding.readings import Evaluation, Gain, Reading, read_counts, read_evaluation, read_gain
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.encoding.sums import decode_sum, noise_deviation, rounding_deviation, split_segments, to_lattice
from hushrec_privacy.encoding.vectors import encode_update, join_segments

__all__ = [
    "Evaluation",
    "Gain",
    "Reading",
    "Rotation",
    "decode_sum",
    "encode_update",
    "join_segments",
    "noise_deviation",
    "read_counts",
    "read_evaluation",
    "read_gain",
    "rounding_deviation",
    "split_segments",
    "to_lattice",
]
