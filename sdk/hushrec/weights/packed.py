"""From float32 weights to the two int8 files that a device runs on.

Item vectors are rounded first, the encoder after them: it is calibrated on histories over the rounded table, which is
what a device gathers from. So `encoder.bin` follows from `items.bin`, the basis of its rows and the encoder's weights
alone, and a later release that changes nothing writes the same bytes.
"""

from typing import NamedTuple

import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec.tables import WIDTH, ZERO_POINT, dequantize_rows, items_layout, pack_items, row_scales
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
        scales: Shape (V + 1,).
        rotation: Basis of the rows, shape (64, 64): they are item vectors times this.
    """

    codes: NDArray[np.uint8]
    scales: Floats
    rotation: Floats

    @classmethod
    def of(cls, items_bin: bytes, capacity: int, items: int, rotation: Floats) -> "RoundedItems":
        """Read `items.bin` of a table of `items` items, V."""
        layout = items_layout(capacity)
        codes = np.frombuffer(items_bin, np.uint8, (items + 1) * WIDTH, layout.codes_offset)
        scales = np.frombuffer(items_bin, "<f4", items + 1, layout.scales_offset)
        return cls(codes.reshape(items + 1, WIDTH), scales, rotation)

    def turned(self) -> Floats:
        """The rows as they are rounded, in their own basis, shape (V + 1, 64)."""
        return dequantize_rows(self.codes, self.scales)

    def rows(self) -> Floats:
        """The item vectors that the rows stand for, in the basis of training, shape (V + 1, 64)."""
        vectors: Floats = self.turned() @ self.rotation.T
        return vectors

    def pack(self, capacity: int) -> bytes:
        """Write `items.bin`.

        Raises:
            ConfigError: The rows do not fit into `capacity`.
        """
        return pack_items(self.codes, self.scales, capacity)


def round_items(weights: EncoderWeights, rows: Floats, rotation: Floats | None = None) -> RoundedItems:
    """Round item vectors so that products with the encoder's users are kept.

    Args:
        weights: The encoder.
        rows: Item vectors in the basis of training, unit length or shorter, row 0 zeros, shape (V + 1, 64).
        rotation: Basis of the table; None: one is fitted. A later release keeps the first one's.

    Raises:
        ConfigError: A value is not finite.
    """
    if not np.isfinite(rows).all():
        raise ConfigError("the item table holds NaN or infinity; export item vectors of a run that converged")
    fit = fit_rounding(weights, rows, own_histories(weights, rows), rotation)
    turned = rows @ fit.rotation
    scales = row_scales(turned)
    steps = round_rows(turned, scales, fit.moments["user"])
    return RoundedItems((steps.astype(np.int16) + ZERO_POINT).astype(np.uint8), scales, fit.rotation)


def round_encoder(weights: EncoderWeights, items: RoundedItems) -> bytes:
    """Write `encoder.bin` for the table that it gathers from.

    Args:
        weights: The encoder.
        items: The table; its basis goes into the file.
    """
    rows = items.rows()
    moments = fit_rounding(weights, rows, own_histories(weights, rows), items.rotation).moments
    return pack_encoder(weights, "int8", Fit(moments, items.rotation))
