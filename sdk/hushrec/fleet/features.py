"""Vectors that the app gives: most wait for a round and are summed with those of others; some are sent by themselves.

A vector of a plan's schema waits in memory until a round of that plan takes it: it is sent once, and only within a sum.
A direct payload is another matter: the server sees it. It needs consent of its own, by name, and carries noise of its
own, which is on the device's record, durably, before the first byte leaves. Nothing here is ever written to disk: what
was not sent when the app ends, the app gives again.
"""

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from hushrec_privacy.errors import ConfigError, FleetError
from hushrec_privacy.ledger import ParticipationRecord
from hushrec_privacy.ledger.device_cost import direct_opening, participation_rho
from hushrec_privacy.mechanisms.local_noise import LocalNoise
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import DirectPayload
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec.federated_counts import is_counted
from hushrec.fleet.gate import NO_CONSENT
from hushrec.fleet.joining import Accepted

__all__ = ["Features", "Noised"]

MOST_DIRECT_BYTES = 15_000
"""What fits into the envelope of a direct payload."""

Vector = NDArray[np.float32]


class Noised(NamedTuple):
    """A direct payload that may leave.

    Attributes:
        accepted: Its plan.
        name: Of the payload.
        values: float32, little endian.
    """

    accepted: Accepted
    name: str
    values: bytes


class Features:
    """What the app gave and was not sent yet; safe to use from several threads.

    Args:
        record: Gives the record of this device, opened.
        limits: Of this device.
    """

    def __init__(self, record: Callable[[], ParticipationRecord], limits: DeviceLimits) -> None:
        self._record, self._limits, self._source = record, limits, OsRandom()
        self._lock = threading.Lock()
        self._waiting: dict[str, Vector] = {}
        self._direct: dict[str, tuple[Accepted, DirectPayload, Vector]] = {}
        self._noised: Noised | None = None
        self._allowed: set[str] = set()

    def allow(self, name: str, agreed: bool) -> None:
        """Keep whether the shopper agrees that a direct payload is sent; a withdrawal drops one that waits."""
        with self._lock:
            if agreed is True:
                self._allowed.add(name)
                return
            self._allowed.discard(name)
            self._direct.pop(name, None)
            if self._noised is not None and self._noised.name == name:
                self._noised = None

    def give(self, name: str, vector: NDArray[np.floating], plans: Mapping[str, Accepted]) -> bool:
        """Take a vector for the next round of a plan that names it, or for being sent by itself.

        Args:
            name: Of a segment or a direct payload; a later vector replaces one that waits.
            vector: Of the length that the plan says, in its own unit. Private.
            plans: That this device may join.

        Returns:
            Whether it will be sent by itself.

        Raises:
            ConfigError: No plan has this name, or the vector has another length.
            FleetError: It would be sent by itself and the shopper did not agree to that ("no-consent").
        """
        for accepted in plans.values():
            for row in accepted.plan.direct:
                if row.name == name:
                    self._give_direct(accepted, row, _checked(name, vector, row.length))
                    return True
            for segment in accepted.plan.schema:
                if segment.name == name and _of_app(accepted.plan, name):
                    with self._lock:
                        self._waiting[name] = _checked(name, vector, segment.length)
                    return False
        raise ConfigError(f"no plan of this fleet asks for {name!r}; nothing is kept or sent")

    def waiting(self, plan: Plan) -> dict[str, Vector]:
        """The vectors that wait for a round of a plan, by name; another plan's of another length are not among them."""
        lengths = {segment.name: segment.length for segment in plan.schema if _of_app(plan, segment.name)}
        with self._lock:
            return {name: vector for name, vector in self._waiting.items() if lengths.get(name) == len(vector)}

    def taken(self, vectors: Mapping[str, Vector]) -> None:
        """A round took these, as `waiting` gave them; what the app gave since waits on."""
        with self._lock:
            for name, vector in vectors.items():
                if self._waiting.get(name) is vector:
                    del self._waiting[name]

    def next_plan(self) -> Accepted | None:
        """The plan of the direct payload that is sent next; None: there is none."""
        with self._lock:
            if self._noised is not None:
                return self._noised.accepted
            return next((accepted for accepted, _, _ in self._direct.values()), None)

    def next_noised(self) -> Noised | None:
        """Spend and noise the next direct payload; the same bytes until `sent`, so that no noise is drawn twice.

        Raises:
            BudgetError: It was sent as often as it may, or the lifetime limit is reached; it is dropped.
            LedgerError: The record cannot be written; nothing may be sent.
        """
        with self._lock:
            if self._noised is None and self._direct:
                name = next(iter(self._direct))
                accepted, row, vector = self._direct.pop(name)
                self._spend(accepted, row)
                noise = LocalNoise(row.length, float(row.clip), float(row.epsilon), float(row.delta))
                values = noise.read(noise.release(vector, self._source)).astype("<f4").tobytes()
                self._noised = Noised(accepted, name, values)
            return self._noised

    def sent(self) -> None:
        """The direct payload has left, or never will."""
        with self._lock:
            self._noised = None

    def forget(self) -> None:
        """Drop all that waits, and all consent to direct payloads."""
        with self._lock:
            self._waiting.clear()
            self._direct.clear()
            self._allowed.clear()
            self._noised = None

    def _give_direct(self, accepted: Accepted, row: DirectPayload, vector: Vector) -> None:
        if 4 * row.length > MOST_DIRECT_BYTES:
            raise ConfigError(f"{row.name!r} has {row.length} numbers; {MOST_DIRECT_BYTES // 4} fit into an envelope")
        with self._lock:
            if row.name not in self._allowed:
                raise FleetError(
                    f"{row.name!r} would be sent by itself, and the shopper did not agree to that", reason=NO_CONSENT
                )
            self._direct[row.name] = accepted, row, vector

    def _spend(self, accepted: Accepted, row: DirectPayload) -> None:
        opened = direct_opening(accepted.plan, row.name, self._limits)
        record = self._record()
        record.join(opened)
        spent = record.totals().plans[opened.plan]
        rho = participation_rho(opened, spent.rounds)
        record.participate(opened.plan, spent.last + 1, rho=rho)


def _of_app(plan: Plan, name: str) -> bool:
    """Whether the app fills a segment of this name."""
    return plan.purpose == "features" or (plan.purpose == "counts" and not is_counted(name))


def _checked(name: str, vector: NDArray[np.floating], length: int) -> Vector:
    if np.shape(vector) != (length,):
        raise ConfigError(f"{name!r} has shape {np.shape(vector)}; the plan says {length} numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite there, and sent as zeros
        return np.array(vector, np.float32)
