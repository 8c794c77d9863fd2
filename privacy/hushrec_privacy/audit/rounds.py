"""The product's own rounds as the auditor sees them: clip, round, and banded noise with its state in a folder.

No devices, no secure aggregation, no rotation: what one update adds, and what is added to it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.audit.mechanism import AuditedMechanism
from hushrec_privacy.mechanisms import banded, clipping, noise_store, rounding, seal
from hushrec_privacy.randomness import OsRandom

__all__ = ["AuditedRounds"]


class AuditedRounds:
    """One plan's rounds over sums of zeros; `restart` keeps nothing but the folder.

    >>> import tempfile
    >>> from hushrec_privacy.audit.mechanism import MechanismClaim, audit_mechanism
    >>> plan = banded.NoisePlan("0a" * 32, dimension=100_000, bands=2, rounds=2, sigma_numerator=1000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rounds = AuditedRounds(Path(folder), plan, clip_norm=1.0, scale=256.0)
    ...     claim = MechanismClaim(sigma=500.0, rounds=2, bands=2)  # half of the truth
    ...     audit_mechanism(rounds.mechanism(), claim).passed
    False
    """

    def __init__(
        self,
        folder: Path,
        plan: banded.NoisePlan,
        *,
        clip_norm: float,
        scale: float,
        source: Callable[[], OsRandom] = OsRandom,
    ) -> None:
        """Begin the plan in a folder of its own.

        Args:
            folder: Exists and is empty. The key lies beside the state here, which an audit may do and nothing else.
            plan: `dimension` is the number of draws, at least 100,000 for an audit.
            clip_norm: As in `clipping`.
            scale: Lattice steps to a unit of an update.
            source: Makes the randomness after each start.

        Raises:
            ConfigError: A number is out of range or the folder cannot be used.
            NoiseStateError: The plan began in this folder before.
        """
        checks.positive(clip_norm=clip_norm, scale=scale)
        self._folder, self._plan, self._source = folder, plan, source
        self._clip_norm, self._scale = clip_norm, scale
        seal.SealKey.create(folder / "key")
        self.restart()
        self._noise.begin(self._store)

    def restart(self) -> None:
        """Open everything anew."""
        self._random = self._source()
        self._store = noise_store.SqliteNoiseStore(self._folder / "noise.db")
        self._noise = banded.BandedNoise(self._plan, seal.SealKey.read(self._folder / "key"), self._random)

    def draw(self, round_number: int) -> NDArray[np.int64]:
        """The noise of a round, shape (`dimension`,), in lattice steps."""
        with self._store.transaction(self._plan.plan_id) as rows:
            return self._noise.draw(rows, round_number)

    def contribute(self, update: NDArray[np.float32]) -> NDArray[np.int64]:
        """What an update adds to a sum, shape (P,), in lattice steps."""
        clipped = clipping.clip_update(update, clip_norm=self._clip_norm).astype(np.float64)
        return rounding.round_conditionally(
            self._random, clipped * self._scale, clip_norm=self._clip_norm * self._scale * (1 + 1e-6)
        )

    def mechanism(self, **others: Any) -> AuditedMechanism:
        """For `audit_mechanism`; `others` are its fields `admit` and `batch_size`."""
        return AuditedMechanism(draw=self.draw, restart=self.restart, contribute=self.contribute, **others)
