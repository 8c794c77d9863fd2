"""Requests end at their deadline and trust no certificate but those of this machine's authorities."""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hushrec.updates.fetcher import BoundedFetcher
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError

from tests.release_shop import Server, serving

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file").write_bytes(CONTENT)
    with serving(tmp_path / "files") as server:
        yield server


def fetcher(seconds: float = 10.0) -> BoundedFetcher:
    made = BoundedFetcher(time.monotonic)
    made.deadline = time.monotonic() + seconds
    return made


def test_a_file_is_fetched_and_counted(server: Server) -> None:
    one = fetcher()
    assert one.download_bytes(f"{server.url}/file", len(CONTENT)) == CONTENT
    assert one.received == len(CONTENT)


@pytest.mark.parametrize("offset", [1, 255, len(CONTENT) - 1])
def test_the_rest_of_a_file_is_fetched(server: Server, offset: int) -> None:
    begin, chunks = fetcher().fetch_from(f"{server.url}/file", offset)
    assert (begin, b"".join(chunks)) == (offset, CONTENT[offset:])


def test_a_server_without_ranges_begins_anew(server: Server) -> None:
    server.ranges = False
    begin, chunks = fetcher().fetch_from(f"{server.url}/file", 99)
    assert (begin, b"".join(chunks)) == (0, CONTENT)


def test_a_file_that_is_not_there_says_so(server: Server) -> None:
    with pytest.raises(DownloadHTTPError) as failed:
        fetcher().fetch(f"{server.url}/other")
    assert failed.value.status_code == 404


def test_after_the_deadline_nothing_is_asked(server: Server) -> None:
    with pytest.raises(SlowRetrievalError):
        fetcher(0).fetch(f"{server.url}/file")
    assert not server.asked


def certified(server: Server, folder: Path) -> Path:
    """Give the server a certificate that it signed itself."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return pem


def test_a_certificate_that_nobody_vouches_for_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certified(server, tmp_path)
    url = server.url.replace("http:", "https:")
    with pytest.raises(DownloadError, match="SSL"):
        fetcher().fetch(f"{url}/file")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert b"".join(fetcher().fetch(f"{url}/file")) == CONTENT
    with pytest.raises(DownloadError, match="SSL"):
        fetcher().fetch(f"{url.replace('127.0.0.1', 'localhost')}/file")  # another name than the certificate's
