"""Each test of the server's inside runs over every kind of database."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec_server.database import Database
from hushrec_server.logs import start_logging
from hushrec_server.service import FleetService

from tests.databases import DATABASES, database_url
from tests.small_fleet import SmallFleet


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    with database_url(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A new one, open."""
    database = Database.open(url)
    yield database
    database.close()


@pytest.fixture
def fleet(tmp_path: Path, url: str) -> SmallFleet:
    """Keys, plan and devices."""
    return SmallFleet(tmp_path, url)


@pytest.fixture
def service(fleet: SmallFleet) -> Iterator[FleetService]:
    """A server over it."""
    service = fleet.service()
    yield service
    service.database.close()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, a line of JSON each."""
    loggers = [logging.getLogger(name) for name in ("", "hushrec_server")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    stream = io.StringIO()
    start_logging(stream)
    yield stream
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, True
        logger.setLevel(level)
