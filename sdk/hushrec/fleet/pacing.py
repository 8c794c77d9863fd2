"""How often a device asks, derived from the plan's time from round to round and from nothing else."""

from dataclasses import dataclass

from hushrec.fleet.backoff import Backoff

__all__ = ["Pace"]

LONGEST_POLL_S = 30.0
SHORTEST_POLL_S = 0.05
LEAST_PATIENCE_S = 60
WORK = 0.06
"""Share of a round: as long as the server waits for the shares at most, and less than it waits for vectors after."""


@dataclass(frozen=True)
class Pace:
    """Waits for a plan whose rounds start `round_seconds` apart.

    >>> pace = Pace(3600)
    >>> pace.poll_s, pace.patience_s
    ((6.0, 30.0), 7200)
    """

    round_seconds: int

    @property
    def poll_s(self) -> tuple[float, float]:
        """Shortest and longest wait between two questions for a reply: a 600th and a 60th of the time of a round."""
        least = min(max(self.round_seconds / 600, SHORTEST_POLL_S), LONGEST_POLL_S)
        return least, max(least, min(self.round_seconds / 60, LONGEST_POLL_S))

    @property
    def patience_s(self) -> int:
        """A device leaves a round that is not over so long after it checked in."""
        return max(2 * self.round_seconds, LEAST_PATIENCE_S)

    @property
    def work_s(self) -> float:
        """A device is silent so long after its shares have left, so that nobody sees how long its work took."""
        return WORK * self.round_seconds

    def polls(self) -> Backoff:
        """Waits for a reply that is not there yet."""
        least, most = self.poll_s
        return Backoff(least_s=least, most_s=most)

    def retries(self) -> Backoff:
        """Waits after a request that failed inside a round: never so long that a phase is missed by it alone."""
        least, most = self.poll_s
        return Backoff(least_s=least, most_s=2 * most)

    def check_ins(self) -> Backoff:
        """Waits between check-ins that gave no place, and after rounds that came to nothing."""
        return Backoff(least_s=4 * self.poll_s[0], most_s=max(float(self.round_seconds), 4 * self.poll_s[0]))
