"""Prepared events come back as they were, or not at all."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hushrec_model.items import Items
from hushrec_model.prepared import load_prepared, save_prepared
from hushrec_privacy.errors import CheckpointError

from tests.small_log import small_log

LOG = replace(
    small_log([("u", "a", 3), ("v", "b", 1), ("u", "b", 2)], sessions=[0, 1, 0], listed="ca"),
    behaviors=("view", "cart"),
)
ITEMS = Items(
    title=["Cup", None, "B"],
    price=np.array([1.5, np.nan, 2]),
    attributes={"category": [("x", "y"), (), ("x",)], "id": [("1",), ("2",), ()]},
    vectors=np.arange(6, dtype=np.float32).reshape(3, 2),
)


def assert_same(one: object, two: object) -> None:
    for field in fields(one):  # type: ignore[arg-type]  # both are dataclasses
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("log", [LOG, replace(LOG, time=None, session=None)], ids=["times", "no times"])
@pytest.mark.parametrize("items", [ITEMS, replace(ITEMS, attributes={}, vectors=None)], ids=["all", "titles"])
def test_what_was_saved_comes_back(tmp_path: Path, log: object, items: object) -> None:
    sha256 = save_prepared(tmp_path / "prepared", log, items)  # type: ignore[arg-type]  # as parametrised
    loaded_log, loaded_items = load_prepared(tmp_path / "prepared", sha256)
    assert_same(loaded_log, log)
    assert_same(loaded_items, items)


def test_saving_twice_gives_the_same_hash_and_other_events_another(tmp_path: Path) -> None:
    first = save_prepared(tmp_path / "prepared", LOG, ITEMS)
    assert save_prepared(tmp_path / "prepared", LOG, ITEMS) == first
    assert save_prepared(tmp_path / "prepared", LOG, replace(ITEMS, title=["Mug", None, "B"])) != first


@pytest.mark.parametrize("name", ["events.parquet", "users.parquet", "items.parquet", "vectors.npy", "log.json"])
def test_a_changed_shortened_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    sha256 = save_prepared(tmp_path, LOG, ITEMS)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:-1], whole + b"\n", bytes([whole[0] ^ 1]) + whole[1:], b""):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="have changed since training; train again"):
            load_prepared(tmp_path, sha256)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"are not there \(No such file or directory\); train again"):
        load_prepared(tmp_path, sha256)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="the prepared events cannot be written: Not a directory"):
        save_prepared(tmp_path / "file" / "prepared", LOG, ITEMS)
