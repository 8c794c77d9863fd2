"""What the HTTP side asks of the fleet's inside, `hushrec_server.service.FleetService`.

Plain calls that may block on the database and on arithmetic: never made on the event loop. Times are whole seconds
since 1970-01-01 UTC. A refusal is a `FleetError` with its reason, and `retry_after_s` where coming back makes sense.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from hushrec_privacy.errors import FleetError, HushrecError

__all__ = ["Fleet", "FleetInfo", "Place"]


class FleetInfo(Protocol):
    """What anyone may know: see `hushrec.messages.FleetAnswer`."""

    @property
    def server(self) -> str:
        """The server's name."""

    @property
    def plans(self) -> Sequence[tuple[bytes, bytes]]:
        """Plans and their signatures."""

    @property
    def key_set(self) -> tuple[bytes, bytes]:
        """The envelope keys and their signature."""

    @property
    def authorities(self) -> Sequence[bytes]:
        """Public keys that certify devices."""

    @property
    def release(self) -> int:
        """Model version of the newest release; 0: none."""

    @property
    def now(self) -> int:
        """The server's clock."""


class Place(Protocol):
    """A device's place in a round: see `hushrec.messages.CheckInAnswer`."""

    @property
    def round_number(self) -> int:
        """The round."""

    @property
    def index(self) -> int:
        """The device's place in it."""

    @property
    def session(self) -> bytes:
        """The session of secure aggregation."""

    @property
    def release(self) -> str:
        """sha256 of the bundle it starts from; of a plan that compares, of the candidate."""

    @property
    def deadline_at(self) -> int:
        """When the open phase closes."""


class Fleet(Protocol):
    """The inside of the server."""

    def info(self) -> FleetInfo:
        """What anyone may know."""

    def add_plan(self, data: bytes, signature: bytes) -> None:
        """Take a plan that the shop's plan key signed; again is nothing."""

    def refused(self, plan_id: str, pseudonyms: Collection[str]) -> Mapping[str, FleetError]:
        """Which devices would get no place now, whoever they are: those without one when none is given."""

    def check_ins(self, plan_id: str, asked: Sequence[tuple[str, bytes]]) -> Sequence[Place | HushrecError]:
        """Give devices (pseudonym, certificate) places in the round that is open, the same ones if they ask again."""

    def identity(self, plan_id: str, round_number: int, pseudonym: str) -> bytes | None:
        """The public key that a device of a running round checked in with; None: it has no place in it.

        Refused for a round that does not run, or not any more: that is no secret.
        """

    def remember_nonces(self, plan_id: str, requests: Sequence[tuple[str, bytes, int]]) -> Sequence[bool]:
        """Keep (pseudonym, nonce, stated time) as long as the time could be accepted; for each whether it is new."""

    def message_bytes(self, plan_id: str, round_number: int, phase: int) -> int:
        """Largest message of a phase of a running round; refused for a round that does not run, or not any more."""

    def upload(self, plan_id: str, round_number: int, phase: int, pseudonym: str, message: bytes) -> None:
        """Keep a message; durable when it returns, and the same bytes again are nothing."""

    def reply(self, plan_id: str, round_number: int, phase: int, pseudonym: str) -> bytes | None:
        """What a closed phase has for a device; None: it is open still."""

    def add_features(self, plan_id: str, name: str, pseudonym: str, values: bytes) -> None:
        """Keep a direct feature payload until it expires, in place of an earlier one of the device."""

    def features(self, plan_id: str, name: str) -> Sequence[bytes]:
        """The direct payloads that have not expired, in no order that tells who sent them."""

    def tick(self) -> float:
        """Do whatever is due; seconds until the next call is needed."""

    def status(self) -> Mapping[str, object]:
        """What the operator sees: plans, their rounds by state, epsilon spent, the newest release, what waits."""

    def rounds(self, plan_id: str) -> Sequence[Mapping[str, object]]:
        """The rounds of a plan, newest first."""

    def abort(self, plan_id: str, round_number: int) -> None:
        """End a round without a result."""

    def halt(self, plan_id: str, reason: str = "") -> None:
        """Open no further round of a plan; one that is running goes on."""

    def resume(self, plan_id: str) -> None:
        """Take back a halt."""

    def counts(self, plan_id: str) -> Mapping[str, object]:
        """Noised counters of a plan of purpose "counts"."""
