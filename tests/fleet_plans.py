"""Plans of all three kinds, for tests of what devices send."""

from typing import Any

from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import DirectPayload, Segment, Vector

__all__ = ["AUTHORITY", "COUNTS", "FEATURES", "a_fleet_plan"]

AUTHORITY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""Public key of RFC 8032, section 7.1, test 1."""

COUNTS = Vector(
    "counts",
    (
        Segment("trending", 40, "3", "which items were looked at this week", 7),
        Segment("evaluation", 3, "4", "how well the model would have guessed what you took last"),
        Segment("visits", 1, "7", "how often the app was opened"),
    ),
)

FEATURES = Vector(
    "features",
    (Segment("interests", 16, "1", "how much you like each category"),),
    (DirectPayload("user-vector", 8, "1", "to choose what the start page shows", "4", "0.000001", 5, 30),),
)


def a_fleet_plan(**changes: Any) -> Plan:
    """A plan of 200 devices a round, an update unless a `vector` is given."""
    wanted = {"population": 20_000, "cohort": 200, "rounds": 20, "delta": 1e-6, "noise_multiplier": 4.0}
    found = make_plan(Request(**{"authority": AUTHORITY, **wanted, **changes}))
    assert found is not None
    return found
