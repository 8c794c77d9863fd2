"""The next bundle of a model: the last one's graphs and tables, with all that devices trained taken from the master.

Only `encoder.bin`, `params.bin` and, where tables or item vectors changed, `features.bin` and `items.bin` are new; what
is the same byte by byte need not be fetched again. Rounding needs NumPy alone.
"""

import os
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec.bundle import Bundle, write_bundle
from hushrec.federated.layout import PARAMS
from hushrec.federated.master import Master
from hushrec.federated.start import Start
from hushrec.weights.packed import RoundedItems, round_encoder, round_items

__all__ = ["CHANGED_FILES", "write_release"]

CHANGED_FILES = ("encoder.bin", "items.bin", "params.bin", "features.bin")
"""The files that a release may bring anew."""


def write_release(
    old: Bundle,
    out: str | os.PathLike[str],
    master: Master,
    *,
    card: Mapping[str, Any],
    origins: Mapping[str, str],
) -> Bundle:
    """Write the bundle of a master, with the model version after the last one's.

    A master that nothing changed gives the old files byte by byte, to the last bits of this machine's products.

    Args:
        old: The last release, of the same architecture and catalogue.
        out: Where to write it; not `old`.
        master: All that is trained.
        card: The model card; its headline is replaced if the origins allow none.
        origins: Origin of each of `CHANGED_FILES` that the bundle has. Another file keeps its own unless it is named,
            as it must be where one guarantee over several runs covers it, too.

    Raises:
        BundleError: It cannot be written, or would not be read back.
        ConfigError: The master does not fit the bundle, a weight is not finite, or a file has no origin.
    """
    changing = [name for name in CHANGED_FILES if name in old.manifest.files]
    if not set(changing) <= set(origins) <= set(old.manifest.files):
        raise ConfigError(f"a release needs an origin for each of {', '.join(changing)}, and for no file that it lacks")
    items = _items(old, master)
    weights = master.weights()
    content: dict[str, Any] = {name: old.path(name) for name in old.manifest.files}
    content["items.bin"] = items.pack(old.manifest.model.capacity)
    content["encoder.bin"] = round_encoder(weights, items)
    arrays = {PARAMS + name: array for name, array in weights.arrays().items()}
    arrays[PARAMS + "lengths"] = master.lengths
    content["params.bin"] = _rewritten(old, "params.bin", arrays)
    if master.tables:
        content["features.bin"] = _rewritten(old, "features.bin", master.tables)
    manifest = msgspec.structs.replace(
        old.manifest, model_version=old.manifest.model_version + 1, card=dict(card), files={}
    )
    kept = {name: info.origin for name, info in old.manifest.files.items()}
    return write_bundle(out, manifest, content, {**kept, **origins})


def _items(old: Bundle, master: Master) -> RoundedItems:
    """The master's item table in int8; a vector that did not change keeps its row."""
    start, rows = Start.of(old), old.manifest.model.items + 1
    if master.turned.shape != (rows, old.manifest.model.width):
        raise ConfigError(f"the master has {len(master.turned) - 1} items, the bundle {rows - 1}; use its own bundle")
    kept = RoundedItems(start.codes[:rows], start.scale, start.rotation)
    same = (master.turned == kept.turned()).all(axis=1)
    if same.all():
        return kept
    rounded = round_items(master.weights(), master.turned @ master.rotation.T, kept)
    return rounded._replace(codes=np.where(same[:, None], kept.codes, rounded.codes))


def _rewritten(old: Bundle, file: str, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A file of the bundle with other values at the same places."""
    content = bytearray(old.path(file).read_bytes())
    for name, array in arrays.items():
        info = old.manifest.arrays.get(name)
        if info is None or info.file != file or info.shape != array.shape:
            raise ConfigError(f"the master's {name} does not fit the bundle's; use the bundle that it was made for")
        content[info.offset : info.offset + array.nbytes] = np.ascontiguousarray(array, "<f4").tobytes()
    return bytes(content)
