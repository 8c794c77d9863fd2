"""The float32 master of everything that devices train: what rounds change, and what every release is rounded from.

It begins with what a bundle holds: encoder and tables in float32, item vectors as the bundle's int8 rows say. From
then on they are float32 here; a release never starts from another release's int8. Item vectors stay in the basis of the
bundle's item table, made unit length, beside the length that each had: what is added is added to the vector of that
length.

An item without a vector of its own (all zeros in the first bundle) has the mean length. Until what it was given is as
long, it stays shorter than one, so that a little noise does not become a full vector.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.layout import FEATURE_TABLES, ITEM_ROWS, PARAMS, ParameterLayout
from hushrec.federated.start import Start
from hushrec.tables import dequantize_rows, quantize_rows, table_scale
from hushrec.weights.encoder import EncoderWeights

__all__ = ["SHORT", "Master"]

SHORT = 0.9
"""Rows below this length have no vector of their own yet; rounding moves a unit row by about .01."""

Floats = NDArray[np.float32]


class Master:
    """Encoder, feature tables and item vectors.

    Args:
        encoder: Weights by the names of `EncoderWeights.arrays`.
        tables: Feature tables by the names of their arrays in a bundle.
        turned: Item vectors, unit length or shorter, in the basis of the item table, row 0 zeros, shape (V + 1, 64).
        lengths: How long each was, shape (V + 1,).
        rotation: The basis, shape (64, 64): `turned` are vectors of training times this.
    """

    def __init__(
        self, encoder: dict[str, Floats], tables: dict[str, Floats], turned: Floats, lengths: Floats, rotation: Floats
    ) -> None:
        self.encoder, self.tables, self.turned, self.lengths, self.rotation = encoder, tables, turned, lengths, rotation

    @classmethod
    def of(cls, bundle: Bundle) -> "Master":
        """Begin with a bundle.

        Raises:
            BundleError: The bundle has no train step.
        """
        start = Start.of(bundle)
        rows = len(start.lengths)
        return cls(
            {name: array.copy() for name, array in start.encoder.items()},
            {name: bundle.array(name).copy() for name in FEATURE_TABLES if name in bundle.manifest.arrays},
            dequantize_rows(start.codes[:rows], start.scale),
            start.lengths.copy(),
            start.rotation.copy(),
        )

    def __repr__(self) -> str:
        return f"Master(items={len(self.turned) - 1}, tables={sorted(self.tables)})"

    def weights(self) -> EncoderWeights:
        """The encoder, for rounding.

        Raises:
            ConfigError: A value is not finite any more.
        """
        return EncoderWeights.of(self.encoder)

    def apply(self, layout: ParameterLayout, step: NDArray[np.floating], content: Callable[[], Content]) -> None:
        """Add a step to one part.

        Args:
            layout: Of the part.
            step: Shape (P,).
            content: Gives `Content.whole` of the bundle; asked for only if feature tables change.

        Raises:
            ConfigError: The step has another shape, or is not finite.
        """
        if not np.isfinite(step).all():
            raise ConfigError("the step holds NaN or infinity; nothing was changed")
        changes = {name: change.astype(np.float32) for name, change in layout.unflatten(step).items()}
        tables = {name: change for name, change in changes.items() if name in self.tables}
        moved = np.zeros((len(self.turned) - 1, self.turned.shape[1]), np.float32)
        if ITEM_ROWS in changes:
            moved += changes[ITEM_ROWS]
        if tables:
            moved += content().vectors(tables)
        for name, change in changes.items():
            if name.startswith(PARAMS):
                short = name.removeprefix(PARAMS)
                self.encoder[short] = self.encoder[short] + change
            elif name in tables:
                self.tables[name] = self.tables[name] + change
        self._move(moved)

    def start(self, offset: Floats) -> Start:
        """What devices would start from if the master were released now, but with rows rounded to the nearest step.

        For simulation: a release rounds so that products are kept, which takes longer.
        """
        scale = table_scale(self.turned)
        codes = quantize_rows(self.turned, scale)
        return Start(self.encoder, codes, scale, self.rotation, self.lengths, offset)

    def to_bytes(self) -> bytes:
        """Write it down, for the release store."""
        arrays: dict[str, Any] = {f"encoder/{name}": array for name, array in self.encoder.items()}
        arrays |= {f"tables/{name}": array for name, array in self.tables.items()}
        buffer = io.BytesIO()
        np.savez(buffer, turned=self.turned, lengths=self.lengths, rotation=self.rotation, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Master":
        """Undo `to_bytes`.

        Raises:
            ConfigError: `data` is no master.
        """
        groups: dict[str, dict[str, Floats]] = {"encoder": {}, "tables": {}}
        rest = ("turned", "lengths", "rotation")
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                for path in arrays.files:
                    group, _, name = path.partition("/")
                    if name:
                        groups[group][name] = arrays[path]
                return cls(groups["encoder"], groups["tables"], *(arrays[name] for name in rest))
        except Exception as error:  # zip, NumPy and lookup each have errors of their own
            raise ConfigError("the master cannot be read; restore it from a copy") from error

    def _move(self, moved: Floats) -> None:
        """Add to the vectors of all items, in the basis of training, and make them unit length again."""
        changed = 1 + np.flatnonzero(moved.any(axis=1))
        if not len(changed):
            return
        own = np.linalg.norm(self.turned[changed], axis=1) >= SHORT
        whole = self.turned[changed] * self.lengths[changed, None] + moved[changed - 1] @ self.rotation
        length = np.linalg.norm(whole, axis=1)
        length = np.where(own & (length > 0), length, np.maximum(length, self.lengths[changed]))
        self.turned[changed] = whole / length[:, None]
        self.lengths[changed] = length
