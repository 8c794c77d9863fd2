"""Several plans together cost what one plan of all their steps would: no less than each, no more than their sum."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hushrec_privacy.accounting import Guarantee, compose, gaussian_epsilon, poisson_epsilon
from hushrec_privacy.accounting.gaussian import mu_of_participations
from hushrec_privacy.ledger import Ledger, MemoryLedgerStore, Open
from hushrec_privacy.ledger.openings import counts_opening, guarantee_after, run_id, training_opening
from hushrec_privacy.report.spending import spending_report
from hypothesis import given, settings
from hypothesis import strategies as st

_TIGHT = 2e-4  # relative, by which an epsilon of sampled steps may be above the least

deltas = st.integers(4, 15).map(lambda places: 10.0**-places)
noise = st.integers(7, 80).map(lambda tenths: tenths / 10)
tables = st.builds(
    lambda z, releases, delta: counts_opening("ab" * 32, noise_multiplier=z, releases=releases, delta=delta),
    noise,
    st.integers(1, 20),
    deltas,
)
training = st.builds(
    lambda q, z, steps, mu, delta: training_opening(
        "ab" * 32, sampling_rate=q, noise_multiplier=z, steps=steps, delta=delta, released_mu=mu
    ),
    st.sampled_from([0.005, 0.02, 0.1, 0.5, 1.0]),
    noise,
    st.integers(1, 400),
    st.sampled_from([0.0, 0.25]),
    deltas,
)


def spent(opened: Open) -> Guarantee:
    """What the whole plan costs."""
    return guarantee_after(opened, opened.limits.max_rounds, opened.limits.max_rounds)


def reported(plans: Sequence[Open]) -> Guarantee:
    """The total of a report on a ledger that spent all rounds of all plans."""
    store = MemoryLedgerStore()
    ledger = Ledger.begin(store)
    for number, opened in enumerate(plans):
        plan = run_id(number=number)
        ledger.open_plan(replace(opened, plan=plan))
        ledger.spend(plan, 1, opened.limits.max_rounds)
    return spending_report(store).total


@settings(max_examples=25, deadline=None)
@given(plans=st.lists(st.one_of(tables, training), min_size=2, max_size=4))
def test_a_total_is_between_the_dearest_plan_and_the_sum(plans: list[Open]) -> None:
    parts = [spent(opened) for opened in plans]
    total = compose(parts)
    assert total.delta >= math.fsum(part.delta for part in parts)
    assert total.epsilon <= math.nextafter(math.fsum(part.epsilon for part in parts), math.inf)
    for part in parts:
        assert part.loss is not None
        assert total.epsilon >= part.loss.epsilon(total.delta) * (1 - _TIGHT)


@settings(max_examples=100, deadline=None)
@given(z=noise, first=st.integers(1, 50), second=st.integers(1, 50), delta=deltas)
def test_a_gaussian_plan_split_in_two_costs_the_same(z: float, first: int, second: int, delta: float) -> None:
    parts = [
        spent(counts_opening("ab" * 32, noise_multiplier=z, releases=releases, delta=delta))
        for releases in (first, second)
    ]
    whole = gaussian_epsilon(mu_of_participations(z, first + second), 2 * delta)
    assert compose(parts).epsilon == pytest.approx(whole, rel=1e-11)


@settings(max_examples=10, deadline=None)
@given(z=noise, first=st.integers(1, 300), second=st.integers(1, 300), delta=deltas)
def test_a_training_run_split_in_two_costs_the_same(z: float, first: int, second: int, delta: float) -> None:
    parts = [
        spent(training_opening("ab" * 32, sampling_rate=0.02, noise_multiplier=z, steps=steps, delta=delta))
        for steps in (first, second)
    ]
    whole = poisson_epsilon(0.02, first + second, z, 2 * delta)
    assert compose(parts).epsilon == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("releases", "runs", "released_mu"),
    [
        ([(4.0, 2)], [(0.01, 1.0, 500)], 0.0),
        ([(8.0, 1), (3.0, 3)], [(0.05, 2.0, 200)], 0.25),
        ([(2.0, 1)], [(0.02, 1.2, 300), (0.1, 3.0, 60)], 0.5),
        ([], [(0.01, 1.0, 400), (0.3, 4.0, 20), (0.004, 0.8, 1000)], 0.0),
    ],
)
def test_dp_accounting_finds_the_same_for_tables_and_runs_together(
    releases: list[tuple[float, int]], runs: list[tuple[float, float, int]], released_mu: float
) -> None:
    plans = [counts_opening("ab" * 32, noise_multiplier=z, releases=k, delta=1e-7) for z, k in releases]
    plans += [
        training_opening(
            "ab" * 32, sampling_rate=q, noise_multiplier=z, steps=steps, delta=1e-6, released_mu=released_mu
        )
        for q, z, steps in runs
    ]
    found = reported(plans)
    everything = pld.identity(value_discretization_interval=1e-4)
    for z, k in [*releases, *([(1 / released_mu, len(runs))] if released_mu else [])]:
        one = pld.from_gaussian_mechanism(z, value_discretization_interval=1e-4, use_connect_dots=True)
        everything = everything.compose(one.self_compose(k))
    for q, z, steps in runs:
        one = pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=1e-4, use_connect_dots=True)
        everything = everything.compose(one.self_compose(steps))
    assert found.delta == pytest.approx(math.fsum(float(opened.delta) for opened in plans))
    assert found.epsilon == pytest.approx(everything.get_epsilon_for_delta(found.delta), rel=1e-3)
    assert found.epsilon < 0.95 * math.fsum(spent(opened).epsilon for opened in plans)
