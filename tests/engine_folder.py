"""The files of an engine in a folder, without a bundle around them."""

from pathlib import Path
from typing import Any

import numpy as np
from hushrec.manifest import Manifest, ModelInfo
from hushrec.tables import WIDTH, items_layout
from numpy.typing import NDArray


class Folder:
    """What `hushrec.engine.EngineBundle` asks for, of one layer and a history of 8."""

    def __init__(self, root: Path, items: int, capacity: int) -> None:
        self._root, self._capacity = root, capacity
        model = ModelInfo(
            width=WIDTH, layers=1, max_history=8, items=items, capacity=capacity, filter_seen=False, times=False
        )
        self.manifest = Manifest(model=model, arrays={})

    def path(self, name: str) -> Path:
        """Path of a file."""
        return self._root / name

    def array(self, name: str) -> NDArray[Any]:
        """A mapped array of the item table."""
        layout, file = items_layout(self._capacity), self._root / "items.bin"
        if name == "items.codes":
            return np.memmap(file, np.uint8, "r", layout.codes_offset, (self._capacity, WIDTH))
        return np.memmap(file, "<f4", "r", layout.scale_offset, (1,))
