"""One request, one answer, within bounds: against a real server on loopback that misbehaves."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hushrec.fleet import http
from hushrec.fleet.http import HttpConnection
from hushrec_privacy.errors import ConfigError, FleetError

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A server that answers every request so; gives its address and the requests."""
    seen: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.sent_body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(self)
            answer(self)

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(status: int, body: bytes, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@contextmanager
def connected(url: str) -> Iterator[HttpConnection]:
    connection = HttpConnection(url)
    try:
        yield connection
    finally:
        connection.close()


def test_bytes_go_there_and_come_back() -> None:
    with served(say(200, b"answer")) as (url, seen), connected(url + "/under") as connection:
        reply = connection.request("POST", "/v1/x", b"question", {"Hushrec-Device": "ab"}, largest=6)
        assert (reply.status, reply.body, reply.retry_after_s) == (200, b"answer", None)
        (request,) = seen
        assert (request.command, request.path, request.sent_body) == ("POST", "/under/v1/x", b"question")  # type: ignore[attr-defined]
        assert request.headers["Hushrec-Device"] == "ab"


def test_a_request_tells_no_more_of_the_device_than_it_must() -> None:
    with served(say(200, b"", Set_Cookie="id=1")) as (url, seen), connected(url) as connection:
        for _ in range(2):
            connection.request("GET", "/", b"", {}, largest=1)
        for request in seen:
            assert request.headers["User-Agent"] == "hushrec"
            assert {name.lower() for name in request.headers} <= {"host", "user-agent", "accept-encoding", "accept"}


def test_one_socket_serves_many_requests() -> None:
    with served(say(200, b"x")) as (url, seen), connected(url) as connection:
        for _ in range(5):
            connection.request("POST", "/", b"y", {}, largest=10)
        assert len({request.client_address for request in seen}) == 1


def test_a_refusal_is_given_back_with_the_wait_that_it_asks_for() -> None:
    with served(say(429, b"{}", Retry_After="7")) as (url, _), connected(url) as connection:
        assert connection.request("GET", "/", b"", {}, largest=10) == (429, b"{}", 7.0)


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9", "", "٣"])
def test_a_wait_that_is_no_number_of_seconds_is_passed_over(asked: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(f"HTTP/1.1 503 x\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n".encode())

    with served(answer) as (url, _), connected(url) as connection:
        assert connection.request("GET", "/", b"", {}, largest=10).retry_after_s is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with (
        served(say(200, b"other")) as (elsewhere, asked),
        served(say(status, b"", Location=elsewhere)) as (url, _),
        connected(url) as connection,
    ):
        with pytest.raises(FleetError, match="follows nobody") as refused:
            connection.request("GET", "/", b"", {}, largest=10)
        assert refused.value.reason == "bad-answer"
        assert not asked


def test_an_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    with served(say(200, bytes(1_000_000))) as (url, _), connected(url) as connection:
        with pytest.raises(FleetError, match="larger") as refused:
            connection.request("GET", "/", b"", {}, largest=999_999)
        assert refused.value.reason == "bad-answer"
        assert len(connection.request("GET", "/", b"", {}, largest=1_000_000).body) == 1_000_000


def test_a_large_refusal_is_refused_too_however_large_a_good_answer_may_be() -> None:
    with served(say(500, bytes(10_000))) as (url, _), connected(url) as connection, pytest.raises(FleetError):
        connection.request("GET", "/", b"", {}, largest=1_000_000)


def test_a_compressed_answer_is_not_unpacked() -> None:
    with served(say(200, b"\x1f\x8b" + bytes(20), Content_Encoding="gzip")) as (url, _), connected(url) as connection:
        assert connection.request("GET", "/", b"", {}, largest=100).body[:2] == b"\x1f\x8b"


def test_nobody_at_the_address_is_an_error_to_come_back_from() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with connected(url) as connection, pytest.raises(FleetError) as refused:
        connection.request("GET", "/", b"", {}, largest=10)
    assert (refused.value.reason, refused.value.retry_after_s) == ("unreachable", 0)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"nonsense\r\n\r\n"])
def test_a_connection_that_breaks_off_is_an_error_to_come_back_from(said: bytes) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(said)
        request.close_connection = True

    with served(answer) as (url, _), connected(url) as connection, pytest.raises(FleetError) as refused:
        connection.request("GET", "/", b"", {}, largest=100)
    assert refused.value.reason == "unreachable"


def test_a_server_that_says_nothing_or_drips_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(_request: BaseHTTPRequestHandler) -> None:
        over.wait(10)

    def dripping(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.05):
            request.wfile.write(bytes(1024))
            request.wfile.flush()

    def dripping_its_head(request: BaseHTTPRequestHandler) -> None:
        for letter in b"HTTP/1.1 200 OK\r\n" + b"X-Long: yes\r\n" * 1_000:
            request.wfile.write(bytes([letter]))
            request.wfile.flush()
            if over.wait(0.02):
                return

    monkeypatch.setattr(http, "READ_S", 0.2)
    monkeypatch.setattr(http, "WHOLE_S", 0.4)
    for answer in (silent, dripping, dripping_its_head):
        began = time.monotonic()
        with served(answer) as (url, _), connected(url) as connection:
            with pytest.raises(FleetError) as refused:
                connection.request("GET", "/", b"", {}, largest=100_000)
            over.set()
        assert refused.value.reason == "unreachable"
        assert time.monotonic() - began < 5
        over = threading.Event()


def test_an_answer_has_more_time_than_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.6)
        say(200, b"x")(request)

    monkeypatch.setattr(http, "CONNECT_S", 0.2)
    with served(busy) as (url, seen), connected(url) as connection:
        for _ in range(2):
            assert connection.request("GET", "/", b"", {}, largest=10).body == b"x"
        assert len({request.client_address for request in seen}) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    def closing(request: BaseHTTPRequestHandler) -> None:
        say(200, b"x")(request)
        request.close_connection = True

    with served(closing) as (url, seen), connected(url) as connection:
        for _ in range(3):
            assert connection.request("GET", "/", b"", {}, largest=10).body == b"x"
            time.sleep(0.05)
        assert len({request.client_address for request in seen}) == 3


def test_after_a_failure_the_next_request_begins_anew() -> None:
    answers = [say(200, bytes(100)), say(302, b""), say(200, b"x")]
    with served(lambda request: answers.pop(0)(request)) as (url, seen), connected(url) as connection:
        for _ in range(2):
            with pytest.raises(FleetError):
                connection.request("GET", "/", b"", {}, largest=10)
        assert connection.request("GET", "/", b"", {}, largest=10).body == b"x"
        assert len({request.client_address for request in seen}) == 3


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with served(say(200, b"x")) as (url, _), connected(url) as connection:
        assert connection.request("GET", "/", b"", {}, largest=1).body == b"x"


def test_plain_http_to_another_machine_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="https"):
        HttpConnection("http://shop.example")


def test_a_connection_opens_no_socket_before_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    HttpConnection("https://shop.example").close()
