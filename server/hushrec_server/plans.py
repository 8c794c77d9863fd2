"""The plans of a server: accepted once, signed, opened in the ledger before their first round; open, halted or ended.

A plan's bytes never change, so each process reads them once. Its status is read anew each time.
"""

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hushrec_privacy.errors import BudgetError, LedgerError, NoiseStateError, PlanError, SecAggError, StorageError
from hushrec_privacy.ledger import Ledger
from hushrec_privacy.ledger.openings import plan_opening
from hushrec_privacy.mechanisms.banded import NoisePlan
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.signing import verified_plan
from hushrec_privacy.plans.timing import check_not_over
from sqlalchemy import Connection, bindparam, select, update

from hushrec_server.database import Database, insert_new
from hushrec_server.logs import log_progress
from hushrec_server.noise_rows import begin_plan
from hushrec_server.refusals import Reason, refusal
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.schema import PLAN

__all__ = ["PlanStatus", "Plans", "SignedPlan", "check_seal", "noise_plan", "seal_fingerprint"]

_FINGERPRINT = b"hushrec seal key fingerprint 1\0"
_PLAN_ID = re.compile("[0-9a-f]{64}")
_STATUS = select(PLAN.c.status, PLAN.c.reason).where(PLAN.c.plan == bindparam("plan"))
_WHOLE = _STATUS.add_columns(PLAN.c.data, PLAN.c.signature)


class PlanStatus(StrEnum):
    """What a plan is doing."""

    OPEN = "open"
    HALTED = "halted"
    ENDED = "ended"


@dataclass(frozen=True)
class SignedPlan:
    """A plan as devices get it.

    Attributes:
        plan_id: sha256 of its bytes.
        plan: What it says.
        data: Its bytes.
        signature: By the shop's plan key.
        status: As it was when this was read.
        reason: Why it was halted, for the operator; also as it was then.
    """

    plan_id: str
    plan: Plan
    data: bytes
    signature: bytes
    status: PlanStatus
    reason: str = ""


class Plans:
    """All plans of one database. Safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        *,
        plan_key: bytes,
        seal_key: SealKey,
        clock: Callable[[], int],
    ) -> None:
        """Read and check what is there.

        Raises:
            NoiseStateError: An open plan's noise was sealed with another key.
            StorageError: The database cannot be used.
        """
        self._database, self._ledger, self._clock = database, ledger, clock
        self._plan_key, self._seal = plan_key, seal_fingerprint(seal_key)
        self._known: dict[str, SignedPlan] = {}
        self._lock = threading.Lock()
        check_seal(database, self._seal)

    def add(self, data: bytes, signature: bytes, aggregation: Aggregation, fits: Callable[[Plan], None]) -> str:
        """Accept a plan. One that is there already is left as it is, so that this can be repeated after a crash.

        Args:
            data: Its bytes. Untrusted.
            signature: Of the shop's plan key. Untrusted.
            aggregation: Must be able to carry it out.
            fits: Raises PlanError if it does not fit what devices have; asked of a new plan only.

        Returns:
            Its id.

        Raises:
            BudgetError: The ledger counts another unit or adjacency.
            LedgerError: The ledger cannot be written.
            PlanError: It is not signed by the shop, cannot be carried out, or states a wrong epsilon; or it is new, and
                all its rounds are over, or it does not fit.
            StorageError: The database cannot be used.
        """
        plan = verified_plan(data, signature, self._plan_key)
        with self._database.reading() as connection:
            known = connection.execute(_STATUS, {"plan": plan.plan_id}).first() is not None
        if not known:
            check_not_over(plan, self._clock())
            fits(plan)
        if not plan.authority:
            raise PlanError("the plan names no authority, so nobody could take part; plan anew")
        try:
            aggregation.session(plan, 1)
        except SecAggError as error:
            raise PlanError(f"the plan cannot be carried out: {error.message}") from error
        self._open(plan)
        noise = noise_plan(plan)
        with self._database.transaction() as connection:
            begin_plan(connection, plan.plan_id, dimension=noise.dimension, bands=noise.bands)
            new = insert_new(
                connection,
                PLAN,
                plan=plan.plan_id,
                data=data,
                signature=signature,
                seal=self._seal,
                status=PlanStatus.OPEN,
                reason="",
                added_at=self._clock(),
            )
        if new:
            demo = {"demo": "DEMO, protects nobody"} if plan.demo else {}
            log_progress("plan added", plan=plan.plan_id, purpose=plan.purpose, **demo)
        return plan.plan_id

    def get(self, connection: Connection, plan_id: str, *, lock: bool = False) -> SignedPlan:
        """A plan as it is now.

        Args:
            connection: An open transaction.
            plan_id: Which one. Untrusted.
            lock: Keep others from doing so until the transaction ends.

        Raises:
            FleetError: There is none; reason `unknown-plan`.
        """
        if not _PLAN_ID.fullmatch(plan_id):  # a database may refuse what no id can be, such as a NUL, as a fault
            raise refusal(Reason.UNKNOWN_PLAN)
        known = self._known.get(plan_id)
        wanted = _STATUS if known else _WHOLE
        found = connection.execute(wanted.with_for_update() if lock else wanted, {"plan": plan_id}).first()
        if found is None:
            raise refusal(Reason.UNKNOWN_PLAN)
        if known is None:
            known = self._remember(plan_id, bytes(found.data), bytes(found.signature))
        return SignedPlan(plan_id, known.plan, known.data, known.signature, PlanStatus(found.status), found.reason)

    def known(self, plan_id: str) -> Plan:
        """A plan itself, which never changes: whether it is open, `get` tells.

        Raises:
            FleetError: There is none; reason `unknown-plan`.
            StorageError: The database cannot be used.
        """
        known = self._known.get(plan_id)
        if known is None:
            with self._database.reading() as connection:
                known = self.get(connection, plan_id)
        return known.plan

    def all(self) -> tuple[SignedPlan, ...]:
        """All plans, the oldest first."""
        with self._database.reading() as connection:
            names = connection.execute(select(PLAN.c.plan).order_by(PLAN.c.added_at, PLAN.c.plan)).scalars().all()
            return tuple(self.get(connection, name) for name in names)

    def change(self, connection: Connection, plan_id: str, status: PlanStatus, reason: str = "") -> None:
        """Set the status of a plan; one that has ended stays so."""
        wanted = update(PLAN).where(PLAN.c.plan == plan_id, PLAN.c.status != PlanStatus.ENDED)
        connection.execute(wanted.values(status=status, reason=reason[:200]))

    def _open(self, plan: Plan) -> None:
        """Open a plan in the ledger; what keeps the database from it passes, so it is told as what it is."""
        try:
            try:
                self._ledger.open_plan(plan_opening(plan))
            except BudgetError:  # another process opened it at this moment; it is the same plan, or this raises again
                self._ledger.open_plan(plan_opening(plan))
        except LedgerError as error:
            if isinstance(error.__cause__, StorageError):
                raise StorageError(error.message) from error
            raise

    def _remember(self, plan_id: str, data: bytes, signature: bytes) -> SignedPlan:
        plan = verified_plan(data, signature, self._plan_key)
        if plan.plan_id != plan_id:
            raise PlanError("a plan in the database is not the one whose id it has; restore the database")
        found = SignedPlan(plan_id, plan, data, signature, PlanStatus.OPEN)
        with self._lock:
            self._known[plan_id] = found
        return found


def noise_plan(plan: Plan) -> NoisePlan:
    """The part of a plan that its noise depends on."""
    return NoisePlan(plan.plan_id, plan.coordinates, plan.bands, plan.rounds, plan.noise_deviation)


def check_seal(database: Database, fingerprint: bytes | None) -> None:
    """Refuse a seal key with which the noise of open plans cannot be gone on with.

    Args:
        database: With the plans.
        fingerprint: Of the key; None: there is none, and a new one would fit no plan that is open.

    Raises:
        NoiseStateError: A plan that has not ended was sealed with another one.
        StorageError: The database cannot be used.
    """
    wanted = select(PLAN.c.seal).where(PLAN.c.status != PlanStatus.ENDED)
    with database.reading() as connection:
        fits = all(bytes(seal) == fingerprint for seal in connection.execute(wanted).scalars())
    if not fits:
        what = "missing" if fingerprint is None else "not the one that it was"
        raise NoiseStateError(
            f"the seal key is {what}, and the noise of an open plan was sealed with it; put that seal.key back into "
            "the data folder, or see docs/runbook.md, A key is lost"
        )


def seal_fingerprint(key: SealKey) -> bytes:
    """What tells one seal key from another, and nothing about either: 8 bytes of a hash."""
    return hashlib.sha256(_FINGERPRINT + key.reveal()).digest()[:8]
