"""Many steps together in the far tail: against the exact curve, a contour integral, direct sums and dp-accounting."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hushrec_privacy.accounting import gaussian_delta, gaussian_epsilon
from hushrec_privacy.accounting.privacy_loss import SampledSteps
from hushrec_privacy.accounting.tilted import tilted_delta, tilted_epsilon
from numpy.typing import NDArray

Parts = list[SampledSteps]


def contour_delta(parts: Parts, epsilon: float, order: float, *, removed: bool = True) -> float:
    """Delta as an integral over the line of real part `order`: no grid, no FFT, no truncation of the curve.

    delta = (1 / 2 pi i) integral of exp(K(s) - s epsilon) / (s (s + 1)) ds, K being the sum over all steps of the log
    of the mean of exp(s loss) (Alghamdi et al. 2023, The Saddle-Point Method in Differential Privacy, theorem 3.1).
    """
    count = 800
    nodes, exponent, spread = [], 0.0, 0.0
    for part in parts:
        m, q = 1 / part.noise_multiplier, part.sampling_rate
        t = np.linspace(-14, 14 + m * (1 + order), 8001)
        y = m * (t - m / 2)
        ratio = y if q == 1 else np.log1p(q * np.expm1(y))
        logs = -t * t / 2 - 0.5 * math.log(2 * math.pi) + (ratio if removed else 0) + math.log(t[1] - t[0])
        loss = ratio if removed else -ratio
        logs += order * loss
        top = float(logs.max())
        cumulant = top + math.log(float(np.exp(logs - top).sum()))
        weights = np.exp(logs - cumulant)
        mean = float(weights @ loss)
        exponent += part.steps * cumulant
        spread += part.steps * float(weights @ (loss - mean) ** 2)
        nodes.append((weights, loss, part.steps))
    width = 14 / math.sqrt(spread)
    total = 0.0
    for k in (np.arange(count) + 0.5) * (width / count):
        log = sum(steps * np.log1p(weights @ np.expm1(1j * k * loss)) for weights, loss, steps in nodes)
        total += float((np.exp(log - 1j * k * epsilon) / ((order + 1j * k) * (order + 1 + 1j * k))).real)
    return math.exp(exponent - order * epsilon) * total * width / count / math.pi


def least_epsilon(part: SampledSteps, delta: float, interval: float, *, removed: bool) -> float:
    """A lower bound: losses rounded down to a grid, masses as differences of tails, steps convolved one by one."""
    m, q = 1 / part.noise_multiplier, part.sampling_rate
    edges = np.linspace(-16, 16 + m, 40_001)
    ratio = np.log1p(q * np.expm1(m * (edges - m / 2)))

    def masses(mean: float) -> NDArray[np.float64]:
        tails = np.array([math.erfc(abs(x - mean) / math.sqrt(2)) / 2 for x in edges])
        inside: NDArray[np.float64] = np.abs(np.diff(tails))
        across = (edges[:-1] < mean) & (edges[1:] >= mean)
        inside[across] = 1 - tails[:-1][across] - tails[1:][across]
        return inside

    mass = (1 - q) * masses(0.0) + q * masses(m) if removed else masses(0.0)
    lower = ratio[:-1] if removed else -ratio[1:]
    place = np.floor(lower / interval).astype(int)
    first = int(place.min())
    one = np.bincount(place - first, weights=mass)
    everything = one
    for _ in range(part.steps - 1):
        everything = np.convolve(everything, one)
    losses = (part.steps * first + np.arange(len(everything))) * interval
    low, high = 0.0, float(losses[-1])
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = losses > middle
        found = float(everything[above] @ -np.expm1(middle - losses[above]))
        low, high = (middle, high) if found > delta else (low, middle)
    return low


@pytest.mark.parametrize("steps", [1, 10**2, 10**4, 10**6])
@pytest.mark.parametrize("delta", [0.1, 1e-6, 1e-15, 1e-300])
def test_taking_everybody_is_the_exact_curve_down_to_the_smallest_delta(steps: int, delta: float) -> None:
    for mu in (0.2, 3.0):
        found = tilted_epsilon([SampledSteps(1.0, math.sqrt(steps) / mu, steps)], delta)
        exact = gaussian_epsilon(mu, delta)
        assert exact <= found <= exact * (1 + 5e-5)


@pytest.mark.parametrize(
    ("parts", "delta", "order"),
    [
        ([SampledSteps(0.01, 1.0, 1000)], 1e-12, 6.5),
        ([SampledSteps(0.05, 2.0, 200)], 1e-15, 18.0),
        ([SampledSteps(1e-3, 5.0, 10**6)], 1e-15, 38.0),
        ([SampledSteps(0.1, 10.0, 10**4)], 1e-15, 8.0),
        ([SampledSteps(0.9, 1.0, 4)], 1e-15, 3.0),
        ([SampledSteps(0.05, 2.0, 200), SampledSteps(0.2, 3.0, 50), SampledSteps(1.0, 2.0, 1)], 1e-15, 5.0),
    ],
)
def test_a_contour_integral_agrees(parts: Parts, delta: float, order: float) -> None:
    found = tilted_epsilon(parts, delta)
    deltas = [contour_delta(parts, found, order, removed=removed) for removed in (True, False)]
    assert max(deltas) <= delta * (1 + 1e-6), "never below the truth"
    assert contour_delta(parts, found * (1 - 2e-4), order) > delta, "and hardly above it"
    assert tilted_delta(parts, found) == pytest.approx(delta, rel=5e-3)
    assert tilted_delta(parts, found) >= max(deltas) * (1 - 1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize(("q", "z"), [(0.1, 1.0), (0.01, 0.7), (0.8, 2.0)])
def test_direct_sums_of_losses_rounded_down_are_never_above(q: float, z: float, steps: int) -> None:
    part = SampledSteps(q, z, steps)
    for delta in (1e-4, 1e-15):
        interval = 2e-3
        least = max(least_epsilon(part, delta, interval, removed=removed) for removed in (True, False))
        found = tilted_epsilon([part], delta)
        assert least <= found <= least + steps * interval + 2e-4 * found


@pytest.mark.parametrize(("q", "z", "steps"), [(0.01, 1.0, 1000), (0.2, 4.0, 100), (1e-3, 0.8, 20_000)])
def test_dp_accounting_agrees_where_it_is_exact(q: float, z: float, steps: int) -> None:
    one = pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=1e-4, use_connect_dots=True)
    other = one.self_compose(steps).get_epsilon_for_delta(1e-6)
    assert tilted_epsilon([SampledSteps(q, z, steps)], 1e-6) == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("delta", [1e-9, 1e-12, 1e-15])
@pytest.mark.parametrize(
    ("q", "z", "steps"), [(0.01, 1.0, 1000), (1e-4, 0.7, 10**6), (1e-3, 5.0, 10**6), (1e-5, 1.0, 10**4), (0.1, 0.3, 3)]
)
def test_the_renyi_bound_is_never_below(q: float, z: float, steps: int, delta: float) -> None:
    accountant = RdpAccountant([1 + 2 ** (n / 4) for n in range(-12, 40)])
    accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps)
    assert tilted_epsilon([SampledSteps(q, z, steps)], delta) <= accountant.get_epsilon(delta)


def test_a_release_to_everybody_beside_the_steps_counts_in_full() -> None:
    steps = SampledSteps(0.01, 1.0, 1000)
    tiny, alone = SampledSteps(1.0, 1e6, 1), tilted_epsilon([steps], 1e-15)
    assert tilted_epsilon([steps, tiny], 1e-15) == pytest.approx(alone, rel=1e-4)
    large = SampledSteps(1.0, 0.1, 1)
    together = tilted_epsilon([steps, large], 1e-15)
    assert gaussian_epsilon(10.0, 1e-15) < together < gaussian_epsilon(10.0, 1e-15) + alone


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 30.0, 200.0])
def test_delta_of_an_epsilon_is_the_exact_curve(epsilon: float) -> None:
    exact = gaussian_delta(2.0, epsilon)
    assert exact <= tilted_delta([SampledSteps(1.0, 5.0, 100)], epsilon) <= max(exact * (1 + 5e-3), 1e-303)


def test_a_grid_too_coarse_for_its_steps_ends_and_promises_nothing() -> None:
    """Beside a loss of millions a million small steps overflow; NaN would pass for a delta that is allowed."""
    whole = SampledSteps(1.0, 2.5e-4, 1)
    parts = [SampledSteps(0.0122, 1.66, 860_000), whole]
    assert tilted_epsilon(parts, 1e-8) >= gaussian_epsilon(whole.unsampled_mu, 1e-8)
    assert tilted_delta(parts, gaussian_epsilon(whole.unsampled_mu, 1e-8)) >= 1e-8
