"""When a device may work for the fleet: what the app says of the moment, and what of it is needed.

Looked at anew before every message and at every batch of training. The rule, in one place (`allowed`):

- Before the masked vector has left, every needed condition must hold. When one ends, training stops within a batch and
  the device leaves the round; nothing was spent.
- After it has left, two small messages (a few kilobytes) are still to come, and the sum of all the others depends on
  them. They may go over any network, metered or not. The other needed conditions still count; while they do not hold
  the device waits, and leaves when the round is over.
- Consent is no condition: without it nothing is ever sent, whatever was begun (see `gate`).
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ConditionSource", "Conditions", "Require", "allowed"]


@dataclass(frozen=True)
class Conditions:
    """What the app knows of this moment.

    Attributes:
        idle: Nobody uses the device.
        charging: It is on a charger.
        unmetered: Its network costs nothing by volume.
    """

    idle: bool
    charging: bool
    unmetered: bool


@dataclass(frozen=True)
class Require:
    """Which conditions are needed; all of them unless the app says otherwise.

    Attributes:
        idle: See `Conditions`.
        charging: See `Conditions`.
        unmetered: See `Conditions`.
    """

    idle: bool = True
    charging: bool = True
    unmetered: bool = True


ConditionSource = Callable[[], Conditions]
"""What an app gives: called often, from the fleet's own thread; must return at once."""


def allowed(now: Conditions, need: Require, *, masked: bool = False) -> bool:
    """Whether the device may work now.

    Args:
        now: What the app says.
        need: What it needs.
        masked: The masked vector of a round has left; only small messages are to come.

    >>> allowed(Conditions(idle=True, charging=True, unmetered=False), Require())
    False
    >>> allowed(Conditions(idle=True, charging=True, unmetered=False), Require(), masked=True)
    True
    """
    return (
        (now.idle or not need.idle)
        and (now.charging or not need.charging)
        and (now.unmetered or not need.unmetered or masked)
    )
