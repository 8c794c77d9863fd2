"""What ties the files of a finished private run to its ledger: a folder put together from two runs makes no bundle.

Against mistakes, such as one file restored from a backup of another run. Whoever can write into the folder can still
make it say anything.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hushrec_privacy.accounting import Guarantee
from hushrec_privacy.errors import CheckpointError
from hushrec_privacy.ledger import SqliteLedgerStore, verify
from hushrec_privacy.ledger.openings import guarantee_after

__all__ = ["check_private_folder", "file_hashes"]

_ROUNDING = 1e-9  # of an epsilon, on other machines


def file_hashes(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """sha256 of some files of a folder, in hexadecimal.

    Raises:
        CheckpointError: One cannot be read.
    """
    found = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                f"{folder / name}: cannot be read ({error.strerror}); restore it, or its rights"
            ) from error
    return found


def check_private_folder(folder: Path, ledger: str, hashes: Mapping[str, str], stated: Mapping[str, Any]) -> None:
    """Refuse a folder whose files are not those of its run, or that states more privacy than its ledger gives.

    Args:
        folder: Of the run.
        ledger: Name of its ledger.
        hashes: sha256 by name of the files that the run made.
        stated: The guarantee as run.json has it, with its `run`.

    Raises:
        CheckpointError: A file is another one, or the ledger does not give what is stated.
        LedgerError: The ledger is missing or damaged.
    """
    for name, found in file_hashes(folder, tuple(hashes)).items():
        if found != hashes[name]:
            raise CheckpointError(f"{folder / name}: is not what this private run made; restore it from a backup of it")
    with SqliteLedgerStore(folder / ledger, read_only=True) as store:
        plan = verify(store).plans.get(str(stated["run"]))
    if plan is None:
        raise CheckpointError(f"{folder / ledger}: is not the ledger of this run; restore it from a backup of the run")
    if not _covers(stated, guarantee_after(plan.opened, plan.rounds, plan.last)):
        raise CheckpointError(
            f"{folder}: run.json states more privacy than its ledger gives; restore both from one backup of the run"
        )


def _covers(stated: Mapping[str, Any], given: Guarantee) -> bool:
    same = all(stated[name] == getattr(given, name) for name in ("delta", "unit", "adjacency"))
    return same and given.epsilon <= float(stated["epsilon"]) * (1 + _ROUNDING)
