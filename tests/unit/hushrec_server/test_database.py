"""The database opens only what is its own, is durable and private, and tells nothing secret when it fails."""

import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hushrec_privacy.errors import ConfigError, StorageError
from hushrec_server.database import Database, _place, insert_new
from hushrec_server.schema import METADATA, NOISE_PLAN, VERSION
from sqlalchemy import func, inspect, make_url, select, text

from tests.databases import database_url, needs_postgres

ROOT = Path(__file__).parents[3]


def row(name: str) -> dict[str, object]:
    return {"plan": name, "dimension": 3, "bands": 1, "last_round": 0}


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(NOISE_PLAN)).scalar_one()


def test_a_new_database_has_all_tables_and_its_version(database: Database) -> None:
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) == set(METADATA.tables)
        assert connection.execute(text("SELECT version FROM hushrec_schema")).scalars().all() == [VERSION]


def test_a_database_that_is_there_is_opened_with_what_it_holds(database: Database, url: str) -> None:
    with database.transaction() as connection:
        insert_new(connection, NOISE_PLAN, **row("a"))
    again = Database.open(url)
    assert count(again) == 1
    again.close()


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def add_and_raise() -> None:
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row("a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_raise()
    assert count(database) == 0


def test_a_row_whose_key_is_taken_is_not_added_and_breaks_nothing(database: Database) -> None:
    with database.transaction() as connection:
        assert insert_new(connection, NOISE_PLAN, **row("a")) is True
        assert insert_new(connection, NOISE_PLAN, **row("a")) is False
        assert insert_new(connection, NOISE_PLAN, **row("b")) is True
    assert count(database) == 2


def test_many_that_open_a_new_database_at_once_all_can_use_it(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(Database.open, [url] * 8))
    for number, database in enumerate(opened):
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row(str(number)))
    assert count(opened[0]) == 8
    for database in opened:
        database.close()


def test_writers_wait_for_each_other_and_lose_nothing(database: Database) -> None:
    def add(number: int) -> None:
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row(str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert count(database) == 100


def test_a_database_of_a_newer_hushrec_is_refused(database: Database, url: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"UPDATE hushrec_schema SET version = {VERSION + 1}"))
    with pytest.raises(StorageError, match="update hushrec"):
        Database.open(url)


@pytest.mark.parametrize("change", ["UPDATE hushrec_schema SET version = 0", "DELETE FROM hushrec_schema"])
def test_a_database_of_no_version_that_was_ever_made_is_refused(database: Database, url: str, change: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(change))
    with pytest.raises(StorageError, match="restore"):
        Database.open(url)


def test_tables_without_a_version_are_not_taken_over(database: Database, url: str) -> None:
    with database.transaction() as connection:
        connection.execute(text("DROP TABLE hushrec_schema"))
    with pytest.raises(StorageError, match="another program"):
        Database.open(url)


def test_an_sqlite_file_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE orders (id INTEGER)")
    with pytest.raises(StorageError, match="another program"):
        Database.open(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("orders",)]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match=rf"^{re.escape(str(path))}: .* SQLITE_NOTADB; check that its file is whole"):
        Database.open(f"sqlite:///{path}")


def test_an_emptied_file_is_not_taken_for_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    Database.open(f"sqlite:///{path}").close()
    path.write_bytes(b"")
    with pytest.raises(StorageError, match=r"fleet\.sqlite: the database is empty: .*Restore it"):
        Database.open(f"sqlite:///{path}")
    assert path.read_bytes() == b""


MAKER = """
import shutil, sqlite3, sys
from pathlib import Path
from hushrec_server.database import Database
from tests.killed_at import killed_at

folder = Path(sys.argv[1])

def made():
    sqlite3.dbapi2.connect = sqlite3.connect  # SQLAlchemy's name of it, for statements to count
    Database.open(f"sqlite:///{folder / 'fleet.sqlite'}").close()

made()  # what a fork needs is loaded once
change, killed = 1, True
while killed:
    shutil.rmtree(folder)
    folder.mkdir()
    killed = killed_at(change, folder, made, statements=True)
    assert not killed_at(10**6, folder, made)
    change += 1
print(change)
"""


def test_a_database_whose_making_was_killed_at_any_change_is_made_by_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MAKER, tmp_path / "work"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 10


def test_a_database_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Database.open(f"sqlite:///{tmp_path / 'nowhere' / 'fleet.sqlite'}")


@pytest.mark.parametrize(
    "url", ["", "fleet.sqlite", "sqlite://", "sqlite:///", "mysql://shop@localhost/fleet", "postgresql://x/y"]
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Database.open(url)


def test_a_password_is_in_no_error_and_no_repr() -> None:
    secret = "correct-horse"
    with pytest.raises(StorageError) as refused:
        Database.open(f"postgresql+psycopg://shop:{secret}@127.0.0.1:1/fleet")
    assert secret not in "".join(traceback.format_exception(refused.value))
    assert refused.value.message.startswith("PostgreSQL at 127.0.0.1, port 1: ")
    assert "check that PostgreSQL runs and listens" in refused.value.message
    with pytest.raises(ConfigError) as wrong:
        Database.open(f"postgresql+psycopg://shop:{secret}@127.0.0.1:no-port/fleet")
    assert secret not in "".join(traceback.format_exception(wrong.value))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("shop@db.example/fleet", "PostgreSQL at db.example, port 5432"),
        ("shop:p%40w@[::1]:5433/fleet", "PostgreSQL at ::1, port 5433"),
        ("/fleet", "PostgreSQL at this machine's own socket, port 5432"),
        ("shop@/fleet?host=/run/db&port=5433", "PostgreSQL at /run/db, port 5433"),
    ],
)
def test_where_a_database_is_is_named_without_user_and_password(
    address: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    assert _place(make_url(f"postgresql+psycopg://{address}")) == place


@pytest.mark.parametrize("password", ["correct@horse", "correct@horse/staple", "correct@horse?staple"])
def test_a_password_whose_end_would_be_taken_for_the_host_is_refused(password: str) -> None:
    with pytest.raises(ConfigError, match="write %40") as refused:
        Database.open(f"postgresql+psycopg://shop:{password}@127.0.0.1:1/fleet")
    assert "horse" not in "".join(traceback.format_exception(refused.value))


def test_no_value_of_a_row_is_in_an_error(database: Database) -> None:
    secret = "a-pseudonym"

    def add() -> None:
        with database.transaction() as connection:
            connection.execute(NOISE_PLAN.insert().values(**row(secret)))

    add()
    with pytest.raises(StorageError) as refused:
        add()
    assert secret not in "".join(traceback.format_exception(refused.value))
    assert secret not in repr(database)


@needs_postgres
def test_a_server_that_was_started_anew_is_found_again(tmp_path: Path) -> None:
    import psycopg

    with database_url("postgresql", tmp_path) as url:
        database = Database.open(url)
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row("a"))
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [backend])
        with pytest.raises(StorageError, match="AdminShutdown"):
            count(database)
        assert count(database) == 1
        database.close()


def test_what_is_forgotten_is_gone_and_what_is_not_stays(database: Database) -> None:
    with database.transaction() as connection:
        insert_new(connection, NOISE_PLAN, **row("a"))
    for _ in range(2):
        database.forget()
    assert count(database) == 1


class TestSqlite:
    """What only one file can promise."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "fleet.sqlite"

    def test_the_file_is_its_owners_alone(self, path: Path) -> None:
        database = Database.open(f"sqlite:///{path}")
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row("a"))
        for each in path.parent.glob("fleet.sqlite*"):
            assert stat.S_IMODE(each.stat().st_mode) == 0o600
        database.close()

    @pytest.mark.parametrize(("block", "synchronous"), [("transaction", 2), ("reading", 2), ("hasty", 1)])
    def test_commits_are_synced_unless_in_haste(self, path: Path, block: str, synchronous: int) -> None:
        database = Database.open(f"sqlite:///{path}")
        with getattr(database, block)() as connection:
            found = [
                connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("synchronous", "journal_mode", "secure_delete")
            ]
        assert found == [synchronous, "wal", 1]
        database.close()

    def test_a_reader_waits_for_no_writer(self, path: Path) -> None:
        database = Database.open(f"sqlite:///{path}")
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row("a"))
            assert count(database) == 0
        assert count(database) == 1
        database.close()

    def test_what_was_deleted_and_forgotten_is_in_no_file(self, path: Path) -> None:
        secret = "9f3a" * 16
        database = Database.open(f"sqlite:///{path}")
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row(secret))
        database.forget()
        assert secret.encode() in path.read_bytes()
        with database.transaction() as connection:
            connection.execute(NOISE_PLAN.delete())
        database.forget()
        for each in path.parent.glob("fleet.sqlite*"):
            assert secret.encode() not in each.read_bytes()
        database.close()

    def test_a_copy_with_its_log_is_complete_while_it_is_open(self, path: Path) -> None:
        database = Database.open(f"sqlite:///{path}")
        with database.transaction() as connection:
            insert_new(connection, NOISE_PLAN, **row("a"))
        copy = path.parent / "copy"
        copy.mkdir()
        for each in path.parent.glob("fleet.sqlite*"):
            shutil.copy(each, copy)
        database.close()
        copied = Database.open(f"sqlite:///{copy / path.name}")
        assert count(copied) == 1
        copied.close()
