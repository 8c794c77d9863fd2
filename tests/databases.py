"""Databases for tests: SQLite always; PostgreSQL where `HUSHREC_TEST_POSTGRES` names one, and then it must work."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["DATABASES", "POSTGRES", "database_url", "needs_postgres"]

POSTGRES = os.environ.get("HUSHREC_TEST_POSTGRES", "")
needs_postgres = pytest.mark.skipif(not POSTGRES, reason="HUSHREC_TEST_POSTGRES names no server")
DATABASES = ["sqlite", pytest.param("postgresql", marks=needs_postgres)]


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty database, which is gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'fleet.sqlite'}"
        return
    import psycopg
    from sqlalchemy import make_url

    server, name = make_url(POSTGRES), f"hushrec_test_{secrets.token_hex(8)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
