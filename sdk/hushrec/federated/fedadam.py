"""The server's optimizer: Adam over the mean changes of rounds.

FedAdam of Reddi et al. 2021, arXiv:2003.00295, Algorithm 2: the mean change of a round takes the place of a gradient,
with the sign turned. As there, moments are not corrected for their start, and the second one starts at τ². What it is
given is public once it is noised, and so is its state.
"""

import struct
from dataclasses import dataclass

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

__all__ = ["AdamSettings", "FedAdam"]

_HEAD = struct.Struct("<8sQ")
_MAGIC = b"fedadam1"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class AdamSettings:
    """Settings of Algorithm 2.

    Attributes:
        rate: η, the server's learning rate.
        momentum: β₁.
        second: β₂.
        floor: τ, how small a root mean square change is still told from none.
    """

    rate: float = 0.004
    momentum: float = 0.9
    second: float = 0.99
    floor: float = 1e-5

    def __post_init__(self) -> None:
        checks.positive(rate=self.rate, floor=self.floor)
        checks.share(momentum=self.momentum, second=self.second)


class FedAdam:
    """Turns the mean changes of rounds into steps.

    Args:
        size: P.
        settings: See `AdamSettings`.

    Raises:
        ConfigError: `size` is below 1.
    """

    def __init__(self, size: int, settings: AdamSettings) -> None:
        checks.at_least(1, size=size)
        self._settings = settings
        self._mean, self._square = np.zeros(size), np.full(size, settings.floor**2)

    @property
    def size(self) -> int:
        """P."""
        return len(self._mean)

    def step(self, mean: NDArray[np.floating]) -> Doubles:
        """Take one step.

        Args:
            mean: Mean change of a round's devices, shape (P,), in the unit of the weights.

        Returns:
            What to add to the weights, shape (P,).

        Raises:
            ConfigError: The shape differs, or a value is not finite.
        """
        change = np.asarray(mean, np.float64)
        if change.shape != self._mean.shape or not np.isfinite(change).all():
            raise ConfigError(f"a mean of shape {change.shape} cannot be used; it must be finite, {self._mean.shape}")
        s = self._settings
        self._mean = s.momentum * self._mean + (1 - s.momentum) * change
        self._square = s.second * self._square + (1 - s.second) * change**2
        step: Doubles = s.rate * self._mean / (np.sqrt(self._square) + s.floor)
        return step

    def to_bytes(self) -> bytes:
        """The state: both moments, float64, little endian, after a head of 16 bytes."""
        moments = np.stack([self._mean, self._square]).astype("<f8")
        return _HEAD.pack(_MAGIC, len(self._mean)) + moments.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, settings: AdamSettings) -> "FedAdam":
        """Go on from a state.

        Raises:
            ConfigError: `data` is no such state.
        """
        size = (len(data) - _HEAD.size) // 16
        if size < 1 or data[: _HEAD.size] != _HEAD.pack(_MAGIC, size) or len(data) != _HEAD.size + 16 * size:
            raise ConfigError(f"{len(data)} bytes are no state of the server's optimizer; restore it, or begin anew")
        made = cls(size, settings)
        made._mean, made._square = np.frombuffer(data, "<f8", offset=_HEAD.size).reshape(2, size).copy()
        return made
