"""What a round can be. Six phases that wait for devices, four steps of the server's own, two ends.

    advertise → choose → share → mask → agree → reveal → summed → noised → erased → published
        └─────────┴────────┴───────┴───────┴───────┴────────┴→ aborted

From `summed` on the set of uploads is fixed. A round that was spent in the ledger and aborted stays spent.
"""

from enum import StrEnum

__all__ = ["ENDED", "PHASES", "State", "state_of"]


class State(StrEnum):
    """State of a round, as it is stored."""

    ADVERTISE = "advertise"
    CHOOSE = "choose"
    SHARE = "share"
    MASK = "mask"
    AGREE = "agree"
    REVEAL = "reveal"
    SUMMED = "summed"
    NOISED = "noised"
    ERASED = "erased"
    PUBLISHED = "published"
    ABORTED = "aborted"

    @property
    def phase(self) -> int | None:
        """Number of the phase of secure aggregation that is open; None: no device is waited for.

        >>> State.MASK.phase
        4
        """
        return PHASES.index(self) + 1 if self in PHASES else None

    @property
    def after(self) -> "State":
        """What follows if all goes well.

        >>> State.REVEAL.after
        <State.SUMMED: 'summed'>
        """
        return _ORDER[_ORDER.index(self) + 1]


PHASES = (State.ADVERTISE, State.CHOOSE, State.SHARE, State.MASK, State.AGREE, State.REVEAL)
ENDED = (State.PUBLISHED, State.ABORTED)
_ORDER = tuple(state for state in State if state is not State.ABORTED)


def state_of(phase: int) -> State:
    """The state in which a phase is open.

    Args:
        phase: 1 to 6.
    """
    return PHASES[phase - 1]
