"""The device runtime of hushrec: recommendations computed on the shopper's own device.

    with hushrec.Recommender.open("shop.hush", profile="shopper.profile") as rec:
        rec.observe("mug-17")
        for found in rec.recommend(k=10):
            print(found.item, found.score, found.reason.code)

Importing this loads nothing but the list below; each name loads its module when it is first used.
"""

import _thread
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hushrec_privacy.errors import (
        BudgetError,
        BundleError,
        CatalogError,
        CheckpointError,
        ConfigError,
        DataError,
        EnrolmentError,
        EnvelopeError,
        FleetError,
        HushrecError,
        LedgerError,
        NoiseStateError,
        PlanError,
        ProfileError,
        ReleaseError,
        SecAggError,
        StorageError,
        ToleranceError,
        VaultError,
    )

    from hushrec.bundle import Bundle, write_bundle
    from hushrec.catalog import Catalog, Item
    from hushrec.engine import Engine
    from hushrec.packing import pack, unpack
    from hushrec.profile import Profile
    from hushrec.reasons import Reason, ReasonCode
    from hushrec.recommender import Recommendation, Recommender

__all__ = [
    "BudgetError",
    "Bundle",
    "BundleError",
    "Catalog",
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Engine",
    "EnrolmentError",
    "EnvelopeError",
    "FleetError",
    "HushrecError",
    "Item",
    "LedgerError",
    "NoiseStateError",
    "PlanError",
    "Profile",
    "ProfileError",
    "Reason",
    "ReasonCode",
    "Recommendation",
    "Recommender",
    "ReleaseError",
    "SecAggError",
    "StorageError",
    "ToleranceError",
    "VaultError",
    "pack",
    "unpack",
    "write_bundle",
]

_SPIN_TIME = "OPENBLAS_THREAD_TIMEOUT"  # read by OpenBLAS when it is loaded
_HOMES = {
    "hushrec.bundle": ("Bundle", "write_bundle"),
    "hushrec.catalog": ("Catalog", "Item"),
    "hushrec.engine": ("Engine",),
    "hushrec.packing": ("pack", "unpack"),
    "hushrec.profile": ("Profile",),
    "hushrec.reasons": ("Reason", "ReasonCode"),
    "hushrec.recommender": ("Recommendation", "Recommender"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_first = _thread.allocate_lock()  # taken by who loads NumPy, and never given back


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'hushrec' has no attribute {name!r}")
    home = _HOME.get(name)
    if home and "numpy" not in sys.modules and _first.acquire(blocking=False):
        with _unscanned():
            _load_numpy()
            importlib.import_module(home)
    value: object = getattr(importlib.import_module(home or "hushrec_privacy.errors"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@contextlib.contextmanager
def _unscanned() -> Iterator[None]:
    """Keep the garbage collector from what imports make: 38,000 objects that stay. Searching them takes a tenth of a
    start, while they are made and, all at once, as soon as it is on again; so all young objects of the process go among
    the old ones unsearched.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else the program froze objects of its own, and they stay frozen
            gc.freeze()
            gc.unfreeze()
        if collecting:
            gc.enable()


def _load_numpy() -> None:
    """Load NumPy so that the threads of its OpenBLAS sleep when idle.

    They would spin for 2**26 cycles first, which delays the start of a small program on a busy machine by a third. They
    stay as many as they were, and a program that set the time itself keeps its own.
    """
    if _SPIN_TIME in os.environ:
        return
    os.environ[_SPIN_TIME] = "4"  # 2**4 cycles, the least there is
    try:
        importlib.import_module("numpy")
    finally:
        del os.environ[_SPIN_TIME]
