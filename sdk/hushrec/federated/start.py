"""The values that a device's training starts from: the encoder in float32, and item vectors as its item table has them.

Item vectors are the int8 rows of `items.bin`, turned back into the basis of training; there is no second table in
float32. `lengths` says how long each was before it was made unit length: gradients of what it is summed from are as
much larger as that is smaller. An item without a vector of its own has a row of zeros and the mean length.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from hushrec_privacy.errors import BundleError
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.federated.layout import PARAMS, trainable
from hushrec.tables import dequantize_rows

__all__ = ["Start", "popularity_offset"]

Floats = NDArray[np.float32]


class Start(NamedTuple):
    """What every device of a round has in common.

    Attributes:
        encoder: Weights by the names of `EncoderWeights.arrays`.
        codes: Item table, uint8, at least V + 1 rows of 64.
        scale: Its step.
        rotation: Basis of the table, shape (64, 64).
        lengths: Of item vectors before they were made unit length, shape (V + 1,).
        offset: Added to the score of each item, shape (V + 1,).
    """

    encoder: Mapping[str, Floats]
    codes: NDArray[np.uint8]
    scale: float
    rotation: Floats
    lengths: Floats
    offset: Floats

    @classmethod
    def of(cls, bundle: Bundle) -> "Start":
        """Read a bundle; arrays are views of its files.

        Raises:
            BundleError: It has no train step.
        """
        manifest = bundle.manifest
        if not trainable(manifest):
            raise BundleError(f"{bundle.root}: has no train step; devices can only recommend with it")
        params = {name.removeprefix(PARAMS): bundle.array(name) for name in manifest.arrays if name.startswith(PARAMS)}
        rotation, lengths = params.pop("rotation"), params.pop("lengths")
        codes, scale = bundle.array("items.codes"), float(bundle.array("items.scale")[0])
        return cls(params, codes, scale, rotation, lengths, popularity_offset(bundle))

    def vectors(self, items: NDArray[np.int64]) -> Floats:
        """Vectors of some items in the basis of training, shape (n, 64): unit length, to rounding, or shorter."""
        rows: Floats = dequantize_rows(self.codes[items], self.scale) @ self.rotation.T
        return rows


def popularity_offset(bundle: Bundle) -> Floats:
    """What the blend adds for popularity, shape (V + 1,): whoever ranks adds it, so training does, too."""
    popularity = bundle.array("popularity")
    offset = np.zeros(len(popularity), np.float32)
    for part in bundle.manifest.blend:
        if part.name == "popularity":
            offset += (part.weight * np.log1p(popularity / part.epsilon)).astype(np.float32)
    return offset
