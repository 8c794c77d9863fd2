"""The input arrays of a bundle's graphs: the last events of one history, checked, always in the same memory."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from hushrec import ort
from hushrec.manifest import ModelInfo
from hushrec.tables import WIDTH

__all__ = ["HistoryBuffer", "TableFile"]

Indexes = NDArray[np.int64]


class TableFile:
    """Reads rows of the item table from its file; mapped, every page touched would count as memory of the process.

    Args:
        path: `items.bin`.
        offset: Where the codes begin.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        self._offset, self._rows = offset, dict[int, bytes]()

    def rows(self, items: Indexes) -> NDArray[np.uint8]:
        """Codes of some rows, shape (n, 64); those of the last call are still at hand.

        Raises:
            BundleError: The file has become shorter.
        """
        numbers = items.tolist()
        known = self._rows
        self._rows = {item: known.get(item) or self._read(item) for item in numbers}
        return np.frombuffer(b"".join([self._rows[item] for item in numbers]), np.uint8).reshape(-1, WIDTH)

    def _read(self, item: int) -> bytes:
        os.lseek(self._file, self._offset + item * WIDTH, os.SEEK_SET)
        row = os.read(self._file, WIDTH)
        if len(row) < WIDTH:
            raise BundleError("items.bin ended while it was read; fetch the bundle again")
        return row


class HistoryBuffer:
    """Holds one history.

    Args:
        model: Its longest history, its table and its behaviours.

    Attributes:
        length: Events that are held.
    """

    def __init__(self, model: ModelInfo) -> None:
        self._max_history, self._capacity, self._behavior_count = (
            model.max_history,
            model.capacity,
            len(model.behaviors),
        )
        self._items = np.zeros(model.max_history, np.int64)
        self._held, self._unsigned = self._items[:0], self._items[:0].view(np.uint64)
        self._behaviors = np.zeros(model.max_history, np.int64) if len(model.behaviors) > 1 else None
        self._table: TableFile | None = None
        self._codes = np.zeros((model.max_history, WIDTH), np.uint8)
        self._views: dict[int, dict[str, Any]] = {}
        self.length = 0

    def hold(self, items: Indexes, behaviors: Indexes | None = None) -> None:
        """Replace the history by the last Lmax events of another; see `Engine.scores` for arguments and errors."""
        length = min(len(items), self._max_history)
        if not length:
            raise ConfigError("the history is empty; without events there is nothing to encode")
        if length != len(self._held):
            self._held = self._items[:length]
            self._unsigned = self._held.view(np.uint64)
        held = self._held
        held[:] = items[-length:]
        # The graphs read below the table for negative indexes; seen as unsigned, those are large.
        np.putmask(held, self._unsigned >= self._capacity, 0)
        if self._behaviors is not None:
            self._behaviors[:length] = 0 if behaviors is None else self._checked(items, behaviors)[-length:]
        if self._table is not None:
            self._codes[:length] = self._table.rows(held)
        self.length = length

    def use_table(self, table: TableFile | None) -> None:
        """Keep the rows of the items, too, for a graph that takes these; None: no longer."""
        self._table = table
        if table is not None:
            self._codes[: self.length] = table.rows(self._items[: self.length])

    def held(self) -> tuple[Indexes, Indexes | None]:
        """Copies of the items and behaviours that are held; None where the bundle has one behaviour."""
        behaviors = None if self._behaviors is None else self._behaviors[: self.length].copy()
        return self._items[: self.length].copy(), behaviors

    def values(self) -> dict[str, Any]:
        """The history as inputs of a graph, by name: one set of `OrtValue`s for each length, made when first needed."""
        length = self.length
        if length not in self._views:
            values = {
                "items": ort.shared_value(self._items[None, :length]),
                "codes": ort.shared_value(self._codes[None, :length]),
            }
            if self._behaviors is not None:
                values["behaviors"] = ort.shared_value(self._behaviors[None, :length])
            self._views[length] = values
        return self._views[length]

    def _checked(self, items: Indexes, behaviors: Indexes) -> Indexes:
        if len(behaviors) != len(items):
            raise ConfigError(f"{len(items)} items but {len(behaviors)} behaviours; every event has one of each")
        if behaviors.min() < 0 or behaviors.max() >= self._behavior_count:
            raise ConfigError(f"a behaviour index is not among the bundle's {self._behavior_count} behaviours")
        return behaviors
