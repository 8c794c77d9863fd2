"""Correlated noise over rounds, on the integer lattice: much of a round's noise is taken back by the rounds after it.

With C the banded square-root Toeplitz matrix (`toeplitz.py`) and z_t discrete Gaussian, round t adds

    w_t = z_t - round(sum_{j=1}^{h-1} c_j w_{t-j}),

that is C^-1 z up to rounding: Denisov et al. 2022, arXiv:2202.08312 (matrix factorisation); Choquette-Choo et al. 2023,
arXiv:2306.08153 (bands). All arithmetic is on whole numbers, so rounding is the same everywhere. Adds no noise to
anything itself, and knows neither sensitivity nor budget.

Why the rounding costs one lattice step a coordinate and round: given the published sums, w is their difference from the
inputs, so two neighbouring inputs need z that differ by C times the change plus the difference of two roundings, each
within 1/2: the sensitivity grows by sqrt(dimension * rounds) at most, over a whole plan.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError, NoiseStateError
from hushrec_privacy.mechanisms.discrete_gaussian import MAX_TERM, sample_discrete_gaussian
from hushrec_privacy.mechanisms.noise_store import NoiseRows, NoiseStore, SealedRow
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row, seal_row, unusable
from hushrec_privacy.mechanisms.toeplitz import FRACTION_BITS, fixed_point_coefficients
from hushrec_privacy.randomness import OsRandom

__all__ = ["BandedNoise", "NoisePlan"]

_ROOM = 2**62  # |sum of coefficient times noise|, in 2^-24 lattice steps
_DEVIATIONS = 20  # w has 1.2 times the deviation of z: the chance of passing the room is below exp(-130) a coordinate


@dataclass(frozen=True)
class NoisePlan:
    """The public part of a plan that its noise depends on.

    Attributes:
        plan_id: sha256 of the plan, 64 hexadecimal digits.
        dimension: Coordinates of a sum.
        bands: h; 1 is independent noise. At most `rounds`.
        rounds: T; rounds are numbered from 1 to T.
        sigma_numerator: p of sigma = p/q, the noise of z in lattice steps.
        sigma_denominator: q.

    Raises:
        ConfigError: A field is outside its range, or the noise too large for 64-bit sums.
    """

    plan_id: str
    dimension: int
    bands: int
    rounds: int
    sigma_numerator: int
    sigma_denominator: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not re.fullmatch(r"[0-9a-f]{64}", self.plan_id):
            raise ConfigError("plan_id must be the 64 lower-case hexadecimal digits of a sha256")
        checks.at_least(1, dimension=self.dimension, bands=self.bands, rounds=self.rounds)
        checks.at_least(1, sigma_numerator=self.sigma_numerator, sigma_denominator=self.sigma_denominator)
        if self.bands > self.rounds:
            raise ConfigError(f"bands is {self.bands}; it must be at most the {self.rounds} rounds")
        if max(self.sigma_numerator, self.sigma_denominator) > MAX_TERM:
            raise ConfigError("sigma_numerator and sigma_denominator must be at most 2^40")
        total = int(fixed_point_coefficients(self.bands).sum())
        if _DEVIATIONS * self.sigma_numerator * total > _ROOM * self.sigma_denominator:
            raise ConfigError(
                f"sigma of {self.sigma_numerator}/{self.sigma_denominator} lattice steps is too large for 64-bit sums "
                f"over {self.bands} bands; take a coarser lattice"
            )


class BandedNoise:
    """Draws the noise of a plan's rounds, each round at most once, whatever crashes.

    Memory is a few rows of `dimension`, the state `bands` - 1 rows in the store, however many rounds there are.
    """

    def __init__(self, plan: NoisePlan, key: SealKey, source: OsRandom) -> None:
        """Prepare to draw.

        Args:
            plan: What to draw.
            key: Seals the rows; the same for all rounds of a plan.
            source: Where the randomness comes from.
        """
        self._plan, self._key, self._source = plan, key, source
        self._coefficients = fixed_point_coefficients(plan.bands)

    def begin(self, store: NoiseStore) -> None:
        """Make the plan known to a store, once, before its first round.

        Raises:
            NoiseStateError: It has begun before, or the store cannot be used.
        """
        store.begin(self._plan.plan_id, dimension=self._plan.dimension, bands=self._plan.bands)

    def end(self, store: NoiseStore) -> None:
        """Delete the state of a plan that stops before its last round; no round of it can be drawn after that.

        Raises:
            NoiseStateError: It never began, or the store cannot be used.
        """
        with store.transaction(self._plan.plan_id) as rows:
            rows.state()
            rows.append(self._plan.rounds, None, first_kept=self._plan.rounds + 1)

    def draw(self, rows: NoiseRows, round_number: int) -> NDArray[np.int64]:
        """Draw the noise of a round and put the new state into the open transaction.

        Store the noised sum in the same transaction, and publish only after it was committed. If it is not, the state
        is as before and the round may be drawn anew. Rounds left out are abandoned for good: nothing may be published
        for them. The last round deletes the state.

        Guarantee:
            Over any committed rounds, z = C w to one rounding, z independent and exactly discrete Gaussian. A round
            left out removes its row and column from C, which lowers no noise and raises no sensitivity.

        Args:
            rows: An open transaction of the store.
            round_number: 1 to `rounds`, above every round drawn before.

        Returns:
            Shape (`dimension`,), int64, in lattice steps. As secret as the raw sum.

        Raises:
            ConfigError: `round_number` is outside the plan.
            NoiseStateError: The round was drawn before, or the state cannot be used.
        """
        plan = self._plan
        checks.at_least(1, round_number=round_number)
        if round_number > plan.rounds:
            raise ConfigError(f"round_number is {round_number}; the plan has {plan.rounds} rounds")
        state = rows.state()
        if round_number <= state.last_round:
            raise NoiseStateError(
                f"the noise of round {round_number} is spent (the last round drawn is {state.last_round}); publish "
                "what was stored with it, or go on with a later round"
            )
        if (state.dimension, state.bands) != (plan.dimension, plan.bands):
            raise unusable()
        if state.newest_row != (state.last_round if plan.bands > 1 else 0):
            raise unusable()
        noise = self._combined(rows, round_number, state.last_round)
        np.subtract(sample_discrete_gaussian(self._source, plan.dimension, *self._sigma()), noise, out=noise)
        self._keep(rows, noise, round_number, state.last_round)
        return noise

    def _sigma(self) -> tuple[int, int]:
        return self._plan.sigma_numerator, self._plan.sigma_denominator

    def _combined(self, rows: NoiseRows, round_number: int, last: int) -> NDArray[np.int64]:
        """round(sum c_j w_{t-j}), shape (dimension,): one row in memory at a time, each leading to the one before.

        The chain of `previous` tells an abandoned round, which has no row, from a lost one.
        """
        total = np.zeros(self._plan.dimension, np.int64)
        term = np.empty_like(total)
        while last > max(0, round_number - self._plan.bands):
            stored = rows.row(last)
            if stored is None or not 0 <= stored.previous < last:
                raise unusable()
            row = open_row(self._key, stored.sealed, self._place(last, stored.previous))
            np.multiply(row, self._coefficients[round_number - last], out=term)
            total += term
            last = stored.previous
        total += 1 << (FRACTION_BITS - 1)
        total >>= FRACTION_BITS  # floor(x + 1/2)
        return total

    def _keep(self, rows: NoiseRows, noise: NDArray[np.int64], round_number: int, last: int) -> None:
        largest = max(int(noise.max()), -int(noise.min()))
        if largest * int(self._coefficients.sum()) > _ROOM:  # never by chance: a broken source
            raise NoiseStateError("the noise drawn is larger than possible; nothing was stored")
        row, first_kept = None, round_number + 1
        if self._plan.bands > 1 and round_number < self._plan.rounds:  # the last round leaves nothing to correlate
            row = SealedRow(last, seal_row(self._key, noise, self._place(round_number, last)))
            first_kept = round_number - self._plan.bands + 2
        rows.append(round_number, row, first_kept=first_kept)

    def _place(self, round_number: int, previous: int) -> RowPlace:
        return RowPlace(self._plan.plan_id, round_number, previous, self._plan.dimension)
