"""From the fixed set of uploads to a published result, each step durable before the next (DESIGN: learning together).

(1) the round is spent in the ledger, whatever follows; (2) one transaction: noise state, noised sum, round := noised;
(3) uploads and shares are erased; (4) it is published. The raw sum exists in this process's memory only, between its
computation and the end of step 2. Whoever dies in between leaves the uploads, from which the next process computes the
same sum, and draws new noise over it; nothing of the first was ever stored.
"""

import contextlib
import hashlib
from collections.abc import Callable

import numpy as np
from hushrec_privacy.encoding.sums import to_lattice
from hushrec_privacy.errors import BudgetError, ConfigError, SecAggError
from hushrec_privacy.ledger import Anchor, Ledger
from hushrec_privacy.mechanisms.banded import BandedNoise
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select, update

from hushrec_server.database import Database
from hushrec_server.noise_rows import DatabaseNoiseStore
from hushrec_server.plans import noise_plan
from hushrec_server.publishing import Publisher, RoundResult, Verdict
from hushrec_server.rounds import store
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.rounds.states import State
from hushrec_server.rounds.store import Round
from hushrec_server.schema import RESULT

__all__ = ["Finishing"]

_MASKED, _AGREED, _REVEALED = State.MASK.phase or 0, State.AGREE.phase or 0, State.REVEAL.phase or 0


class Finishing:
    """The steps after the last phase."""

    def __init__(
        self,
        database: Database,
        aggregation: Aggregation,
        *,
        ledger: Ledger,
        seal_key: SealKey,
        publisher: Publisher,
        clock: Callable[[], int],
    ) -> None:
        self._database, self._aggregation, self._clock = database, aggregation, clock
        self._ledger, self._seal_key, self._publisher = ledger, seal_key, publisher
        self._noise, self._source = DatabaseNoiseStore(database), OsRandom()

    def spend_and_noise(self, round_: Round, plan: Plan) -> None:
        """Steps 1 and 2.

        Raises:
            BudgetError: The ledger holds a later round, or the round was published: this database was set back.
            LedgerError: The ledger cannot be used.
            NoiseStateError: The sealed noise cannot be used.
            SecAggError: Too few devices helped to unmask, or the sum is none of this plan's; nothing was spent.
            StorageError: The database cannot be used.
        """
        raw, survivors = self._raw_sum(round_, plan)
        try:
            anchor = self._spend(round_)
            self._add_noise(round_, plan, raw, survivors=survivors, anchor=anchor)
        finally:
            raw.fill(0)

    def erase(self, round_: Round) -> None:
        """Step 3.

        Raises:
            StorageError: The database cannot be used.
        """
        store.erase(self._database, round_.key)
        self._database.forget()
        with self._database.transaction() as connection:
            self._advance(connection, round_)

    def publish(self, round_: Round, plan: Plan) -> Verdict:
        """Step 4.

        Returns:
            What became of the result; a round whose result waits stays where it is.

        Raises:
            HushrecError: It could not be published now.
            StorageError: The database cannot be used.
        """
        of_round = RESULT.c.plan == round_.plan, RESULT.c.number == round_.number
        with self._database.reading() as connection:
            found = connection.execute(select(RESULT).where(*of_round)).one()
        if found.noised is None:  # another process was faster
            return Verdict()
        noised = np.frombuffer(found.noised, "<i8").astype(np.int64)
        anchor = Anchor.parse(found.anchor)
        verdict = self._publisher.publish(
            RoundResult(plan, round_.number, round_.release, noised, found.survivors, anchor)
        )
        if verdict.waiting:
            return verdict
        ended = {"ended_at": self._clock(), "reason": verdict.refused[:200]}
        if verdict.refused:
            ended["state"] = State.ABORTED
        with self._database.transaction() as connection:
            if self._advance(connection, round_, **ended) and not verdict.keep:
                connection.execute(update(RESULT).where(*of_round).values(noised=None))
        return verdict

    def end(self, plan: Plan) -> None:
        """Let nothing more be spent in a plan, and delete what is left of its noise. Again is nothing.

        Raises:
            LedgerError: The ledger cannot be written.
            StorageError: The database cannot be used.
        """
        with contextlib.suppress(BudgetError):  # another process was faster
            if not self._ledger.plan(plan.plan_id).closed:
                self._ledger.close_plan(plan.plan_id)
        BandedNoise(noise_plan(plan), self._seal_key, self._source).end(self._noise)

    def _raw_sum(self, round_: Round, plan: Plan) -> tuple[NDArray[np.int64], int]:
        """The sum in lattice steps, shape (d,), and of how many devices it is."""
        with self._database.reading() as connection:
            total = store.phase_total(connection, round_.key, _MASKED) or b""
            state = store.phase_state(connection, round_.key, _AGREED) or b""
        reveals = store.bodies(self._database, round_.key, _REVEALED)
        masked = np.frombuffer(total, "<u8").astype(np.uint64)
        outcome = self._aggregation.finish(round_.session, state, masked, reveals)
        if len(outcome.survivors) < plan.min_cohort:
            raise SecAggError(f"{len(outcome.survivors)} devices are in the sum: too few for the plan")
        try:
            return to_lattice(plan, outcome.sum), len(outcome.survivors)
        except ConfigError as error:  # a device that lies about its vector: masks hide that from everybody
            raise SecAggError(error.message) from error
        finally:
            outcome.sum.fill(0)

    def _spend(self, round_: Round) -> Anchor:
        """The ledger's head once the round is in it; it may be in it from a process that died."""
        if self._publisher.last_published(round_.plan) >= round_.number:
            raise BudgetError("a round that was published is not finished here: the database was set back")
        if self._ledger.plan(round_.plan).last < round_.number:
            try:
                return self._ledger.spend(round_.plan, round_.number)
            except BudgetError:
                if self._ledger.plan(round_.plan).last != round_.number:  # else another process was faster
                    raise
        if self._ledger.plan(round_.plan).last != round_.number:
            raise BudgetError("a later round was spent; this one is abandoned")
        return self._ledger.anchor()

    def _add_noise(self, round_: Round, plan: Plan, raw: NDArray[np.int64], *, survivors: int, anchor: Anchor) -> None:
        banded = BandedNoise(noise_plan(plan), self._seal_key, self._source)
        with self._noise.transaction(round_.plan) as rows:
            found = store.locked(rows.connection, round_.key)
            if found is None or found.state is not State.SUMMED:
                return  # another process was faster
            noised = (raw + banded.draw(rows, round_.number)).astype("<i8", copy=False).tobytes()
            values = {"sha256": hashlib.sha256(noised).digest(), "noised": noised, "anchor": str(anchor)}
            counts = {"survivors": survivors, "noised_at": self._clock()}
            rows.connection.execute(insert(RESULT).values(**round_.key._asdict(), **values, **counts))
            store.change(rows.connection, round_.key, state=State.NOISED, lease_until=0)

    def _advance(self, connection: Connection, round_: Round, **values: object) -> bool:
        """Go on to the next state; False: another process has."""
        found = store.locked(connection, round_.key)
        if found is None or found.state is not round_.state:
            return False
        store.change(connection, round_.key, **{"state": round_.state.after, "lease_until": 0, **values})
        return True
