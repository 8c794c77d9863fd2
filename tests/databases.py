"""Databases for tests: SQLite always; PostgreSQL where `HUSHREC_TEST_POSTGRES` names one, and then it must work."""

import atexit
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

__all__ = ["DATABASES", "POSTGRES", "database_url", "needs_postgres"]

POSTGRES = os.environ.get("HUSHREC_TEST_POSTGRES", "")
needs_postgres = pytest.mark.skipif(not POSTGRES, reason="HUSHREC_TEST_POSTGRES names no server")
DATABASES = ["sqlite", pytest.param("postgresql", marks=needs_postgres)]


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'fleet.sqlite'}"
        return
    import psycopg

    url = _own_database()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")  # much faster than a database for each test
        connection.execute("CREATE SCHEMA public")
    yield url


@cache
def _own_database() -> str:
    """A database of this process, gone with it."""
    import psycopg
    from sqlalchemy import make_url

    server, name = make_url(POSTGRES), f"hushrec_test_{secrets.token_hex(8)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)

    def run(statement: str) -> None:
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement)

    run(f'CREATE DATABASE "{name}"')
    atexit.register(run, f'DROP DATABASE "{name}" WITH (FORCE)')
    return server.set(database=name).render_as_string(hide_password=False)
