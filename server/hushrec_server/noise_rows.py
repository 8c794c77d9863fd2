"""The sealed rows of noise in the server's database, as a `NoiseStore`.

A round's noise state, its noised sum and its next state are one transaction: `rows.connection` stores the rest. Rows
are sealed under a key outside the database (see `hushrec_privacy.mechanisms.seal`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hushrec_privacy.errors import NoiseStateError
from hushrec_privacy.mechanisms.noise_store import PlanState, SealedRow
from sqlalchemy import Connection, delete, func, insert, select, update

from hushrec_server.database import Database, insert_new
from hushrec_server.schema import NOISE_PLAN, NOISE_ROW

__all__ = ["DatabaseNoiseRows", "DatabaseNoiseStore", "begin_plan"]


class DatabaseNoiseRows:
    """`NoiseRows` over one transaction.

    Attributes:
        connection: For what must be stored in the same transaction. Do not commit it.
    """

    def __init__(self, connection: Connection, plan_id: str) -> None:
        self.connection, self._plan = connection, plan_id

    def state(self) -> PlanState:
        """How far the plan has come; the plan's row is locked, so that nobody else draws meanwhile.

        Raises:
            NoiseStateError: It was never begun here.
        """
        wanted = select(NOISE_PLAN.c.dimension, NOISE_PLAN.c.bands, NOISE_PLAN.c.last_round)
        found = self.connection.execute(wanted.where(NOISE_PLAN.c.plan == self._plan).with_for_update()).first()
        if found is None:
            raise NoiseStateError("this plan has no noise state in this database; begin it once, when the plan begins")
        newest = select(func.coalesce(func.max(NOISE_ROW.c.round), 0)).where(NOISE_ROW.c.plan == self._plan)
        return PlanState(found.dimension, found.bands, found.last_round, self.connection.execute(newest).scalar_one())

    def row(self, round_number: int) -> SealedRow | None:
        """The row of a round, or None."""
        wanted = select(NOISE_ROW.c.previous, NOISE_ROW.c.sealed)
        found = self.connection.execute(
            wanted.where(NOISE_ROW.c.plan == self._plan, NOISE_ROW.c.round == round_number)
        ).first()
        return None if found is None else SealedRow(found.previous, bytes(found.sealed))

    def append(self, round_number: int, row: SealedRow | None, *, first_kept: int) -> None:
        """Set the last round, add its row if there is one, and delete every row before round `first_kept`."""
        gone = delete(NOISE_ROW).where(NOISE_ROW.c.plan == self._plan, NOISE_ROW.c.round < first_kept)
        self.connection.execute(gone)
        if row is not None:
            values = {"round": round_number, "previous": row.previous, "sealed": row.sealed}
            self.connection.execute(insert(NOISE_ROW).values(plan=self._plan, **values))
        self.connection.execute(
            update(NOISE_PLAN).where(NOISE_PLAN.c.plan == self._plan).values(last_round=round_number)
        )


class DatabaseNoiseStore:
    """Rows of any number of plans in one database; any number of processes may use it."""

    def __init__(self, database: Database) -> None:
        """Keep the rows in a database that is open; it stays the caller's to close."""
        self._database = database

    def begin(self, plan_id: str, *, dimension: int, bands: int) -> None:
        """Begin a plan, once.

        Raises:
            NoiseStateError: It has begun before; its rounds go on from where they are.
            StorageError: The database cannot be used.
        """
        with self._database.transaction() as connection:
            if not begin_plan(connection, plan_id, dimension=dimension, bands=bands):
                raise NoiseStateError("this plan has begun before; go on with its noise state")

    @contextmanager
    def transaction(self, plan_id: str) -> Iterator[DatabaseNoiseRows]:
        """Commit when the block ends, roll everything back when it raises.

        Raises:
            StorageError: The database cannot be used.
        """
        with self._database.transaction() as connection:
            yield DatabaseNoiseRows(connection, plan_id)


def begin_plan(connection: Connection, plan_id: str, *, dimension: int, bands: int) -> bool:
    """Begin a plan inside a transaction; False: it has begun before, and nothing was changed."""
    return insert_new(connection, NOISE_PLAN, plan=plan_id, dimension=dimension, bands=bands, last_round=0)
