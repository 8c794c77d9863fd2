"""Banded noise is the matrix mechanism's, its state is sealed and bounded, and no round is drawn twice."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hushrec_privacy.accounting.toeplitz import square_root_coefficients
from hushrec_privacy.errors import ConfigError, NoiseStateError
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.mechanisms.toeplitz import fixed_point_coefficients
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom

ID, OTHER_ID = "0a" * 32, "0b" * 32
KEY = bytes(range(32))
SMALL = NoisePlan(ID, dimension=6, bands=4, rounds=40, sigma_numerator=1000)


def _begun(
    folder: Path, plan: NoisePlan, source: OsRandom, *, key: bytes = KEY
) -> tuple[SqliteNoiseStore, BandedNoise]:
    store, noise = SqliteNoiseStore(folder / "noise.db"), BandedNoise(plan, SealKey(key), source)
    noise.begin(store)
    return store, noise


def _draw(store: SqliteNoiseStore, noise: BandedNoise, rounds: Iterable[int], plan: str = ID) -> NDArray[np.int64]:
    drawn = []
    for number in rounds:
        with store.transaction(plan) as rows:
            drawn.append(noise.draw(rows, number))
    return np.array(drawn)


def _matrix(plan: NoisePlan) -> NDArray[np.float64]:
    matrix = np.zeros((plan.rounds, plan.rounds))
    for lag, value in enumerate(square_root_coefficients(plan.bands)):
        matrix += value * np.eye(plan.rounds, k=-lag)
    return matrix


def _change(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / "noise.db") as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


@pytest.mark.parametrize("bands", [1, 2, 7, 40])
def test_the_noise_is_the_inverse_matrix_times_independent_noise(tmp_path: Path, bands: int) -> None:
    plan = NoisePlan(ID, 50, bands, 40, 2**20 + 1, 3)
    drawn = _draw(*_begun(tmp_path, plan, FixedRandom(1)), range(1, 41))
    source = FixedRandom(1)
    z = np.array([sample_discrete_gaussian(source, 50, 2**20 + 1, 3) for _ in range(40)])
    assert (
        np.abs(drawn - np.linalg.solve(_matrix(plan), z)).max() < 1.6
    )  # half a step a round, times the row sums of C^-1
    assert np.abs(_matrix(plan) @ drawn - z).max() <= 0.6  # half a step, and 2^-24 of the noise


def test_the_sums_are_exact_in_whole_numbers(tmp_path: Path) -> None:
    drawn = _draw(*_begun(tmp_path, SMALL, FixedRandom(2)), range(1, 41)).tolist()
    c, source = fixed_point_coefficients(4).tolist(), FixedRandom(2)
    for t in range(40):
        z = sample_discrete_gaussian(source, 6, 1000).tolist()
        for i in range(6):
            past = sum(c[j] * drawn[t - j][i] for j in range(1, min(t, 3) + 1))
            assert drawn[t][i] == z[i] - (past + 2**23) // 2**24


def test_prefix_sums_have_the_covariance_that_the_matrix_gives(tmp_path: Path) -> None:
    plan = NoisePlan(ID, 60_000, 5, 12, 5000)
    drawn = _draw(*_begun(tmp_path, plan, FixedRandom(3)), range(1, 13)) / 5000
    prefix = np.tril(np.ones((12, 12)))
    expected = prefix @ np.linalg.inv(_matrix(plan))
    expected = expected @ expected.T
    sums = prefix @ drawn
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    allowed = 6 * np.sqrt(2 / plan.dimension)  # 6 deviations in each of 78 entries: a false alarm below 1e-6
    assert (np.abs(sums @ sums.T / plan.dimension - expected) < allowed * scale).all()
    independent = prefix @ prefix.T  # the same test refuses noise that does not cancel
    assert (np.abs(sums @ sums.T / plan.dimension - independent) > allowed * scale).any()


def test_an_abandoned_round_leaves_the_matrix_without_its_row_and_column(tmp_path: Path) -> None:
    numbers = [1, 2, 4, 5, 9, 10, 11, 30, 31, 33]
    drawn = _draw(*_begun(tmp_path, SMALL, FixedRandom(4)), numbers)
    source = FixedRandom(4)
    z = np.array([sample_discrete_gaussian(source, 6, 1000) for _ in numbers])
    kept = np.array(numbers) - 1
    assert np.abs(_matrix(SMALL)[np.ix_(kept, kept)] @ drawn - z).max() <= 0.6


def test_the_state_never_holds_more_than_the_band(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    for number in range(1, 41):
        _draw(store, noise, [number])
        with sqlite3.connect(tmp_path / "noise.db") as connection:
            held = [row[0] for row in connection.execute("SELECT round FROM noise_row ORDER BY round")]
        connection.close()
        assert held == (list(range(max(1, number - 2), number + 1)) if number < 40 else [])


def test_a_plan_that_ends_early_leaves_no_state_and_draws_no_more(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    _draw(store, noise, [1, 2])
    noise.end(store)
    with store.transaction(ID) as rows:
        assert rows.state() == (6, 4, 40, 0)
    with pytest.raises(NoiseStateError, match="spent"):
        _draw(store, noise, [3])
    with pytest.raises(NoiseStateError, match="begun before"):
        noise.begin(store)
    with pytest.raises(NoiseStateError, match="no noise state"):
        BandedNoise(NoisePlan(OTHER_ID, 6, 4, 40, 1000), SealKey(KEY), OsRandom()).end(store)


def test_an_older_copy_set_back_draws_new_noise_and_counts_the_rounds_since_as_abandoned(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, FixedRandom(6))
    drawn = _draw(store, noise, range(1, 6))
    copy = (tmp_path / "noise.db").read_bytes()
    later = _draw(store, noise, range(6, 9))
    (tmp_path / "noise.db").write_bytes(copy)
    again = _draw(store, noise, [6, 9])
    assert not np.array_equal(later[0], again[0])
    source = FixedRandom(6)
    z = np.array([sample_discrete_gaussian(source, 6, 1000) for _ in range(10)])
    kept = np.array([1, 2, 3, 4, 5, 6, 9]) - 1
    whole = np.concatenate([drawn, again])
    assert np.abs(_matrix(SMALL)[np.ix_(kept, kept)] @ whole - z[[0, 1, 2, 3, 4, 8, 9]]).max() <= 0.6


def test_the_file_stops_growing_when_the_band_is_full(tmp_path: Path) -> None:
    plan = NoisePlan(ID, 8000, 5, 200, 1000)
    store, noise = _begun(tmp_path, plan, OsRandom())
    _draw(store, noise, range(1, 20))
    early = (tmp_path / "noise.db").stat().st_size
    _draw(store, noise, range(20, 80))
    assert (tmp_path / "noise.db").stat().st_size <= early + 2 * 64_000


def test_the_file_is_its_owners_alone_and_shows_no_noise(tmp_path: Path) -> None:
    drawn = _draw(*_begun(tmp_path, SMALL, OsRandom()), [1, 2])
    assert (tmp_path / "noise.db").stat().st_mode & 0o077 == 0
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(row.tobytes()[:16] in stored for row in drawn)


def test_a_round_is_never_drawn_twice_nor_after_a_later_one(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    _draw(store, noise, [1, 5])
    for spent in (1, 3, 5):
        with pytest.raises(NoiseStateError, match="spent"):
            _draw(store, noise, [spent])
    _draw(store, noise, [6])


def test_independent_noise_counts_its_rounds_too(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, NoisePlan(ID, 3, 1, 5, 1000), OsRandom())
    _draw(store, noise, [1, 2])
    with pytest.raises(NoiseStateError, match="spent"):
        _draw(store, noise, [2])


def test_the_noised_sum_and_the_noise_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    with store.transaction(ID) as rows:
        rows.connection.execute("CREATE TABLE noised (round INTEGER PRIMARY KEY, total BLOB)")
        rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (1, noise.draw(rows, 1).tobytes()))
    lost = []

    def interrupted() -> None:
        with store.transaction(ID) as rows:
            lost.append(noise.draw(rows, 2))
            rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (2, lost[0].tobytes()))
            raise KeyboardInterrupt

    def wrong() -> None:
        with store.transaction(ID) as rows:
            noise.draw(rows, 3)
            rows.connection.execute("INSERT INTO noised VALUES (2, NULL)")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with store.transaction(ID) as rows:
        assert rows.connection.execute("SELECT count(*) FROM noised").fetchone() == (1,)
        assert rows.state().last_round == 1
        again = noise.draw(rows, 2)
        rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (2, again.tobytes()))
    assert not np.array_equal(lost[0], again)
    with pytest.raises(sqlite3.IntegrityError):  # the caller's own error comes through
        wrong()
    _draw(store, noise, [3])


def test_another_key_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    _draw(store, noise, [1, 2])
    with pytest.raises(NoiseStateError, match="cannot be used"):
        _draw(store, BandedNoise(SMALL, SealKey(bytes(32)), OsRandom()), [3])
    _draw(store, noise, [3])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE noise_row SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE round = 8",
        "UPDATE noise_row SET sealed = x'' WHERE round = 9",
        "UPDATE noise_row SET sealed = (SELECT sealed FROM noise_row WHERE round = 9) WHERE round = 8",
        "UPDATE noise_row SET round = 20 - round WHERE round IN (9, 10)",
        "UPDATE noise_row SET previous = 7 WHERE round = 9",
        "UPDATE noise_row SET previous = 12 WHERE round = 9",
        "DELETE FROM noise_row WHERE round = 8",
        "DELETE FROM noise_row WHERE round = 9",
        "DELETE FROM noise_row WHERE round = 10",
        "DELETE FROM noise_row",
        "DELETE FROM noise_plan",
        "UPDATE noise_plan SET last_round = 0",
        "UPDATE noise_plan SET last_round = 9",
        "UPDATE noise_plan SET last_round = 11",
        "UPDATE noise_plan SET last_round = 'ten'",
        "UPDATE noise_row SET previous = 'eight' WHERE round = 9",
        "UPDATE noise_row SET sealed = 'text' WHERE round = 9",
        "UPDATE noise_plan SET bands = 3",
        "UPDATE noise_plan SET dimension = 5",
    ],
)
def test_a_changed_state_is_refused(tmp_path: Path, change: str) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    _draw(store, noise, range(1, 11))
    if "20 - round" in change:  # 9 and 10 change places: by way of a free number
        for step in ("round = 99 WHERE round = 9", "round = 9 WHERE round = 10", "round = 10 WHERE round = 99"):
            _change(tmp_path, f"UPDATE noise_row SET {step}")
    else:
        _change(tmp_path, change)
    for _ in range(2):
        with pytest.raises(NoiseStateError):
            _draw(store, noise, [11])


def test_no_flipped_byte_of_the_file_is_worse_than_refused(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    _draw(store, noise, range(1, 11))
    whole = (tmp_path / "noise.db").read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]
    rng, refused = np.random.default_rng(0), 0
    for at in rng.choice(used, 300):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        (tmp_path / "noise.db").write_bytes(changed)
        try:
            _draw(SqliteNoiseStore(tmp_path / "noise.db"), noise, [11])
        except NoiseStateError:
            refused += 1
        for journal in tmp_path.glob("noise.db-*"):
            journal.unlink()
    assert refused > 100


def test_rows_of_another_plan_are_refused(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    other = BandedNoise(NoisePlan(OTHER_ID, 6, 4, 40, 1000), SealKey(KEY), OsRandom())
    other.begin(store)
    _draw(store, noise, range(1, 4))
    _draw(store, other, range(1, 4), OTHER_ID)
    stolen = "UPDATE noise_row SET sealed = (SELECT sealed FROM noise_row AS o WHERE o.plan = ? AND o.round = 3)"
    _change(tmp_path, stolen + " WHERE plan = ? AND round = 3", OTHER_ID, ID)
    with pytest.raises(NoiseStateError, match="cannot be used"):
        _draw(store, noise, [4])
    _draw(store, other, [4], OTHER_ID)


def test_a_plan_begins_once_and_before_its_first_round(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    with pytest.raises(NoiseStateError, match="begun before"):
        noise.begin(store)
    with pytest.raises(NoiseStateError, match="no noise state"):
        _draw(store, noise, [1], OTHER_ID)


def test_a_file_that_is_no_database_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.db").write_bytes(b"not a database" * 100)
    with pytest.raises(NoiseStateError, match="cannot be used"):
        SqliteNoiseStore(tmp_path / "noise.db")
    with pytest.raises(ConfigError, match="cannot be opened"):
        SqliteNoiseStore(tmp_path / "missing" / "noise.db")


def test_a_file_held_by_another_is_refused_after_the_wait(tmp_path: Path) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    hasty = SqliteNoiseStore(tmp_path / "noise.db", wait_s=0.01)
    with store.transaction(ID), pytest.raises(NoiseStateError, match="another process holds it"):
        _draw(hasty, noise, [1])
    _draw(hasty, noise, [1])


@pytest.mark.parametrize(
    "fields",
    [
        ("0A" * 32, 6, 4, 40, 1000, 1),
        ("0a" * 31, 6, 4, 40, 1000, 1),
        (ID, 0, 4, 40, 1000, 1),
        (ID, 6, 0, 40, 1000, 1),
        (ID, 6, 41, 40, 1000, 1),
        (ID, 6, 4, 40, 0, 1),
        (ID, 6, 4, 40, 1000, 0),
        (ID, 6, 4, 40, 2**40 + 1, 2**30),
        (ID, 6, 4, 40, 2**36, 1),
    ],
)
def test_a_plan_out_of_range_is_refused(fields: tuple[str, int, int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        NoisePlan(*fields)


@pytest.mark.parametrize("number", [0, -1, 41])
def test_a_round_outside_the_plan_is_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(ConfigError, match="round_number"):
        _draw(*_begun(tmp_path, SMALL, OsRandom()), [number])


def test_the_largest_noise_that_is_allowed_does_not_overflow(tmp_path: Path) -> None:
    total = int(fixed_point_coefficients(4).sum())
    plan = NoisePlan(ID, 2000, 4, 8, 2**62 // (20 * total))
    drawn = _draw(*_begun(tmp_path, plan, FixedRandom(5)), range(1, 9))
    residual = _matrix(plan) @ drawn
    assert np.abs(residual).max() < 8 * plan.sigma_numerator
    with pytest.raises(ConfigError, match="too large"):
        NoisePlan(ID, 2000, 4, 8, plan.sigma_numerator + 1)


def test_a_broken_source_is_refused_not_wrapped_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, noise = _begun(tmp_path, SMALL, OsRandom())
    huge = np.full(6, 2**40)
    monkeypatch.setattr("hushrec_privacy.mechanisms.banded.sample_discrete_gaussian", lambda *_: huge)
    with pytest.raises(NoiseStateError, match="larger than possible"):
        _draw(store, noise, [1])


_RACER = """
import sys
from pathlib import Path
from hushrec_privacy.errors import NoiseStateError
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.randomness import OsRandom
store = SqliteNoiseStore(Path(sys.argv[1]))
noise = BandedNoise(NoisePlan("0a" * 32, 6, 4, 40, 1000), SealKey(bytes(range(32))), OsRandom())
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 31):
    try:
        with store.transaction("0a" * 32) as rows:
            noise.draw(rows, number)
        print(number)
    except NoiseStateError as error:
        assert "spent" in str(error), error
"""


def test_of_two_processes_that_draw_the_same_round_one_wins(tmp_path: Path) -> None:
    _begun(tmp_path, SMALL, OsRandom())
    command = [sys.executable, "-c", _RACER, str(tmp_path / "noise.db")]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=60) for racer in racers]
    assert [error for _, error in told] == ["", ""]
    won = [int(word) for output, _ in told for word in output.split()]
    # A racer that is late for a round finds it spent; one that is ahead abandons none that the other did not draw.
    assert sorted(won) == list(range(1, 31))
