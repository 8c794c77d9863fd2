"""Plans with made-up ids, for tests of the ledger."""

import hashlib
from typing import Any

from hushrec_privacy.ledger import Limits, Open

__all__ = ["made_up_plan", "plan_id"]


def plan_id(name: str) -> str:
    """An id as a plan's would look."""
    return hashlib.sha256(name.encode()).hexdigest()


def made_up_plan(name: str = "plan", *, limits: Limits | None = None, **changed: Any) -> Open:
    """A plan of 2,000 rounds without further limits, unless told otherwise."""
    fields = {
        "mechanism": "banded-toeplitz",
        "parameters": {"rounds": 2000, "bands": 200, "noise_multiplier": "8.35"},
        "unit": "device",
        "adjacency": "zero-out",
        "delta": "0.000001",
        "trust": "central",
        **changed,
    }
    return Open(plan_id(name), limits=limits or Limits(max_rounds=2000), **fields)
