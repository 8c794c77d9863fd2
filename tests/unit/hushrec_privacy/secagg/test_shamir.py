"""Shares equal those of a plain polynomial; any t of them recover, fewer leave every secret possible."""

import itertools

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg.shamir import LIMBS, PRIME, recover, share_at, split
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom

SECRET = bytes(range(100, 132))


def limbs_of(secret: bytes) -> list[int]:
    value = int.from_bytes(secret, "little")
    return [value >> (15 * limb) & 0x7FFF for limb in range(18)]


def slow_split(secret: bytes, shares: int, threshold: int, seed: int) -> list[list[int]]:
    """A plain polynomial for each limb, its coefficients from the same source."""
    drawn = FixedRandom(seed).below(PRIME, (threshold - 1) * LIMBS).reshape(threshold - 1, LIMBS).tolist()
    rows = [limbs_of(secret), *drawn]
    return [
        [sum(row[limb] * x**power for power, row in enumerate(rows)) % 65_521 for limb in range(LIMBS)]
        for x in range(1, shares + 1)
    ]


def slow_recover(points: list[int], shares: list[list[int]]) -> int:
    """Lagrange's formula, a limb at a time."""
    value = 0
    for limb in range(LIMBS):
        found = 0
        for i, x in enumerate(points):
            weight = 1
            for other in points:
                if other != x:
                    weight = weight * other * pow(other - x, -1, 65_521) % 65_521
            found = (found + weight * shares[i][limb]) % 65_521
        value |= found << (15 * limb)
    return value


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (3, 2), (5, 5), (36, 19), (98, 66), (255, 255)])
def test_shares_are_those_of_plain_polynomials(shares: int, threshold: int) -> None:
    ours = split(SECRET, shares, threshold, FixedRandom(9))
    assert ours.tolist() == slow_split(SECRET, shares, threshold, 9)


def test_every_t_of_the_shares_recover_the_secret_as_the_slow_formula_does() -> None:
    shares = split(SECRET, 6, 3, OsRandom())
    for points in itertools.permutations(range(1, 7), 3):
        chosen = shares[[x - 1 for x in points]]
        assert recover(points, chosen) == SECRET
        assert slow_recover(list(points), chosen.tolist()) == int.from_bytes(SECRET, "little")


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31), bytes(31) + b"\x80"])
def test_extreme_secrets_come_back(secret: bytes) -> None:
    assert recover([2, 3], split(secret, 3, 2, OsRandom())[1:]) == secret


def test_two_secrets_are_shared_side_by_side() -> None:
    both = split(SECRET + bytes(32), 4, 2, OsRandom())
    assert recover([4, 1], both[[3, 0]]) == SECRET + bytes(32)
    assert recover([4, 1], both[[3, 0], LIMBS:]) == bytes(32)


def test_fewer_than_t_shares_leave_every_secret_possible() -> None:
    seen = split(SECRET, 3, 3, OsRandom())[:2]
    for other in (bytes(32), b"\xff" * 32, SECRET):
        third = third_share(seen, limbs_of(other))
        assert recover([1, 2, 3], np.vstack([seen, third])) == other


def third_share(seen: NDArray[np.uint16], secret: list[int]) -> list[int]:
    """The share at 3 of the parabola through (0, secret) and the two shares at 1 and 2."""
    return [(s - 3 * int(a) + 3 * int(b)) % 65_521 for s, a, b in zip(secret, *seen.tolist(), strict=True)]


def test_single_shares_are_uniform_whatever_the_secret() -> None:
    shares = np.concatenate([split(bytes(32), 2, 2, OsRandom())[0] for _ in range(4_000)])  # 72,000 values
    counts = np.histogram(shares, 64, (0, 65_521))[0]
    statistic = float(((counts - len(shares) / 64) ** 2 / (len(shares) / 64)).sum())
    assert statistic < 63 + 7 * (2 * 63) ** 0.5


def test_a_wrong_share_gives_another_secret_or_none() -> None:
    shares = split(SECRET, 3, 2, OsRandom())
    shares[0, 5] = (int(shares[0, 5]) + 1) % PRIME
    assert recovered_or_none([1, 2], shares[:2]) != SECRET
    assert recovered_or_none([2, 3], shares[1:]) == SECRET


def recovered_or_none(points: list[int], shares: NDArray[np.uint16]) -> bytes | None:
    try:
        return recover(points, shares)
    except SecAggError:
        return None


def test_shares_of_a_number_beyond_32_bytes_are_refused() -> None:
    beyond = np.zeros((1, LIMBS), np.uint16)
    beyond[0, -1] = 2  # bit 256
    with pytest.raises(SecAggError, match="no secret"):
        recover([1], beyond)
    beyond[0, -1], beyond[0, 0] = 0, 2**15  # a limb of 16 bits
    with pytest.raises(SecAggError, match="no secret"):
        recover([1], beyond)


@pytest.mark.parametrize("points", [[], [1, 1], [0, 1], [1, 256], [1, 2, 3]])
def test_points_that_are_none_are_refused(points: list[int]) -> None:
    with pytest.raises(SecAggError, match="different places"):
        recover(points, split(SECRET, 2, 2, OsRandom()))


@pytest.mark.parametrize(
    ("secret", "shares", "threshold"), [(SECRET, 3, 4), (SECRET, 3, 0), (SECRET, 256, 2), (b"x", 3, 2), (b"", 3, 2)]
)
def test_what_cannot_be_shared_is_refused(secret: bytes, shares: int, threshold: int) -> None:
    with pytest.raises(SecAggError, match="32 bytes"):
        split(secret, shares, threshold, OsRandom())


def test_the_share_at_another_place_follows_from_enough_others() -> None:
    shares = split(bytes(range(64)), 7, 4, OsRandom())
    for used in itertools.combinations(range(7), 4):
        rows = shares[list(used)]
        for other in set(range(7)) - set(used):
            np.testing.assert_array_equal(share_at(other + 1, [x + 1 for x in used], rows), shares[other])
