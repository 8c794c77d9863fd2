"""k and t fulfil the stated conditions in exact arithmetic, and no smaller k does."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.parameters import MOST_CHOSEN, MOST_HELD, neighbourhood, smallest_sum
from hushrec_privacy.secagg.session import Setting

SECURITY, CORRECTNESS = Fraction(1, 2**40), Fraction(1, 2**20)
DESIGN = {  # (n; k, t) of DESIGN, for 5 % corrupt and 10 % dropping out
    "curious": {100: (16, 6), 500: (32, 17), 1000: (36, 19)},
    "active": {100: (26, 16), 500: (66, 44), 1000: (78, 52)},
}


def tail(total: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[HG(total, marked, drawn) >= least], exactly."""
    ways = sum(
        math.comb(marked, x) * math.comb(total - marked, drawn - x)
        for x in range(max(least, 0), min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(total, drawn))


def holds(n: int, k: int, t: int, setting: Setting) -> bool:
    needed = 2 * t - k if setting == "active" else t
    if needed <= 0:
        return False
    corrupt = n * tail(n - 1, math.ceil(Fraction(n, 20)), k, needed)
    dropped = n * tail(n - 1, math.ceil(Fraction(n, 10)), k, k - t + 1)
    return corrupt <= SECURITY and dropped <= CORRECTNESS and (setting == "active" or cut(n, k) <= SECURITY)


def cut(n: int, k: int) -> Fraction:
    """Bound of the chance that some set of survivors has no edge to the others."""
    h = n - math.ceil(Fraction(n, 20)) - math.ceil(Fraction(n, 10))
    every = math.comb(n - 1, k)
    return sum(
        (
            math.comb(h, s)
            * Fraction(math.comb(n - 1 - (h - s), k), every) ** s
            * Fraction(math.comb(n - 1 - s, k), every) ** (h - s)
            for s in range(1, min(h // 2, 12) + 1)
        ),
        Fraction(0),
    )


@pytest.mark.parametrize("setting", ["curious", "active"])
@pytest.mark.parametrize("n", [100, 101, 137, 200, 500, 1000])
def test_the_conditions_hold_exactly_and_no_smaller_k_fulfils_them(n: int, setting: Setting) -> None:
    found = neighbourhood(n, setting)
    assert holds(n, found.chosen, found.threshold, setting)
    assert not holds(n, found.chosen, found.threshold + 1, setting)
    assert not any(holds(n, found.chosen - 1, t, setting) for t in range(1, found.chosen))


@pytest.mark.parametrize("setting", ["curious", "active"])
@pytest.mark.parametrize("n", [100, 500, 1000])
def test_the_numbers_of_the_design_hold_too_and_are_hardly_larger(n: int, setting: Setting) -> None:
    k, t = DESIGN[setting][n]
    assert holds(n, k, t, setting)
    found = neighbourhood(n, setting)
    assert k - 4 <= found.chosen <= k
    assert t - 3 <= found.threshold <= t


def test_the_numbers_are_these() -> None:  # a regression marker: a device and a server must agree on them
    found = {n: (neighbourhood(n, "curious"), neighbourhood(n, "active")) for n in (100, 500, 1000, 10_000)}
    assert {n: [(x.chosen, x.threshold) for x in pair] for n, pair in found.items()} == {
        100: [(15, 6), (26, 16)],
        500: [(31, 16), (65, 43)],
        1000: [(35, 18), (74, 49)],
        10_000: [(41, 21), (94, 62)],
    }


@pytest.mark.parametrize("setting", ["curious", "active"])
@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (4, 3), (50, 34), (99, 66)])
def test_below_100_the_graph_is_complete_and_t_is_two_thirds(n: int, t: int, setting: Setting) -> None:
    found = neighbourhood(n, setting)
    assert (found.chosen, found.threshold, found.complete) == (n - 1, t, True)


@pytest.mark.parametrize("n", [-1, 0, 1, 10_001])
def test_other_numbers_of_devices_are_refused(n: int) -> None:
    with pytest.raises(SecAggError, match="2 to 10000 devices"):
        neighbourhood(n, "active")


def test_no_message_can_be_longer_than_its_bound() -> None:
    found = [neighbourhood(n, setting) for n in range(2, 10_001, 53) for setting in ("active", "curious")]
    assert max(x.chosen for x in found) <= MOST_CHOSEN
    assert max(x.most_choosers + x.complete for x in found) <= MOST_HELD


def test_an_active_server_learns_sums_over_more_than_half_of_the_honest_devices_from_150_on() -> None:
    sizes = {n: smallest_sum(n) for n in (100, 150, 300, 1000)}
    assert sizes == {100: 46, 150: 76, 300: 168, 1000: 581}
    assert all(size > (n - math.ceil(n / 20)) / 2 for n, size in sizes.items() if n >= 150)
    assert all(smallest_sum(a) <= smallest_sum(b) for a, b in pairwise([150, 200, 400, 800]))


def test_the_smallest_sum_of_100_devices_is_right_in_exact_arithmetic() -> None:
    found, n, corrupt = neighbourhood(100, "active"), 100, 5
    lucky = [
        math.comb(n - corrupt, s) * tail(n - 1, s - 1 + corrupt, found.chosen, found.threshold) ** s
        for s in range(1, smallest_sum(100) + 1)
    ]
    assert sum(lucky[:-1], Fraction(0)) <= SECURITY < sum(lucky, Fraction(0))


def test_in_a_complete_graph_the_smallest_sum_is_what_t_leaves_without_the_corrupt() -> None:
    assert smallest_sum(60) == 40 - 3
