"""Which parameters are trained together, and where each lies in an update: the same on every device and on the server.

Each part contains the one before, and its update begins with that part's. The order is: adapter, encoder, feature
tables (behaviours, attributes, prices, words), item rows. A projection of vectors that the shop brings is not trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import MAX_PARAMETERS, PARTS
from numpy.typing import NDArray

from hushrec.manifest import Manifest

__all__ = ["FEATURE_TABLES", "ITEM_ROWS", "PARAMS", "ParameterLayout", "trainable"]

PARAMS = "params."
"""How arrays of params.bin are called; what follows is a name of `EncoderWeights.arrays`."""

ITEM_ROWS = "items"
"""Item vectors before they are made unit length, shape (V, 64), in the basis of training."""

FEATURE_TABLES = ("features.attributes", "features.prices", "features.words")

_ADAPTER = (PARAMS + "adapter_down", PARAMS + "adapter_up")
_BEHAVIORS = PARAMS + "behavior_rows"
_FIXED = (PARAMS + "rotation", PARAMS + "lengths")  # what a device needs and nobody trains

Floats = NDArray[np.float32]


def trainable(manifest: Manifest) -> bool:
    """Whether devices can train on a bundle; one without the train step only recommends."""
    return "train_step.onnx" in manifest.files and all(name in manifest.arrays for name in _FIXED)


@dataclass(frozen=True)
class ParameterLayout:
    """The arrays of one part, end to end.

    Attributes:
        part: One of `PARTS`.
        shapes: Shape by name, in order; arrays are called as in the manifest, item rows `ITEM_ROWS`.
    """

    part: str
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, manifest: Manifest, part: str) -> "ParameterLayout":
        """Lay out one part of a bundle's model.

        Raises:
            BundleError: The bundle has no train step.
            ConfigError: No such part, or it has more than 500,000 parameters.
        """
        checks.one_of(PARTS, part=part)
        if not trainable(manifest):
            raise BundleError("the bundle has no train step; quantize again to make one that devices can train on")
        names = sorted(name for name in manifest.arrays if name.startswith(PARAMS))
        groups = [
            _ADAPTER,
            [name for name in names if name not in (*_ADAPTER, *_FIXED, _BEHAVIORS)],
            [name for name in (_BEHAVIORS, *FEATURE_TABLES) if name in manifest.arrays],
        ]
        rank = PARTS.index(part)
        shapes = {name: manifest.arrays[name].shape for group in groups[: rank + 1] for name in group}
        if rank == len(PARTS) - 1:
            shapes[ITEM_ROWS] = (manifest.model.items, manifest.model.width)
        layout = cls(part, MappingProxyType(shapes))
        if layout.size > MAX_PARAMETERS:
            raise ConfigError(
                f"part {part!r} has {layout.size:,} parameters, more than {MAX_PARAMETERS:,}; train a smaller part"
            )
        return layout

    @property
    def size(self) -> int:
        """P, the parameters of the part."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def flatten(self, arrays: Mapping[str, Floats]) -> Floats:
        """Lay arrays end to end.

        Args:
            arrays: One of its shape for each name; others are ignored.

        Returns:
            Shape (P,).

        Raises:
            ConfigError: One is missing or has another shape.
        """
        for name, shape in self.shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                raise ConfigError(f"{name} is missing or has another shape than {shape}; use arrays of this layout")
        return np.concatenate([arrays[name].ravel() for name in self.shapes]).astype(np.float32, copy=False)

    def unflatten(self, vector: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
        """Undo `flatten`, as views.

        Raises:
            ConfigError: `vector` has another shape than (P,).
        """
        if vector.shape != (self.size,):
            raise ConfigError(f"the vector has shape {vector.shape}; part {self.part!r} needs ({self.size},)")
        arrays, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + int(np.prod(shape))
            arrays[name] = vector[start:stop].reshape(shape)
            start = stop
        return arrays
