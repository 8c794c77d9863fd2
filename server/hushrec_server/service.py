"""The inside of the server: plain calls over one database, without HTTP, keys of envelopes, or threads of its own.

Every call may block on the database and on arithmetic. All are safe from any number of threads and processes. What a
device may be told is in its answer or in the reason of a `FleetError`; nothing of another device is ever in either.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hushrec_privacy.errors import EnrolmentError, FleetError, HushrecError, LedgerError, PlanError
from hushrec_privacy.ledger import Ledger
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.schema import UPDATE
from sqlalchemy import func, select

from hushrec_server.certificates import checked_certificate
from hushrec_server.database import Database
from hushrec_server.features import Payloads
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.logs import log_event
from hushrec_server.plans import Plans, PlanStatus, SignedPlan
from hushrec_server.publishing import Publisher, StoredResults
from hushrec_server.refusals import Reason, refusal
from hushrec_server.reporting import candidate_report, counts_report, plan_report, round_report
from hushrec_server.rounds import store
from hushrec_server.rounds.admission import Admission, CheckIn
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.rounds.closing import Closing
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.rounds.mailbox import Mailbox
from hushrec_server.rounds.progress import Progress
from hushrec_server.rounds.store import Key
from hushrec_server.rounds.watch import Watch
from hushrec_server.schema import ROUND

__all__ = ["FleetInfo", "FleetService", "FleetSettings"]

ROUNDS_SHOWN = 1_000


@dataclass(frozen=True)
class FleetSettings:
    """What a server is told from outside.

    Attributes:
        server: Its name, bound into every envelope.
        plan_key: Public half of the shop's plan key, 32 bytes.
        seal_key: Seals the noise of earlier rounds; from a file outside the database.
        key_set: Envelope keys, as they are signed, and their signature.
    """

    server: str
    plan_key: bytes
    seal_key: SealKey
    key_set: tuple[bytes, bytes] = (b"", b"")


@dataclass(frozen=True)
class FleetInfo:
    """What anyone may know.

    Attributes:
        server: The server's name.
        plans: Plans that have not ended, and their signatures.
        key_set: Envelope keys and their signature.
        authorities: Public keys that certify devices, as the plans name them.
        release: Model version of the newest release; 0: none.
        now: The server's clock, seconds since 1970-01-01 UTC.
    """

    server: str
    plans: tuple[tuple[bytes, bytes], ...]
    key_set: tuple[bytes, bytes]
    authorities: tuple[bytes, ...]
    release: int
    now: int


@dataclass
class FleetService:
    """See the module.

    Attributes:
        database: Open; it stays the caller's to close.
        settings: What the server is told.
        clock: Whole seconds since 1970-01-01 UTC.
        publisher: What happens to results; None: they stay in the database.
        aggregation: Secure aggregation; None: SecAgg+.

    Raises:
        LedgerError: The ledger is damaged, or older than the newest release: the database was set back.
        NoiseStateError: The seal key is not that of the open plans.
        StorageError: The database cannot be used.
    """

    database: Database
    settings: FleetSettings
    clock: Callable[[], int] = field(kw_only=True)
    publisher: Publisher | None = None
    aggregation: Aggregation | None = None

    def __post_init__(self) -> None:
        """Open the ledger, and check it against the newest release."""
        database, clock, seal_key = self.database, self.clock, self.settings.seal_key
        self._publisher = publisher = self.publisher or StoredResults()
        self._aggregation = aggregation = self.aggregation or _secure_aggregation()
        self.ledger = _ledger(database, publisher, clock)
        self._plans = Plans(database, self.ledger, plan_key=self.settings.plan_key, seal_key=seal_key, clock=clock)
        self._admission = Admission(database, self._plans, aggregation, clock)
        self._mailbox = Mailbox(database, self._plans, aggregation, clock)
        self._payloads = Payloads(database, self._plans, clock)
        self._watch = Watch(database, self._plans, clock)
        finishing = Finishing(
            database, aggregation, ledger=self.ledger, seal_key=seal_key, publisher=publisher, clock=clock
        )
        self._progress = Progress(database, self._plans, Closing(database, aggregation, clock), finishing, clock)

    def info(self) -> FleetInfo:
        """What anyone may know.

        Raises:
            StorageError: The database cannot be used.
        """
        plans = [signed for signed in self._plans.all() if signed.status is not PlanStatus.ENDED]
        return FleetInfo(
            server=self.settings.server,
            plans=tuple((signed.data, signed.signature) for signed in plans),
            key_set=self.settings.key_set,
            authorities=tuple(dict.fromkeys(bytes.fromhex(signed.plan.authority) for signed in plans)),
            release=self._publisher.newest().version,
            now=self.clock(),
        )

    def check(self) -> None:
        """For /readyz: whether the database, and nothing else, can be read and has room.

        Raises:
            HushrecError: It cannot be used, or is full; says what to do.
        """
        self._plans.all()
        self.database.check_room()

    def add_plan(self, data: bytes, signature: bytes) -> None:
        """Take a plan that the shop's plan key signed, and open it in the ledger; again is nothing.

        Raises:
            BudgetError: The ledger counts another unit or adjacency.
            LedgerError: The ledger cannot be written.
            PlanError: It is not signed by the shop, cannot be carried out, or states a wrong epsilon; or it is new, and
                all its rounds are over, or the newest release has another number of parameters.
            ReleaseError: The releases cannot be read.
            StorageError: The database cannot be used.
        """
        self._plans.add(data, signature, self._aggregation, self._publisher.check_plan)

    def plan(self, plan_id: str) -> SignedPlan:
        """A plan as it is now.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        with self.database.reading() as connection:
            return self._plans.get(connection, plan_id)

    def doubts(self) -> tuple[str, ...]:
        """For the operator: why open plans for updates get nowhere, what to do about it; empty: nothing is in the way.

        Raises:
            ReleaseError: The releases cannot be read.
            StorageError: The database cannot be used.
        """
        found = []
        for signed in self._plans.all():
            if signed.status is not PlanStatus.OPEN or signed.plan.purpose != UPDATE:
                continue
            name = signed.plan_id[:16]
            if not self._publisher.newest().bundle:
                found.append(
                    f"plan {name} trains, and devices get no release to start from: publish one with hushrec release, "
                    "and give this server its folder and the keys to publish; see docs/deployment.md, Releases"
                )
                continue
            try:
                self._publisher.check_plan(signed.plan)
            except PlanError as error:
                found.append(f"plan {name} gets no device: {error.message}")
        return tuple(found)

    def check_in(self, plan_id: str, pseudonym: str, certificate: bytes) -> CheckIn:
        """Give a device a place in the round that takes devices in, the same one if it asks again.

        Args:
            plan_id: Untrusted.
            pseudonym: Under which it appears in this plan. Untrusted.
            certificate: Of the plan's authority, for this pseudonym. Untrusted.

        Raises:
            EnrolmentError: The certificate is not right.
            FleetError: It gets no place; the reason says why, and when to come back.
            StorageError: The database cannot be used.
        """
        found = self.check_ins(plan_id, [(pseudonym, certificate)])[0]
        if isinstance(found, HushrecError):
            raise found
        return found

    def refused(self, plan_id: str, pseudonyms: Collection[str]) -> Mapping[str, FleetError]:
        """Which devices `check_ins` would refuse now, whatever their certificates; reads, and locks nothing.

        Args:
            plan_id: Untrusted.
            pseudonyms: 32 hexadecimal digits each, of anyone.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        return self._admission.refused(plan_id, pseudonyms)

    def check_ins(self, plan_id: str, asked: Sequence[tuple[str, bytes]]) -> list[CheckIn | HushrecError]:
        """`check_in` for many devices in one transaction: for each a place, durable on return, or its error.

        Args:
            plan_id: Untrusted.
            asked: Pseudonyms and certificates; a pseudonym that comes twice counts once. Untrusted.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        plan = self._plans.known(plan_id)
        authority = bytes.fromhex(plan.authority)
        answers, devices = dict[int, HushrecError](), dict[str, bytes]()
        for place, (pseudonym, certificate) in enumerate(asked):
            try:
                found = checked_certificate(certificate, authority, plan_id)
                if found.pseudonym != pseudonym:
                    raise EnrolmentError("the certificate is for another pseudonym; enrol again")
                devices.setdefault(pseudonym, found.identity)
            except EnrolmentError as error:
                answers[place] = error
        offered = self._publisher.candidate if plan.compares else self._publisher.newest
        places = self._admission.check_in(plan_id, devices, lambda: offered().bundle) if devices else {}
        return [answers[place] if place in answers else places[name] for place, (name, _) in enumerate(asked)]

    def identity(self, plan_id: str, round_number: int, pseudonym: str) -> bytes | None:
        """The public key that a device of a running round checked in with; None: it has no place in it.

        Raises:
            FleetError: There is no such round, or it is over.
            StorageError: The database cannot be used.
        """
        return self._mailbox.identity(Key(plan_id, round_number), pseudonym)

    def message_bytes(self, plan_id: str, round_number: int, phase: int) -> int:
        """Largest message of a phase of a running round.

        Raises:
            FleetError: There is no such round or phase, or it is over.
            StorageError: The database cannot be used.
        """
        return self._mailbox.message_bytes(Key(plan_id, round_number), phase)

    def upload(self, plan_id: str, round_number: int, phase: int, pseudonym: str, message: bytes) -> None:
        """Keep a message of a device; durable when it returns. The same bytes again are nothing.

        Raises:
            FleetError: It does not count; the reason says why.
            StorageError: The database cannot be used; the message may be kept.
        """
        self._mailbox.upload(Key(plan_id, round_number), phase, pseudonym, message)

    def reply(self, plan_id: str, round_number: int, phase: int, pseudonym: str) -> bytes | None:
        """What a closed phase has for a device; None: it is open still. After the last phase it is empty.

        Raises:
            FleetError: There will be nothing; the reason says why.
            StorageError: The database cannot be used.
        """
        return self._mailbox.reply(Key(plan_id, round_number), phase, pseudonym)

    def remember_nonces(self, plan_id: str, requests: Sequence[tuple[str, bytes, int]]) -> list[bool]:
        """Keep nonces for as long as their requests could be accepted; for each whether it is new.

        Args:
            plan_id: Of which plan.
            requests: Pseudonym, nonce, and stated time in seconds since 1970-01-01 UTC.

        Raises:
            StorageError: The database cannot be used.
        """
        return self._payloads.remember(plan_id, requests)

    def add_features(self, plan_id: str, name: str, pseudonym: str, values: bytes) -> None:
        """Keep a payload that a device sent by itself until it expires, in place of an earlier one of the device.

        Raises:
            FleetError: The plan is unknown, halted or ended, or has no such payload; or it is not of the plan's length.
            StorageError: The database cannot be used.
        """
        self._payloads.add(plan_id, name, pseudonym, values)

    def features(self, plan_id: str, name: str) -> Sequence[bytes]:
        """The payloads that have not expired, in no order that tells who sent them.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        return self._payloads.of(plan_id, name)

    def tick(self) -> float:
        """Do whatever is due; seconds until the next call makes sense.

        Raises:
            StorageError: The database cannot be used.
        """
        self._watch.look()
        self._payloads.expire()  # not after the rounds: a fault of one of them must not keep payloads beyond their time
        return self._progress.tick()

    def status(self) -> Mapping[str, object]:
        """What the operator sees: plans with their rounds by state and epsilon spent, the newest release, what waits.

        Raises:
            LedgerError: The ledger cannot be read.
            ReleaseError: The releases cannot be read.
            StorageError: The database cannot be used.
        """
        plans = self._plans.all()
        wanted = select(ROUND.c.plan, ROUND.c.state, func.count()).group_by(ROUND.c.plan, ROUND.c.state)
        with self.database.reading() as connection:
            rows = connection.execute(wanted).all()
        totals = self.ledger.totals()
        states: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for plan, state, count in rows:
            states[plan][state] = count
        waiting = defaultdict(int, self._watch.without_result())
        return {
            "plans": [
                plan_report(signed, totals.plans[signed.plan_id], states[signed.plan_id], waiting[signed.plan_id])
                for signed in plans
            ],
            "release": self._publisher.newest().version,
            "candidate": candidate_report(self._publisher.candidate(), plans),
            "ledger": str(totals.head),
        }

    def rounds(self, plan_id: str) -> Sequence[Mapping[str, object]]:
        """The newest thousand rounds of a plan, newest first.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        with self.database.reading() as connection:
            self._plans.get(connection, plan_id)
            return [round_report(round_) for round_ in store.newest(connection, plan_id, ROUNDS_SHOWN)]

    def abort(self, plan_id: str, round_number: int) -> None:
        """End a round without a result and erase its uploads; what was spent stays spent.

        Raises:
            FleetError: There is no such round, or it is too late.
            StorageError: The database cannot be used.
        """
        self.plan(plan_id)
        key = Key(plan_id, round_number)
        if self._progress.abort(key, "aborted by the shop"):
            return
        with self.database.reading() as connection:
            if store.read(connection, key) is None:
                raise FleetError(
                    f"there is no round {round_number} of this plan: one is there once a device has come to it",
                    reason="not-found",
                )
        raise refusal(Reason.TOO_LATE)

    def halt(self, plan_id: str, reason: str = "") -> None:
        """Open no further round of a plan; one that is running goes on.

        Raises:
            FleetError: The plan is unknown, or has ended.
            StorageError: The database cannot be used.
        """
        self._set(plan_id, PlanStatus.HALTED, reason)
        log_event("plan halted", plan=plan_id, reason=reason)

    def resume(self, plan_id: str) -> None:
        """Take back a halt.

        Raises:
            FleetError: The plan is unknown, or has ended.
            StorageError: The database cannot be used.
        """
        self._set(plan_id, PlanStatus.OPEN, "")
        log_event("plan resumed", plan=plan_id)

    def counts(self, plan_id: str) -> Mapping[str, object]:
        """The noised results of a plan for counts or features, by round, with the deviation of the noise in each.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        signed = self.plan(plan_id)
        with self.database.reading() as connection:
            return counts_report(connection, signed)

    def _set(self, plan_id: str, status: PlanStatus, reason: str) -> None:
        with self.database.transaction() as connection:
            if self._plans.get(connection, plan_id, lock=True).status is PlanStatus.ENDED:
                raise refusal(Reason.PLAN_ENDED)
            self._plans.change(connection, plan_id, status, reason)


def _ledger(database: Database, publisher: Publisher, clock: Callable[[], int]) -> Ledger:
    """The server's one ledger, begun if this is a new database; checked against what the newest release says of it."""
    ledger_store, anchor = DatabaseLedgerStore(database), publisher.anchor()
    if anchor is None and next(iter(ledger_store.scan()), None) is None:
        try:
            return Ledger.begin(ledger_store, clock=clock)
        except LedgerError:
            if next(iter(ledger_store.scan()), None) is None:
                raise
            # Another process began it at the same moment.
    try:
        return Ledger(ledger_store, anchor=anchor, clock=clock)
    except LedgerError as error:
        Ledger(ledger_store, clock=clock)  # raises if it is damaged, whatever a release says
        raise LedgerError(
            f"{error.message}. The anchor is that of {publisher.anchored_by()}: see docs/runbook.md, A database was "
            "restored, also if that release is none of this fleet's"
        ) from error


def _secure_aggregation() -> Aggregation:
    from hushrec_server.rounds.secagg import SecAggPlus

    return SecAggPlus()
