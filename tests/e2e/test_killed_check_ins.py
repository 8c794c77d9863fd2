"""Servers are killed while a crowd checks in: a place that a device was told of is its own, and nobody else's."""

import asyncio
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hushrec.messages import (
    DEVICE_HEADER,
    ROUTES,
    SIGNATURE_HEADER,
    CheckInAnswer,
    CheckInBody,
    packed,
    path_of,
    read_packed,
)
from hushrec_privacy.enrolment import Identity
from hushrec_privacy.envelope import Context, seal, sign_request
from hushrec_server.config import DATABASE_VARIABLE
from hushrec_server.database import Database
from hushrec_server.schema import DEVICE, ROUND
from sqlalchemy import select

from tests.databases import database_url, needs_postgres
from tests.server_folder import SERVER, Running, ServerFolder, running

COHORT, CROWD = 100, 130
CONNECTIONS = 40  # of each server
TOLD = 30  # places, at least, before the kill


class Device:
    """A device that asks until it is told something."""

    def __init__(self, folder: ServerFolder, public: bytes) -> None:
        self.folder, self.public, self.identity, self.name = folder, public, Identity.create(), os.urandom(16).hex()
        self.place: int | None = None
        self.refused = ""

    def request(self) -> bytes:
        """A check-in, signed anew."""
        plan = self.folder.plan.plan_id
        inside = packed(CheckInBody(self.folder.authority.certify(plan, self.name, self.identity.public())))
        context = Context(SERVER, "check-in", plan, 0, self.name)
        body = seal(self.public, context, inside, ROUTES["check-in"].payload_bytes)
        signed = sign_request(self.identity, context, body, at_s=int(time.time()))
        head = (
            f"POST {path_of('check-in', plan=plan)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"{DEVICE_HEADER}: {self.name}\r\n{SIGNATURE_HEADER}: {signed}\r\n\r\n"
        )
        return head.encode() + body

    def take(self, status: int, body: bytes) -> None:
        """An answer."""
        if status == 200:
            index = read_packed(body, CheckInAnswer).index
            assert self.place in (None, index), "it was told another place before"
            self.place = index
        else:
            self.refused = f"{status} {body.decode()}"


async def ask_all(servers: Sequence[Running], devices: Sequence[Device], *, kill_after: int = 0) -> None:
    """Each device asks once, over many connections to all servers; the first one is killed after so many answers."""
    waiting, answers = iter(devices), 0

    async def connection(server: Running) -> None:
        nonlocal answers
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            for device in waiting:
                writer.write(device.request())
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                device.take(int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0))
                answers += 1
                if answers == kill_after:
                    servers[0].process.kill()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # killed
        finally:
            writer.close()

    await asyncio.gather(*(connection(server) for server in servers for _ in range(CONNECTIONS)))


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with database_url(request.param, tmp_path) as url:
        monkeypatch.setenv(DATABASE_VARIABLE, url)
        yield url


@pytest.mark.parametrize(
    ("url", "processes"),
    [
        ("sqlite", 1),
        pytest.param("postgresql", 1, marks=needs_postgres),
        pytest.param("postgresql", 2, marks=needs_postgres),
    ],
    indirect=["url"],
)
def test_a_place_that_was_told_is_there_after_a_kill_and_the_cohort_is_never_exceeded(
    tmp_path: Path, url: str, processes: int
) -> None:
    folder = ServerFolder.prepare(tmp_path, cohort=COHORT)
    with folder.config.open("a", encoding="utf-8") as config:
        config.write("[limits]\naddress_per_minute = 1000000\n")
    devices = [Device(folder, folder.envelope_public()) for _ in range(CROWD)]
    serve = ("serve", "--config", folder.config, "--plan", folder.plan_file)
    with ExitStack() as stack:
        servers = [stack.enter_context(running(*serve)) for _ in range(processes)]
        asyncio.run(ask_all(servers, devices, kill_after=TOLD))
        told = {device.name: device.place for device in devices if device.place is not None}
        assert len(told) >= TOLD
        assert all(device.refused.startswith("429") for device in devices if device.refused)
        check(url, told)
        servers[0] = stack.enter_context(running(*serve))
        asyncio.run(ask_all(servers, devices))  # those that have a place, too
        told = {device.name: device.place for device in devices if device.place is not None}
        assert len(told) == COHORT
        assert sum('"round-full"' in device.refused for device in devices if device.place is None) == CROWD - COHORT
        check(url, told)


def check(url: str, told: dict[str, int]) -> None:
    """All that was told is stored, places are given once, and they are counted rightly."""
    database = Database.open(url)
    with database.reading() as connection:
        kept = {row.pseudonym: row.place for row in connection.execute(select(DEVICE.c.pseudonym, DEVICE.c.place))}
        admitted = connection.execute(select(ROUND.c.admitted)).scalars().all()
    database.close()
    assert told.items() <= kept.items()
    assert sorted(kept.values()) == list(range(len(kept)))
    assert admitted == [len(kept)]
    assert len(kept) <= COHORT
