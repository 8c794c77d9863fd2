"""The state of a run on disk: written beside its final name and renamed, read without running code from the file."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hushrec_privacy.errors import CheckpointError
from numpy.typing import NDArray

__all__ = ["fingerprint", "load_state", "save_state"]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a kill leaves the old file or the new one, never half of one.

    Args:
        path: Final name; a sibling ending in `.part` exists while writing.
        state: Tensors, numbers, strings, lists and dicts.

    Raises:
        CheckpointError: The disk is full or refuses; an earlier file of that name is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error}); make room or choose another folder") from error


def load_state(path: Path, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a state.

    Args:
        path: A file of `save_state`.
        identity: What the run must have been made with; None accepts any.

    Raises:
        CheckpointError: The file is damaged, or its identity differs.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train first") from error
    except PermissionError as error:
        raise CheckpointError(f"{path}: may not be read; give yourself the right to") from error
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); restore it, or delete it and train again"
        ) from error
    if identity is not None and found != identity:
        changed = ", ".join(key for key in identity if found.get(key) != identity[key])
        raise CheckpointError(
            f"{path}: this run was started with other {changed or 'settings'}; continue it with the same data and "
            "options, or choose another folder"
        )
    return state


def fingerprint(*arrays: NDArray[np.generic] | None) -> str:
    """sha256 over types, shapes and values, in hexadecimal.

    >>> fingerprint(np.zeros(2, np.int8)) == fingerprint(np.zeros(1, np.int16))
    False
    """
    whole = hashlib.sha256()
    for array in arrays:
        if array is None:
            whole.update(b"none ")
        else:
            whole.update(f"{array.dtype} {array.shape} ".encode())
            whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
