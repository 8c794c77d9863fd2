"""States on disk: read back as written, refused when damaged or foreign, and never run as code."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hushrec_model.checkpoint import fingerprint, load_state, save_state
from hushrec_privacy.errors import CheckpointError

STATE = {"identity": {"settings": {"seed": 1}}, "weights": torch.arange(5.0), "rng": 2**100, "history": [{"loss": 0.5}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_state(tmp_path / "state.pt", STATE)
    return tmp_path / "state.pt"


def test_a_state_comes_back_as_it_was_and_nothing_else_is_left(path: Path) -> None:
    found = load_state(path, STATE["identity"])  # type: ignore[arg-type]
    assert torch.equal(found.pop("weights"), torch.arange(5.0))
    assert found == {name: value for name, value in STATE.items() if name != "weights"}
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_a_new_state_replaces_the_old_one(path: Path) -> None:
    save_state(path, {"identity": {}, "epoch": 2})
    assert load_state(path) == {"identity": {}, "epoch": 2}


def test_a_missing_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint; train first"):
        load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_state_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint .*; restore it, or delete it"):
        load_state(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"\x00" * 500),
        lambda path: path.write_text("hello", encoding="utf-8"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"weights": torch.ones(2)}, path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["zeros", "text", "a list", "no identity", "a folder"],
)
def test_what_is_no_state_is_refused(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_state(path)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_state_with_code_in_it_is_refused_and_the_code_not_run(
    path: Path, save: Callable[[object, Path], object]
) -> None:
    victim = path.with_name("victim")
    save({"identity": {}, "bomb": _Bomb(victim)}, path)
    with pytest.raises(CheckpointError):
        load_state(path)
    assert not victim.exists()


def test_a_foreign_identity_names_what_differs(path: Path) -> None:
    with pytest.raises(CheckpointError, match="started with other settings; continue"):
        load_state(path, {"settings": {"seed": 2}})
    with pytest.raises(CheckpointError, match="started with other data; continue"):
        load_state(path, {"settings": {"seed": 1}, "data": "x"})


def test_a_fingerprint_tells_values_types_shapes_and_order_apart() -> None:
    one, two = np.arange(4, dtype=np.int32), np.arange(4, 8, dtype=np.int32)
    prints = [
        fingerprint(one, two),
        fingerprint(two, one),
        fingerprint(one.astype(np.int64), two),
        fingerprint(one.reshape(2, 2), two),
        fingerprint(np.concatenate([one, two])),
        fingerprint(one, two, None),
        fingerprint(one, None, two),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(one, two) == prints[0]
    every_other = np.arange(8, dtype=np.int32)[::2]
    assert fingerprint(every_other) == fingerprint(every_other.copy())
