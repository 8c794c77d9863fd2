"""What a device sends keeps every bound of its plan, and its sum is the clipped sum, up to the error that is stated."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.encoding.sums import decode_sum, noise_deviation, rounding_deviation, split_segments, to_lattice
from hushrec_privacy.encoding.vectors import encode_update, join_segments
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.clipping import clip_update
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.plan import Plan
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom
from tests.fleet_plans import COUNTS, a_fleet_plan

DEVICES = 150
PLAN = a_fleet_plan(parameters=3000, clip_norm=0.5)


def updates(count: int, length: int = 3000, scale: float = 0.02) -> list[NDArray[np.float32]]:
    """Some within the clip norm of .5 (norm of about .27 to 1.1), some beyond."""
    random = np.random.default_rng(2)
    return [random.normal(size=length).astype(np.float32) * random.uniform(scale / 4, scale) for _ in range(count)]


def norm_squared(values: NDArray[np.int64]) -> int:
    return sum(int(value) ** 2 for value in values)


def test_the_sum_errs_by_rounding_as_much_as_stated_and_not_far_less() -> None:
    source, sent = FixedRandom(4), updates(DEVICES)
    total = sum(encode_update(PLAN, update, source) for update in sent)
    wanted = sum(clip_update(update, clip_norm=0.5).astype(np.float64) for update in sent) / PLAN.cohort
    assert isinstance(total, np.ndarray)
    error = float(np.sqrt(np.mean((decode_sum(PLAN, to_lattice(PLAN, total)) - wanted) ** 2)))
    stated = rounding_deviation(PLAN, DEVICES)["update"]
    assert math.sqrt(2 / 3) * stated * 0.9 < error < stated
    assert stated == pytest.approx(math.sqrt(DEVICES) * 0.5 / (2 * PLAN.clip_steps * 200))


def test_the_encoding_has_no_bias() -> None:
    source, update = FixedRandom(5), updates(1)[0]
    clipped = clip_update(update, clip_norm=0.5)
    mean = sum(encode_update(PLAN, update, source) for _ in range(400)) / 400
    turned = Rotation(PLAN.rotation_seed, 3000, 4096).turn(clipped) * (PLAN.clip_steps / 0.5)
    assert float(np.abs(mean - turned).max()) < 5 * 0.5 / math.sqrt(400)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_sent_as_zeros(value: float) -> None:
    update = updates(1)[0]
    update[17] = value
    assert not encode_update(PLAN, update, FixedRandom(6)).any()


def test_the_largest_floats_are_clipped_like_any_others() -> None:
    sent = encode_update(PLAN, np.full(3000, np.finfo(np.float32).max), FixedRandom(7))
    assert norm_squared(sent) <= PLAN.rounded_norm_squared
    assert math.sqrt(norm_squared(sent)) > 0.9 * PLAN.clip_steps


def test_an_update_made_to_stand_out_is_cut_and_never_wraps() -> None:
    """Whoever knows the public signs can put all of an update into one coordinate; it costs only the update itself."""
    turned = np.zeros(4096)
    turned[99] = 1.0
    worst = np.sign(Rotation(PLAN.rotation_seed, 3000, 4096).back(turned)).astype(np.float32)
    sent = encode_update(PLAN, worst, FixedRandom(8))
    assert sent[99] == PLAN.coordinate_limit
    assert int(np.abs(sent).max()) * PLAN.cohort < 2 ** (PLAN.ring_bits - 1)
    assert norm_squared(sent) <= PLAN.rounded_norm_squared


def test_a_usual_update_is_not_cut() -> None:
    for update in updates(20, scale=1.0):
        assert int(np.abs(encode_update(PLAN, update, FixedRandom(9))).max()) < PLAN.coordinate_limit


def test_zeroing_one_device_moves_the_sum_by_the_bound_at_most() -> None:
    """Real neighbours under zero-out: the same round with and without what one device sent, the longest first."""
    source = FixedRandom(10)
    sent = [encode_update(PLAN, update, source) for update in updates(20, scale=1.0)]
    total = sum(sent, np.zeros(4096, np.int64))
    moved = [norm_squared(total - (total - one)) for one in sent]
    assert max(moved) <= PLAN.rounded_norm_squared
    assert max(moved) > 0.95 * PLAN.clip_steps**2, "the bound is not far above what really happens"


def test_a_tighter_bound_of_the_plan_is_kept_even_if_nothing_can_be_sent() -> None:
    tight = replace(PLAN, rounded_norm_squared=PLAN.rounded_norm_squared)
    object.__setattr__(tight, "rounded_norm_squared", 5)  # no plan may say so; the bound holds all the same
    assert not encode_update(tight, updates(1, scale=1.0)[0], FixedRandom(11)).any()


def test_another_length_is_refused_whatever_the_values() -> None:
    for wrong in (np.zeros(2999, np.float32), np.zeros((1, 3000), np.float32), np.full(1, math.nan, np.float32)):
        with pytest.raises(ConfigError, match="3000 numbers"):
            encode_update(PLAN, wrong, FixedRandom(12))


def counts_plan() -> Plan:
    return a_fleet_plan(vector=COUNTS)


def test_segments_come_back_by_name_in_their_own_units() -> None:
    plan, source = counts_plan(), FixedRandom(13)
    trending = np.zeros(40)
    trending[[3, 7]] = 1.0
    vector = join_segments(plan, {"trending": trending, "visits": np.array([5.0])})
    total = sum(encode_update(plan, vector, source) for _ in range(200))
    assert isinstance(total, np.ndarray)
    found = split_segments(plan, decode_sum(plan, to_lattice(plan, total)))
    assert list(found) == ["trending", "evaluation", "visits"]
    error = rounding_deviation(plan, 200)
    np.testing.assert_allclose(found["trending"], trending, atol=6 * error["trending"])
    np.testing.assert_allclose(found["evaluation"], np.zeros(3), atol=6 * error["evaluation"])
    np.testing.assert_allclose(found["visits"], [5.0], atol=6 * error["visits"])
    assert error["visits"] / error["trending"] == pytest.approx(7 / 3)


def test_each_segment_is_clipped_by_itself() -> None:
    plan, source = counts_plan(), FixedRandom(14)
    greedy = join_segments(plan, {"trending": np.full(40, 1e30), "evaluation": [1.0, 0.5, 1.0], "visits": [math.nan]})  # type: ignore[dict-item]
    total = sum(encode_update(plan, greedy, source) for _ in range(200))
    assert isinstance(total, np.ndarray)
    found = split_segments(plan, decode_sum(plan, to_lattice(plan, total)))
    assert np.linalg.norm(found["trending"]) == pytest.approx(3, rel=0.02)
    np.testing.assert_allclose(
        found["evaluation"], [1.0, 0.5, 1.0], atol=6 * rounding_deviation(plan, 200)["evaluation"]
    )
    np.testing.assert_allclose(found["visits"], [0.0], atol=6 * rounding_deviation(plan, 200)["visits"])


def test_segments_that_the_plan_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="no segment 'trendy'"):
        join_segments(counts_plan(), {"trendy": np.zeros(40)})
    with pytest.raises(ConfigError, match="plan says 40"):
        join_segments(counts_plan(), {"trending": np.zeros(39)})


@pytest.mark.parametrize("bands", [1, 20])
def test_the_noise_of_a_round_is_noise_multiplier_times_clip_norm_over_the_cohort(bands: int, tmp_path: Path) -> None:
    """Opacus' noise_multiplier x max_grad_norm, over the expected batch; 2/3 and 3/2 of it are told apart."""
    plan = a_fleet_plan(parameters=3000, clip_norm=0.5, min_separation=None if bands > 1 else 1)
    assert plan.bands == bands
    source, sent = FixedRandom(15), updates(20)
    total = to_lattice(plan, sum((encode_update(plan, update, source) for update in sent), np.zeros(4096, np.int64)))
    noise = BandedNoise(
        NoisePlan(plan.plan_id, plan.coordinates, plan.bands, plan.rounds, plan.noise_deviation),
        SealKey(bytes(32)),
        source,
    )
    store = SqliteNoiseStore(tmp_path / "noise.db")
    noise.begin(store)
    with store.transaction(plan.plan_id) as rows:
        noised = total + noise.draw(rows, 1)
    measured = decode_sum(plan, noised) - decode_sum(plan, total)
    deviation = float(np.sqrt(np.mean(measured**2)))
    sigma = 4.0 * 0.5 / 200
    assert noise_deviation(plan)["update"] == pytest.approx(sigma, rel=1e-4)
    slack = 5 / math.sqrt(2 * 3000)  # five deviations of the estimate
    assert abs(deviation / sigma - 1) < slack
    for wrong in (2 / 3, 3 / 2):
        assert abs(deviation / (wrong * sigma) - 1) > slack


def test_a_mean_is_over_the_plan_s_cohort_exactly() -> None:
    sent = encode_update(PLAN, updates(1)[0], FixedRandom(16))
    unit = 0.5 / PLAN.clip_steps / 200
    wanted = Rotation(PLAN.rotation_seed, 3000, 4096).back(sent) * unit
    np.testing.assert_allclose(decode_sum(PLAN, to_lattice(PLAN, sent)), wanted, rtol=1e-12)


def test_a_sum_that_no_cohort_can_reach_is_refused() -> None:
    reachable = np.full(4096, PLAN.cohort * PLAN.coordinate_limit)
    assert int(to_lattice(PLAN, -reachable)[0]) == -int(reachable[0]) * 2**PLAN.lattice_bits
    with pytest.raises(ConfigError, match="cohort can reach"):
        to_lattice(PLAN, reachable + 1)
    for wrong in (np.zeros(4095, np.int64), np.zeros(4096), np.zeros(4096, np.uint64)):
        with pytest.raises(ConfigError, match="4096 int64"):
            to_lattice(PLAN, wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="4096 int64"):
            decode_sum(PLAN, wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="3000 numbers"):
        split_segments(PLAN, np.zeros(2999))
