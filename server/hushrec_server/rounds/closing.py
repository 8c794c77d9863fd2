"""What counts in a phase, and its answers.

First a round is marked as closing, in a transaction of its own: from then on no message of that phase is taken, so that
whoever computes the answers computes the same ones. They become visible together with the next state.
"""

from collections.abc import Callable

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.plans.plan import Plan

from hushrec_server.database import Database
from hushrec_server.rounds import store
from hushrec_server.rounds.aggregation import Aggregation, Closed
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import PHASES
from hushrec_server.rounds.store import Round

__all__ = ["Closing", "is_complete"]


class Closing:
    """Closes phases that were marked as closing."""

    def __init__(self, database: Database, aggregation: Aggregation, clock: Callable[[], int]) -> None:
        self._database, self._aggregation, self._clock = database, aggregation, clock

    def close(self, round_: Round, plan: Plan) -> None:
        """Compute the answers of the phase, and go on to the next one. Whoever is first does it for all.

        Raises:
            SecAggError: Too few devices are left; nothing was changed.
            StorageError: The database cannot be used.
        """
        phase = PHASES.index(round_.state) + 1
        closed, left = self._closed(round_, phase)
        if phase < len(PHASES) and left < plan.min_cohort:
            raise SecAggError(f"{left} devices were left at the end of {round_.state}: too few for the plan")
        after = round_.state.after
        with self._database.transaction() as connection:
            found = store.locked(connection, round_.key)
            if found is None or found.state is not round_.state or not found.closing:
                return
            store.add_phase(connection, round_.key, phase, closed)
            deadline = self._clock() + Schedule(plan).seconds(after)
            values = {"state": after, "closing": False, "expected": left, "lease_until": 0, "deadline_at": deadline}
            store.change(connection, round_.key, **values)

    def _closed(self, round_: Round, phase: int) -> tuple[Closed, int]:
        """What the phase comes to, and how many devices are left."""
        with self._database.reading() as connection:
            if phase == len(PHASES):  # nothing is answered: `finishing` reads what was revealed
                return Closed(b"", {}, None), store.counted(connection, round_.key, phase)
            state = store.phase_state(connection, round_.key, phase - 1)
        messages = store.bodies(self._database, round_.key, phase)
        closed = self._aggregation.close(round_.session, phase, state or b"", messages)
        return closed, len(closed.replies)


def is_complete(round_: Round, count: int, now: int) -> bool:
    """Whether an open phase waits for nothing more: all its messages are there, or its time is over."""
    return round_.closing or count >= round_.expected or now >= round_.deadline_at
