"""One step on a grid keeps the masses under both neighbours, and never lowers a loss."""

import math

import numpy as np
import pytest
from hushrec_privacy.accounting.step_loss import StepLoss

KINDS = [(0.01, 1.0), (0.5, 0.2), (0.9, 3.0), (1.0, 2.0), (1e-6, 5.0), (1 - 1e-12, 1.0), (0.3, 0.03)]


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("interval", [0.3, 1e-2, 1e-3])
@pytest.mark.parametrize(("q", "z"), KINDS)
def test_the_masses_under_both_neighbours_stay(q: float, z: float, interval: float, removed: bool) -> None:
    loss = StepLoss(q, z, 12.0, removed=removed)
    interval = max(interval, (loss.most - loss.least) / 1e6)
    grid = loss.on_grid(interval, 0.0, loss.least)
    points = (grid.first + np.arange(len(grid.masses))) * interval
    assert (grid.masses >= 0).all()
    assert grid.masses.sum() * math.exp(grid.shift) == pytest.approx(1, abs=1e-12)
    if interval <= 1:
        other = float(grid.masses @ np.exp(-points)) * math.exp(grid.shift)
        assert other == pytest.approx(math.exp(loss.cumulant(-1.0)), rel=1e-9)


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("order", [0.5, 3.0, 40.0])
@pytest.mark.parametrize(("q", "z"), KINDS[:3])
def test_the_grid_costs_what_rounding_within_a_cell_costs(q: float, z: float, order: float, removed: bool) -> None:
    loss = StepLoss(q, z, 12.0, removed=removed)
    for interval in (1e-3, 1e-4):
        grid = loss.on_grid(interval, order, loss.least)
        cost = math.log(float(grid.masses.sum()))
        assert -grid.error <= cost <= 1.3 * order * (order + 1) * interval**2 / 8 + grid.error


@pytest.mark.parametrize(("q", "z"), KINDS)
def test_cutting_small_losses_off_raises_them(q: float, z: float) -> None:
    loss = StepLoss(q, z, 12.0, removed=False)
    low = loss.lowest(1e-3)
    assert min(0.0, loss.least) <= low <= 0
    interval = max(1e-3, (loss.most - loss.least) / 1e6)
    whole, cut = (loss.on_grid(interval, 0.0, lowest) for lowest in (loss.least, low))
    assert cut.masses.sum() == pytest.approx(whole.masses.sum(), rel=1e-12)
    above = min(len(whole.masses), len(cut.masses) - 1)
    assert cut.masses[-above:] == pytest.approx(whole.masses[-above:], rel=1e-9, abs=1e-12)


def test_cumulants_of_plain_gaussian_noise_are_known() -> None:
    for removed in (True, False):
        loss = StepLoss(1.0, 2.0, 14.0, removed=removed)
        for order in (-1.0, 0.0, 1.0, 5.0):
            assert loss.cumulant(order) == pytest.approx(order * (order + 1) / 8, abs=1e-11)
