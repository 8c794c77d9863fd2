"""Real sockets that trickle, hold, flood or do not read: each ends within its time, and others are served meanwhile."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec.messages import path_of
from hushrec_privacy.errors import ConfigError, FleetError
from hushrec_server import serving
from hushrec_server.config import LimitSettings
from hushrec_server.serving import bound_socket, server_config
from hushrec_server.slow_clients import BodyRoom
from uvicorn import Server

from tests.fake_fleet import PLAN, Device, World

LIMITS = LimitSettings(
    address_per_minute=10**6, head_seconds=1, body_seconds=1, connections=20, connections_per_address=8
)
PATIENCE_S = 10.0


@contextlib.contextmanager
def served(world: World, limits: LimitSettings, *, buffer: int = 0) -> Iterator[tuple[int, Server]]:
    """Gives port and server; `buffer`: bytes that the system keeps of what is sent."""
    taken = bound_socket("127.0.0.1", 0)
    if buffer:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server = Server(server_config(world.app, limits))
    thread = threading.Thread(target=lambda: server.run(sockets=[taken]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield taken.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        taken.close()
    assert not thread.is_alive()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, limits=LIMITS, now=time.time())


@pytest.fixture
def port(world: World) -> Iterator[int]:
    with served(world, LIMITS) as (port, _):
        yield port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; empty if it resets."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
    return found


def healthy(port: int) -> bool:
    with connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_all(connection).startswith(b"HTTP/1.1 200")


def trickle_until_closed(connection: socket.socket, piece: bytes, pause_s: float) -> float:
    """Seconds until the server has had enough."""
    began = time.monotonic()
    connection.settimeout(pause_s)
    while time.monotonic() - began < PATIENCE_S:
        try:
            connection.sendall(piece)
            if connection.recv(65_536) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with connected(port) as connection:
        began = time.monotonic()
        assert read_all(connection) == b""
        assert 0.5 < time.monotonic() - began < 4


@pytest.mark.parametrize("start", [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"G"])
def test_a_head_that_trickles_in_is_closed(port: int, start: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(start)
        assert trickle_until_closed(connection, b"a", 0.1) < 4
    assert healthy(port)


def test_a_later_head_on_a_kept_connection_has_the_same_limit(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        assert trickle_until_closed(connection, b"a", 0.1) < 4


def test_a_body_that_trickles_in_is_answered_408_and_closed(port: int, world: World) -> None:
    device = Device(world)
    path, headers, body = device.check_in_request()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with connected(port) as connection:
        connection.sendall(head.encode() + b"\r\n" + body[:10])
        began = time.monotonic()
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"too-slow" in answer
        assert b"connection: close" in answer.lower()
        assert time.monotonic() - began < 4
    assert healthy(port)
    assert world.front.room.free == 1 << 20


def test_a_refused_long_body_is_not_read_on(port: int) -> None:
    path = path_of("check-in", plan=PLAN)
    with connected(port) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n".encode())
        assert trickle_until_closed(connection, b"x" * 1_000, 0.1) < 4
    assert healthy(port)


def test_a_head_without_end_is_refused_before_it_fills_memory(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000)
        answer = read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert healthy(port)


@pytest.mark.parametrize("rubbish", [b"\0" * 100, b"\x16\x03\x01\x02\0\x01\0\x01\xfc", b"GET\r\n\r\n"])
def test_rubbish_is_refused(port: int, rubbish: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(rubbish)
        answer = read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert healthy(port)


def test_one_connection_more_than_allowed_is_told_to_come_back_and_counted(tmp_path: Path) -> None:
    limits = LimitSettings(address_per_minute=10**6, connections=4, connections_per_address=8)
    world = World(tmp_path, limits=limits, now=time.time())
    with served(world, limits) as (port, server), contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(connected(port))
        while len(server.server_state.connections) < 3:
            time.sleep(0.01)
        assert healthy(port)
        held.enter_context(connected(port))
        with connected(port) as connection:
            connection.sendall(b"GET /v1/fleet HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"\r\nretry-after: 2\r\n" in head.lower()
        assert json.loads(body)["reason"] == "busy"
        held.close()
        while server.server_state.connections:
            time.sleep(0.01)
        assert healthy(port)
    assert 'hushrec_refusals_total{reason="busy"} 1' in world.front.metrics.text()


def test_connections_that_are_as_many_again_are_closed_before_they_say_anything(tmp_path: Path) -> None:
    limits = LimitSettings(address_per_minute=10**6, connections=3, connections_per_address=100)
    world = World(tmp_path, limits=limits, now=time.time())
    with served(world, limits) as (port, server), contextlib.ExitStack() as held:
        opened = [held.enter_context(connected(port)) for _ in range(9)]
        assert [read_all(connection) for connection in opened[6:]] == [b""] * 3
        assert len(server.server_state.connections) == 6
        opened[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(opened[0]).startswith(b"HTTP/1.1 503")


def test_the_system_is_asked_for_as_many_files_as_connections_need(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))

    def kept(soft: int, hard: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        return serving._kept(1_000)

    assert (kept(1_024, 1_048_576), asked) == (2_000, [(2_256, 1_048_576)])
    assert (kept(1_024, resource.RLIM_INFINITY), asked[-1]) == (2_000, (2_256, resource.RLIM_INFINITY))
    assert (kept(1_024, 1_500), asked[-1]) == (1_244, (1_500, 1_500)), "no more than there are files for"
    del asked[:]
    assert (kept(4_096, 4_096), kept(resource.RLIM_INFINITY, resource.RLIM_INFINITY), asked) == (2_000, 2_000, [])


def test_one_address_holds_only_so_many_connections_and_gets_new_ones_back(port: int) -> None:
    held = [connected(port) for _ in range(8)]
    time.sleep(0.1)
    with connected(port) as one_more:
        one_more.settimeout(0.5)
        assert read_all(one_more) == b"", "one connection too many is closed at once"
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert healthy(port)


def test_a_client_that_does_not_take_its_answer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushrec_server.serving._WRITE_S", 1.0)
    world = World(tmp_path, limits=LIMITS)
    releases = tmp_path / "releases" / "targets"
    releases.mkdir(parents=True)
    (releases / "big.bin").write_bytes(bytes(32 << 20))
    with served(world, LIMITS) as (port, server), connected(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(b"GET /releases/targets/big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)
        assert len(server.server_state.connections) == 1
        time.sleep(2.0)
        assert not server.server_state.connections
        assert healthy(port)


@pytest.mark.parametrize("keeping", [b"", b"Connection: close\r\n"])
def test_an_answer_whose_end_is_never_read_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeping: bytes
) -> None:
    monkeypatch.setattr(serving, "_WRITE_S", 1.0)
    monkeypatch.setattr(serving, "_KEEP_ALIVE_S", 1)
    world = World(tmp_path, limits=LIMITS, now=time.time())
    with served(world, LIMITS, buffer=2_048) as (port, server), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        connection.connect(("127.0.0.1", port))
        connection.sendall(
            b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n" + keeping + b"\r\n"
        )  # less than uvicorn waits for
        began = time.monotonic()
        while not server.server_state.connections:
            time.sleep(0.01)
        while server.server_state.connections and time.monotonic() - began < PATIENCE_S:
            time.sleep(0.05)
        assert not server.server_state.connections
        assert not server.server_state.tasks


def test_room_for_bodies_is_given_back_whatever_happens() -> None:
    room = BodyRoom(100)
    with pytest.raises(FleetError, match="send again") as refused, room.taken(60, "a"), room.taken(41, "b"):
        raise AssertionError
    assert (refused.value.reason, room.free) == ("busy", 100)
    with pytest.raises(RuntimeError), room.taken(100, "a"):
        raise RuntimeError
    assert room.free == 100


def test_one_address_holds_an_eighth_of_the_room_or_one_body() -> None:
    room = BodyRoom(800)
    with room.taken(50, "a"), room.taken(50, "a"):
        with pytest.raises(FleetError, match="send again"), room.taken(1, "a"):
            raise AssertionError
        with room.taken(500, "b"):  # a single one may be larger
            assert room.free == 200
            with pytest.raises(FleetError, match="send again"), room.taken(1, "b"):
                raise AssertionError
    with room.taken(100, "a"):
        assert room.free == 700


def test_a_port_in_use_and_an_address_that_is_not_ours_are_named() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: another program listens there"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(ConfigError, match="no such address"):
        bound_socket("192.0.2.1", 0)
