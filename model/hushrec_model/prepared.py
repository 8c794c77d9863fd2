"""Keep a log and its items beside a trained model, so that later steps work on the very same events.

A folder of Parquet files and one JSON file. The sha256 over all of them is what the training folder remembers.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
from hushrec_privacy.errors import CheckpointError

from hushrec_model.items import Items
from hushrec_model.log import Log

__all__ = ["load_prepared", "save_prepared"]

_EVENTS, _USERS, _ITEMS, _VECTORS, _FACTS = (
    "events.parquet",
    "users.parquet",
    "items.parquet",
    "vectors.npy",
    "log.json",
)
_FILES = (_EVENTS, _USERS, _ITEMS, _VECTORS, _FACTS)


def save_prepared(folder: Path, log: Log, items: Items) -> str:
    """Write a log and its items into a folder, made if missing.

    Args:
        folder: Where to; files of an earlier save are replaced.
        log: All events.
        items: Their items, in the log's order.

    Returns:
        The sha256 to load them by, 64 hexadecimal digits.

    Raises:
        CheckpointError: The folder cannot be written to.
    """
    facts = {
        "format": 1,
        "listed": log.listed,
        "behaviors": list(log.behaviors),
        "attributes": list(items.attributes),
        "vectors": items.vectors is not None,
        "price_from_events": items.price_from_events,
    }
    columns = {"user": log.user, "item": log.item, "behavior": log.behavior, "time": log.time, "session": log.session}
    events = pl.DataFrame({name: values for name, values in columns.items() if values is not None} | {"row": log.row})
    described = pl.DataFrame({"id": log.items, "title": items.title, "price": items.price}).with_columns(
        pl.Series(f"attribute {n}", values, dtype=pl.List(pl.String))
        for n, values in enumerate(items.attributes.values())
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        events.write_parquet(folder / _EVENTS, compression="zstd")
        pl.DataFrame({"user": log.users}, schema={"user": pl.String}).write_parquet(folder / _USERS, compression="zstd")
        described.cast({"id": pl.String, "title": pl.String}).write_parquet(folder / _ITEMS, compression="zstd")
        np.save(folder / _VECTORS, items.vectors if items.vectors is not None else np.zeros((0, 0), np.float32))
        (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return _fingerprint(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: the prepared events cannot be written: {error.strerror or error}") from error


def load_prepared(folder: Path, sha256: str) -> tuple[Log, Items]:
    """Read what `save_prepared` wrote.

    Args:
        folder: The folder.
        sha256: What `save_prepared` returned.

    Raises:
        CheckpointError: The folder or a file of it is missing, or any byte has changed.
    """
    try:
        found = _fingerprint(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the prepared events are not there ({error.strerror or error}); train again"
        ) from error
    if found != sha256:
        raise CheckpointError(f"{folder}: the prepared events have changed since training; train again")
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    events = pl.read_parquet(folder / _EVENTS)
    described = pl.read_parquet(folder / _ITEMS)
    log = Log(
        users=pl.read_parquet(folder / _USERS)["user"].to_list(),
        items=described["id"].to_list(),
        listed=facts["listed"],
        behaviors=tuple(facts["behaviors"]),
        user=events["user"].to_numpy(),
        item=events["item"].to_numpy(),
        behavior=events["behavior"].to_numpy(),
        time=events["time"].to_numpy() if "time" in events.columns else None,
        session=events["session"].to_numpy() if "session" in events.columns else None,
        row=events["row"].to_numpy(),
    )
    items = Items(
        title=described["title"].to_list(),
        price=described["price"].to_numpy(),
        attributes={
            name: [tuple(values) for values in described[f"attribute {n}"].to_list()]
            for n, name in enumerate(facts["attributes"])
        },
        vectors=np.load(folder / _VECTORS, allow_pickle=False) if facts["vectors"] else None,
        price_from_events=facts.get("price_from_events", True),
    )
    return log, items


def _fingerprint(folder: Path) -> str:
    """One hash over the hashes of all files, in a fixed order."""
    whole = hashlib.sha256()
    for name in _FILES:
        with (folder / name).open("rb") as file:
            whole.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
