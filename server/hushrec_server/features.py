"""What devices send by themselves: kept until it expires, one payload a device and name, handed to the shop by name.

The server sees these payloads; each carries noise that its device added (see `hushrec_privacy.plans.schema`). Also the
nonces of requests, which are kept for as long as a request could be sent again.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from sqlalchemy import delete, select

from hushrec_server.database import Database, insert_several_new, put
from hushrec_server.plans import Plans, PlanStatus
from hushrec_server.refusals import Reason, refusal
from hushrec_server.schema import FEATURE, NONCE

__all__ = ["NONCE_S", "Payloads"]

NONCE_S = 600
"""How long a nonce is kept after the time that its request states: longer than any request is accepted."""

_DAY_S = 86_400


class Payloads:
    """Payloads and nonces of one database. Safe to use from several threads and processes."""

    def __init__(self, database: Database, plans: Plans, clock: Callable[[], int]) -> None:
        self._database, self._plans, self._clock = database, plans, clock

    def remember(self, plan_id: str, requests: Sequence[tuple[str, bytes, int]]) -> list[bool]:
        """Keep nonces; for each whether it is new. False: it was there already, or stands earlier in the list.

        Args:
            plan_id: Of which plan.
            requests: Pseudonym, nonce, and the time that the request states, in seconds since 1970-01-01 UTC.

        Raises:
            StorageError: The database cannot be used.
        """
        until: dict[tuple[str, bytes], int] = {}
        for pseudonym, nonce, at_s in requests:  # the first is the one that is new; another's time must not count
            until.setdefault((pseudonym, nonce), at_s + NONCE_S)
        names = sorted(until)  # in one order, so that processes with the same ones do not wait for each other in a ring
        rows = [
            {"plan": plan_id, "pseudonym": pseudonym, "nonce": nonce, "expires_at": until[pseudonym, nonce]}
            for pseudonym, nonce in names
        ]
        with self._database.hasty() as connection:
            added = insert_several_new(connection, NONCE, rows)
        new = {name for name, is_new in zip(names, added, strict=True) if is_new}
        answers = []
        for pseudonym, nonce, _ in requests:
            answers.append((pseudonym, nonce) in new)
            new.discard((pseudonym, nonce))
        return answers

    def add(self, plan_id: str, name: str, pseudonym: str, values: bytes) -> None:
        """Keep a payload in place of an earlier one of the device; durable on return.

        Raises:
            FleetError: The plan is unknown, has ended, or has no such payload; or it is not as long as the plan says,
                or holds what is no number.
            StorageError: The database cannot be used.
        """
        with self._database.transaction() as connection:
            signed = self._plans.get(connection, plan_id)
            if signed.status is PlanStatus.ENDED:
                raise refusal(Reason.PLAN_ENDED)
            if signed.status is PlanStatus.HALTED:
                raise refusal(Reason.PLAN_HALTED, signed.plan.round_seconds)
            wanted = next((row for row in signed.plan.direct if row.name == name), None)
            if wanted is None:
                raise refusal(Reason.UNKNOWN_FEATURE)
            if not _is_vector(values, wanted.length):  # one of them would spoil what the shop makes of all
                raise refusal(Reason.BAD_MESSAGE)
            key = {"plan": plan_id, "name": name, "pseudonym": pseudonym}
            put(connection, FEATURE, **key, body=values, expires_at=self._clock() + wanted.keep_days * _DAY_S)

    def of(self, plan_id: str, name: str) -> tuple[bytes, ...]:
        """The payloads that have not expired, in an order that tells nothing of who sent them.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        wanted = select(FEATURE.c.body).where(FEATURE.c.plan == plan_id, FEATURE.c.name == name)
        with self._database.reading() as connection:
            self._plans.get(connection, plan_id)
            found = connection.execute(wanted.where(FEATURE.c.expires_at > self._clock())).scalars().all()
        return tuple(sorted(map(bytes, found), key=lambda body: hashlib.sha256(body).digest()))

    def expire(self) -> None:
        """Delete what has expired.

        Raises:
            StorageError: The database cannot be used.
        """
        for table in (NONCE, FEATURE):
            old = table.c.expires_at <= self._clock()
            with self._database.reading() as connection:
                none = connection.execute(select(table.c.expires_at).where(old).limit(1)).first() is None
            if not none:
                with self._database.transaction() as connection:
                    connection.execute(delete(table).where(old))
                if table is FEATURE:  # what a device was promised to be deleted then
                    self._database.forget()


def _is_vector(values: bytes, length: int) -> bool:
    """Whether these are so many float32, little endian, all of them finite."""
    return len(values) == 4 * length and bool(np.isfinite(np.frombuffer(values, "<f4")).all())
