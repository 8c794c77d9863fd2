"""What `killed_server.py` checks: after each kill, after each round, and at the end."""

import io
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from hushrec_privacy.ledger import Anchor, Spend, history, verify
from hushrec_privacy.mechanisms.seal import RowPlace, open_row
from hushrec_privacy.plans.plan import Plan
from hushrec_server.database import Database
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.publishing import RoundResult
from hushrec_server.rounds.states import State
from hushrec_server.schema import FEATURE, MESSAGE, NOISE_ROW, RESULT, ROUND, ROWS_OF_DEVICES
from killed_server_process import NOTES
from killed_server_shop import LEASE_S, Shop, Watcher
from numpy.typing import NDArray
from sqlalchemy import func, select

__all__ = ["Checks", "Facts"]

EXPLAINED = ("done", "round-over", "round-aborted", "dropped-out", "phase-closed")
"""Why a device leaves a round: the last three where time that a dead process cost was more than a phase has."""

_FAULT = re.compile(r'"event": "bug"|"status": 50[0-2]|^Traceback')


@dataclass
class Facts:
    """What was found; every field from `lost` on is a fault unless it is 0.

    Attributes:
        kills: How many processes were killed in each state, and how many in each step; a step lies inside a state.
        ways: How many stood still at a moment, had just passed one, or were killed at any time.
        rounds: How many rounds began.
        published: How many were published, each with its exact sum.
        refused: How many rounds of training made a model that devices refused.
        aborted: How many were given up, those included.
        spent: Rounds in the ledger.
        acknowledged: Uploads that were acknowledged.
        looks: How often the device read the repository.
        reasons: Why devices left rounds, and how often.
        lost: Acknowledged uploads that were not in the database, or masked vectors not in their sum.
        doubled: Vectors that were in a sum twice or that nobody sent, and places that two devices had.
        split: Rounds of which two sums, two sets of survivors or two sessions were made.
        unpaid: Rounds noised that the ledger does not hold, or holds twice.
        changed: Rounds published with two values or twice; models offered, let out or refused that should not be, or
            not what the sum makes; noise of no round.
        unreadable: How often the device could not read the repository, or did not find what is newest.
        overdue: Leases that were longer than documented.
        turned_away: How often a device left a round for a reason that no kill explains.
        crashed: Faults in the servers' logs that no code foresees.
        left: Rounds that never ended, and rows of devices that were not erased.
    """

    kills: dict[str, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    published: int = 0
    refused: int = 0
    aborted: int = 0
    spent: int = 0
    acknowledged: int = 0
    looks: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    split: int = 0
    unpaid: int = 0
    changed: int = 0
    unreadable: int = 0
    overdue: int = 0
    turned_away: int = 0
    crashed: int = 0
    left: int = 0

    @property
    def moments(self) -> int:
        """How many processes were killed."""
        return sum(self.ways.values())

    @property
    def faults(self) -> dict[str, int]:
        """The faults by name."""
        names = list(asdict(self))
        return {name: getattr(self, name) for name in names[names.index("lost") :]}


class Checks:
    """Compares what devices were told with what is stored and published.

    Attributes:
        found: So far.
        acknowledged: Round, phase and place of each upload that a server acknowledged.
    """

    def __init__(self, shop: Shop, database: Database, watcher: Watcher) -> None:
        self.found, self.acknowledged = Facts(), set[tuple[int, int, int]]()
        self._shop, self._database, self._watcher, self._lock = shop, database, watcher, threading.Lock()
        self._waiting: RoundResult | None = None

    def acknowledge(self, number: int, phase: int, place: int) -> None:
        """An upload was acknowledged."""
        with self._lock:
            self.acknowledged.add((number, phase, place))
            self.found.acknowledged += 1

    def after_kill(self, number: int) -> None:
        """What holds at every moment."""
        with self._database.reading() as connection:
            leases = connection.execute(select(ROUND.c.lease_until).where(ROUND.c.ended_at.is_(None))).scalars().all()
        self.found.overdue += sum(lease > self._shop.clock() + LEASE_S for lease in leases)
        self.uploads(number)
        self._watcher.look()

    def uploads(self, number: int) -> None:
        """Every acknowledged upload of a running round is stored."""
        with self._lock:
            mine = {(phase, place) for each, phase, place in self.acknowledged if each == number}
        wanted = select(ROUND.c.state).where(ROUND.c.number == number)
        with self._database.reading() as connection:
            state = connection.execute(wanted).scalar()
            kept = {(row.phase, row.place) for row in connection.execute(select(MESSAGE.c.phase, MESSAGE.c.place))}
        with self._database.reading() as connection:  # PostgreSQL shows each statement the newest rows
            same = state == connection.execute(wanted).scalar()
        if same and state not in (None, State.NOISED, State.ERASED, State.PUBLISHED, State.ABORTED):
            self.found.lost += len(mine - kept)

    def result(self, plan: Plan, number: int, vectors: Mapping[int, NDArray[np.int64]]) -> None:
        """What a round came to that has ended, or waits.

        Args:
            plan: Of the round.
            number: Of the round.
            vectors: What each place handed in, if it came so far.
        """
        sums, files = (_notes(self._shop.folder / name, number) for name in NOTES)
        with self._database.reading() as connection:
            round_ = connection.execute(select(ROUND).where(ROUND.c.number == number)).one()
            result = connection.execute(select(RESULT).where(RESULT.c.number == number)).first()
        self.found.split += max(0, len(sums) - 1)
        noised = None if result is None else files.get(result.sha256.hex())
        stored, given, done = result is not None, len(files), round_.state in (State.PUBLISHED, State.ERASED)
        self.found.changed += given > 1 or not (stored == (noised is not None) == bool(given) == done)
        if result is None or noised is None:
            return
        sent = {place for each, phase, place in self.acknowledged if (each, phase) == (number, State.MASK.phase)}
        right = np.sum([vectors[place] for place in sent], axis=0)
        for data in sums.values():
            note = np.load(io.BytesIO(data))
            counted = set(note["survivors"].tolist())
            self.found.lost += len(sent - counted)
            self.found.doubled += len(counted - sent) + (not np.array_equal(note["sum"], right))
            self.found.split += result.survivors != len(counted)
        lattice = np.frombuffer(noised, "<i8").astype(np.int64)
        if not plan.compares:  # whose rounds leave no noise behind
            self.found.doubled += not np.array_equal(lattice - self._noise(plan, number), right << plan.lattice_bits)
        told = RoundResult(plan, number, round_.release, lattice, result.survivors, Anchor.parse(result.anchor))
        self._decided(told) if plan.compares else self._offered(told)

    def end(self, rounds: int) -> Facts:
        """Everything that is checked at the end."""
        found, store = self.found, DatabaseLedgerStore(self._database)
        verify(store)
        spent = [entry.first for _, entry in history(store) if isinstance(entry, Spend)]
        with self._database.reading() as connection:
            results = set(connection.execute(select(RESULT.c.number)).scalars())
            noise = set(connection.execute(select(NOISE_ROW.c.round)).scalars())
            states = connection.execute(select(ROUND.c.state, ROUND.c.ended_at)).all()
            done = ROUND.c.plan == self._shop.comparing.plan_id, ROUND.c.state == State.PUBLISHED
            compared = connection.execute(select(ROUND.c.number).where(*done)).all()
            left = [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (*ROWS_OF_DEVICES, FEATURE)
            ]
        found.rounds, found.spent, found.looks = rounds, len(spent), self._watcher.looks
        found.published = sum(state == State.PUBLISHED for state, _ in states)
        found.aborted = sum(state == State.ABORTED for state, _ in states)
        found.unpaid += len(results - set(spent)) + len(spent) - len(set(spent))
        out = found.published - len(compared) + 1
        found.changed += len(noise - results) + (len(self._shop.releases.list()) != out)
        found.unreadable += len(self._watcher.refused)
        found.turned_away = sum(count for reason, count in found.reasons.items() if reason not in EXPLAINED)
        logs = [path.read_text().splitlines() for path in self._shop.folder.glob("server-*.log")]
        found.crashed = sum(bool(_FAULT.search(line)) for lines in logs for line in lines)
        found.left = sum(left) + sum(ended is None for _, ended in states)
        return found

    def _noise(self, plan: Plan, number: int) -> NDArray[np.int64]:
        """The noise of a round, which only the holder of the seal key can read."""
        with self._database.reading() as connection:
            row = connection.execute(select(NOISE_ROW).where(NOISE_ROW.c.round == number)).one()
        where = RowPlace(plan.plan_id, number, row.previous, plan.coordinates)
        return open_row(self._shop.seal_key(), bytes(row.sealed), where)

    def _offered(self, told: RoundResult) -> None:
        """A round of training: its model is the candidate, and the release in use is what it was."""
        undisturbed = self._shop.undisturbed
        self.found.changed += told.release != undisturbed.newest().bundle
        undisturbed.publish(told)
        self._waiting = told
        self._compare_offers(undisturbed.newest().bundle, undisturbed.candidate().bundle)

    def _decided(self, told: RoundResult) -> None:
        """A round that compares: the candidate is out or gone, and the round that made it is published or not."""
        undisturbed, waiting = self._shop.undisturbed, self._waiting
        self.found.changed += waiting is None or told.release != undisturbed.candidate().bundle
        if waiting is None:
            return
        undisturbed.publish(told)
        refused = undisturbed.publish(waiting).refused
        right = (State.ABORTED, refused[:200]) if refused else (State.PUBLISHED, "")
        with self._database.reading() as connection:
            row = connection.execute(select(ROUND).where(ROUND.c.number == waiting.number)).one()
        self.found.changed += (row.state, row.reason) != right
        self.found.refused += bool(refused)
        self._waiting = None
        self._compare_offers(undisturbed.newest().bundle, "")

    def _compare_offers(self, release: str, candidate: str) -> None:
        """What the repository holds, and what the device sees, is this."""
        releases, staged = self._shop.releases.list(), self._shop.releases.candidate()
        self.found.changed += releases[-1].bundle != release or ("" if staged is None else staged.bundle) != candidate
        self.found.unreadable += self._watcher.look() != (release, candidate)


def _notes(folder: Path, number: int) -> dict[str, bytes]:
    """The values that servers noted of a round, by their hash."""
    return {path.stem[9:]: path.read_bytes() for path in folder.glob(f"{number:08}-*.note")}
