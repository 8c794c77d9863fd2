"""Taking part in a shop's fleet: a device learns with others, and nobody sees what it alone has learned.

Needs the extra `fleet`. Importing this loads nothing; each name loads its module when it is first used.

client         `FleetClient`, which wires the rest
settings       what an app fixes: trust, folder, limits
fleet_file     whose plans, certificates and releases an app believes
conditions     when a device may work; gate: the one place that lets a message pass
participant    between and inside rounds, one thing a step
joining        which plans and rounds a device joins, each refusal with a name
round_run      one round: six messages of secure aggregation
contribution   what a device adds to a round; features: what the app gives
server         sealed, signed requests; http: one request and its bounds
membership     identity and certificate; models: the bundle in use, and what is compared with it
agenda         which plan is asked next; pacing, backoff: how often; clocks: whatever is done to the clock
folder         files and their lock; worker: the background thread
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hushrec.fleet.client import FleetClient, FleetStatus
    from hushrec.fleet.conditions import Conditions, Require
    from hushrec.fleet.fleet_file import FleetFile
    from hushrec.fleet.participant import Refusal
    from hushrec.fleet.settings import FleetSettings

__all__ = ["Conditions", "FleetClient", "FleetFile", "FleetSettings", "FleetStatus", "Refusal", "Require"]

_HOMES = {
    "Conditions": "conditions",
    "FleetClient": "client",
    "FleetFile": "fleet_file",
    "FleetSettings": "settings",
    "FleetStatus": "client",
    "Refusal": "participant",
    "Require": "conditions",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hushrec.fleet' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"hushrec.fleet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
