"""The noise store over the server's database keeps the promises of the one in a file."""

import numpy as np
import pytest
from hushrec_privacy.errors import NoiseStateError
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_server.database import Database
from hushrec_server.noise_rows import DatabaseNoiseStore
from hushrec_server.schema import NOISE_ROW
from sqlalchemy import func, select

from tests.fixed_random import FixedRandom

PLAN = NoisePlan("ab" * 32, 50, 4, 12, 1000)
KEY = SealKey(b"k" * 32)


def banded(seed: int = 1, plan: NoisePlan = PLAN) -> BandedNoise:
    return BandedNoise(plan, KEY, FixedRandom(seed))


@pytest.fixture
def store(database: Database) -> DatabaseNoiseStore:
    store = DatabaseNoiseStore(database)
    banded().begin(store)
    return store


def rows_of(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(NOISE_ROW)).scalar_one()


def test_it_gives_the_noise_that_the_store_in_a_file_gives(
    store: DatabaseNoiseStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = SqliteNoiseStore(tmp_path_factory.mktemp("file") / "noise.sqlite")
    one, other = banded(), banded()
    other.begin(file)
    for round_number in (1, 2, 3, 5, 6, 10, 12):
        with store.transaction(PLAN.plan_id) as mine, file.transaction(PLAN.plan_id) as theirs:
            np.testing.assert_array_equal(one.draw(mine, round_number), other.draw(theirs, round_number))


def test_at_most_bands_less_one_rows_are_kept_and_none_after_the_last_round(
    store: DatabaseNoiseStore, database: Database
) -> None:
    noise, kept = banded(), []
    for round_number in range(1, 13):
        with store.transaction(PLAN.plan_id) as rows:
            noise.draw(rows, round_number)
        kept.append(rows_of(database))
    assert kept == [1, 2, *[3] * 9, 0]


def test_a_round_that_was_rolled_back_may_be_drawn_anew_and_a_committed_one_not(store: DatabaseNoiseStore) -> None:
    noise = banded()

    def draw_and_raise() -> None:
        with store.transaction(PLAN.plan_id) as rows:
            noise.draw(rows, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_and_raise()
    with store.transaction(PLAN.plan_id) as rows:
        noise.draw(rows, 1)
    with pytest.raises(NoiseStateError, match="is spent"), store.transaction(PLAN.plan_id) as rows:
        noise.draw(rows, 1)


def test_a_plan_begins_once(store: DatabaseNoiseStore) -> None:
    with pytest.raises(NoiseStateError, match="begun before"):
        banded().begin(store)


def test_a_plan_that_never_began_has_no_noise(store: DatabaseNoiseStore) -> None:
    other = NoisePlan("cd" * 32, 50, 4, 12, 1000)
    with pytest.raises(NoiseStateError, match="no noise state"), store.transaction(other.plan_id) as rows:
        banded(plan=other).draw(rows, 1)


def test_a_row_that_is_missing_is_noticed(store: DatabaseNoiseStore, database: Database) -> None:
    noise = banded()
    for round_number in (1, 2):
        with store.transaction(PLAN.plan_id) as rows:
            noise.draw(rows, round_number)
    with database.transaction() as connection:
        connection.execute(NOISE_ROW.delete().where(NOISE_ROW.c.round == 1))
    with pytest.raises(NoiseStateError, match="cannot be used"), store.transaction(PLAN.plan_id) as rows:
        noise.draw(rows, 3)


def test_rows_are_unreadable_without_the_key_outside_the_database(store: DatabaseNoiseStore) -> None:
    with store.transaction(PLAN.plan_id) as rows:
        noise = banded().draw(rows, 1)
        sealed = rows.row(1)
        assert sealed is not None
        assert noise[:4].tobytes() not in sealed.sealed
    thief = BandedNoise(PLAN, SealKey(b"t" * 32), FixedRandom(1))
    with pytest.raises(NoiseStateError, match="cannot be used"), store.transaction(PLAN.plan_id) as rows:
        thief.draw(rows, 2)


def test_a_plan_that_ends_early_leaves_no_state(store: DatabaseNoiseStore, database: Database) -> None:
    noise = banded()
    with store.transaction(PLAN.plan_id) as rows:
        noise.draw(rows, 1)
    noise.end(store)
    noise.end(store)
    assert rows_of(database) == 0
    with pytest.raises(NoiseStateError, match="is spent"), store.transaction(PLAN.plan_id) as rows:
        noise.draw(rows, 2)
