"""From float32 weights to the two int8 files that a device runs on.

Item vectors are rounded first, the encoder after them: it is calibrated on histories over the rounded table, which is
what a device gathers from. So `encoder.bin` follows from `items.bin`, the basis of its rows and the encoder's weights
alone, and a later release that changes nothing writes the same bytes.
"""

from typing import NamedTuple

import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec.tables import WIDTH, ZERO_POINT, dequantize_rows, items_layout, pack_items, table_scale
from hushrec.weights.calibration import fit_rounding, own_histories
from hushrec.weights.encoder import EncoderWeights
from hushrec.weights.rounding import round_rows
from hushrec.weights.tensors import Fit, pack_encoder

__all__ = ["RoundedItems", "round_encoder", "round_items"]

Floats = NDArray[np.float32]


class RoundedItems(NamedTuple):
    """The item table in int8.

    Attributes:
        codes: Of row 0 and the V items, uint8, shape (V + 1, 64).
        scale: Step of the table.
        rotation: Basis of the rows, shape (64, 64): they are item vectors times this.
    """

    codes: NDArray[np.uint8]
    scale: float
    rotation: Floats

    @classmethod
    def of(cls, items_bin: bytes, capacity: int, items: int, rotation: Floats) -> "RoundedItems":
        """Read `items.bin` of a table of `items` items, V."""
        layout = items_layout(capacity)
        codes = np.frombuffer(items_bin, np.uint8, (items + 1) * WIDTH, layout.codes_offset)
        (scale,) = np.frombuffer(items_bin, "<f4", 1, layout.scale_offset).tolist()
        return cls(codes.reshape(items + 1, WIDTH), scale, rotation)

    def turned(self) -> Floats:
        """The rows as they are rounded, in their own basis, shape (V + 1, 64)."""
        return dequantize_rows(self.codes, self.scale)

    def rows(self) -> Floats:
        """The item vectors that the rows stand for, in the basis of training, shape (V + 1, 64)."""
        vectors: Floats = self.turned() @ self.rotation.T
        return vectors

    def pack(self, capacity: int) -> bytes:
        """Write `items.bin`.

        Raises:
            ConfigError: The rows do not fit into `capacity`.
        """
        return pack_items(self.codes, self.scale, capacity)


def round_items(weights: EncoderWeights, rows: Floats, kept: RoundedItems | None = None) -> RoundedItems:
    """Round item vectors so that products with the encoder's users are kept.

    Args:
        weights: The encoder.
        rows: Item vectors in the basis of training, unit length or shorter, row 0 zeros, shape (V + 1, 64).
        kept: An earlier table of the same shop, whose basis and step a later release keeps; None: both are fitted.

    Raises:
        ConfigError: A value is not finite.
    """
    if not np.isfinite(rows).all():
        raise ConfigError("the item table holds NaN or infinity; export item vectors of a run that converged")
    fit = fit_rounding(weights, rows, own_histories(weights, rows), kept.rotation if kept else None)
    turned = rows @ fit.rotation
    scale = kept.scale if kept else table_scale(turned)
    steps = round_rows(turned, np.full(len(turned), scale, np.float32), fit.moments["user"])
    return RoundedItems((steps.astype(np.int16) + ZERO_POINT).astype(np.uint8), scale, fit.rotation)


def round_encoder(weights: EncoderWeights, items: RoundedItems) -> bytes:
    """Write `encoder.bin` for the table that it gathers from.

    Args:
        weights: The encoder.
        items: The table; its basis goes into the file.
    """
    rows = items.rows()
    moments = fit_rounding(weights, rows, own_histories(weights, rows), items.rotation).moments
    return pack_encoder(weights, "int8", Fit(moments, items.rotation))
