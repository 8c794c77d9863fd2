"""One certificate an account and plan: the same again for the same device, none for another, and nothing named."""

import copy
import json
import pickle
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hushrec.messages import ENROLMENT_DOMAIN, CertificateAnswer, CertificateBody, enrolment_bytes, path_of, read_json
from hushrec_privacy.enrolment import Identity, login_token, verified_certificate
from hushrec_privacy.errors import ConfigError, EnrolmentError, StorageError
from hushrec_server.authority import AUTHORITY_PUBLIC, Authority, create_authority
from hushrec_server.authority_app import authority_app
from hushrec_server.config import LimitSettings

from tests.asgi import ask

PLAN = "ab" * 32


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_authority(tmp_path / "authority")
    return tmp_path / "authority"


@pytest.fixture
def authority(folder: Path, clock: Clock) -> Iterator[Authority]:
    opened = Authority(folder, clock=clock)
    yield opened
    opened.close()


def asked(
    authority: Authority, account: str = "ann", *, identity: Identity | None = None, plan: str = PLAN
) -> CertificateBody:
    identity = identity or Identity.create()
    token = authority.token(account, plan, valid_s=600)
    proof = identity.sign(ENROLMENT_DOMAIN, enrolment_bytes(plan, token))
    return CertificateBody(plan, token, identity.public(), proof)


def test_an_account_gets_a_certificate_that_names_its_device(authority: Authority) -> None:
    body = asked(authority)
    found = verified_certificate(authority.certify(body), authority.public(), plan_id=PLAN)
    assert (found.identity, len(found.pseudonym)) == (body.identity, 32)
    assert authority.count(PLAN) == 1


def test_the_same_device_gets_the_same_again_and_another_device_of_the_account_none(authority: Authority) -> None:
    identity = Identity.create()
    first = authority.certify(asked(authority, identity=identity))
    assert authority.certify(asked(authority, identity=identity)) == first
    with pytest.raises(EnrolmentError, match="another device already"):
        authority.certify(asked(authority))
    assert authority.certify(asked(authority, identity=identity)) == first
    assert authority.count(PLAN) == 1


def test_accounts_and_plans_are_apart(authority: Authority) -> None:
    identity = Identity.create()
    certificates = [
        authority.certify(asked(authority, "ann", identity=identity)),
        authority.certify(asked(authority, "bob")),
        authority.certify(asked(authority, "ann", identity=identity, plan="cd" * 32)),
    ]
    assert len({certificate[33:49] for certificate in certificates}) == 3


def test_it_is_remembered_after_a_restart(folder: Path, clock: Clock, authority: Authority) -> None:
    first = authority.certify(asked(authority, identity=(identity := Identity.create())))
    again = Authority(folder, clock=clock)
    assert again.certify(asked(again, identity=identity)) == first
    with pytest.raises(EnrolmentError):
        again.certify(asked(again))
    again.close()


def test_a_token_that_is_over_foreign_or_for_another_plan_gives_nothing(authority: Authority, clock: Clock) -> None:
    body = asked(authority)
    clock.now += 600
    with pytest.raises(EnrolmentError, match="has ended"):
        authority.certify(body)
    clock.now -= 600
    with pytest.raises(EnrolmentError):
        authority.certify(msgspec.structs.replace(body, plan="cd" * 32))
    foreign = login_token(b"\1" * 32, "ann", PLAN, int(clock.now) + 600)
    with pytest.raises(EnrolmentError, match="not of this shop's login"):
        authority.certify(msgspec.structs.replace(body, token=foreign))
    assert authority.count(PLAN) == 0


def test_whoever_does_not_have_the_identity_cannot_enrol_it(authority: Authority) -> None:
    body = asked(authority)
    stranger = Identity.create()
    for proof in (bytes(64), stranger.sign(ENROLMENT_DOMAIN, enrolment_bytes(PLAN, body.token))):
        with pytest.raises(EnrolmentError, match="identity's secret"):
            authority.certify(msgspec.structs.replace(body, proof=proof))
    with pytest.raises(EnrolmentError):
        authority.certify(msgspec.structs.replace(body, identity=stranger.public()))
    assert authority.count(PLAN) == 0


def test_of_devices_that_race_for_one_account_one_wins(authority: Authority) -> None:
    bodies = [asked(authority) for _ in range(8)]
    given: list[bytes] = []

    def enrol(body: CertificateBody) -> None:
        try:
            given.append(authority.certify(body))
        except EnrolmentError:
            return

    threads = [threading.Thread(target=enrol, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == authority.count(PLAN) == 1


def test_what_is_kept_names_no_account(folder: Path, authority: Authority) -> None:
    authority.certify(asked(authority, "ann@example.com"))
    for path in folder.iterdir():
        assert b"ann@example" not in path.read_bytes()
    with sqlite3.connect(folder / "certificates.sqlite") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(certificates)")]
    connection.close()
    assert columns == ["plan", "pseudonym", "identity"]


def test_its_files_are_its_owners_alone_and_never_overwritten(folder: Path, authority: Authority) -> None:
    for path in folder.iterdir():
        secret = path.name != AUTHORITY_PUBLIC
        assert not secret or stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (folder / AUTHORITY_PUBLIC).read_text().strip() == authority.public().hex()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="never overwritten"):
        create_authority(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["authority.key", "pseudonyms.key", "login.key"])
def test_a_missing_or_open_key_is_named(folder: Path, clock: Clock, name: str) -> None:
    (folder / name).chmod(0o644)
    with pytest.raises(ConfigError, match=name):
        Authority(folder, clock=clock)
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=name):
        Authority(folder, clock=clock)


def test_without_its_certificates_it_does_not_begin_anew(folder: Path, clock: Clock) -> None:
    path = folder / "certificates.sqlite"
    path.unlink()
    with pytest.raises(
        StorageError, match=r"certificates\.sqlite: is missing, and without it accounts could enrol twice"
    ):
        Authority(folder, clock=clock)
    assert not path.exists()


@pytest.mark.parametrize("left", ["nothing", "no table", "another table"])
def test_emptied_certificates_are_not_taken_for_those_of_a_new_authority(folder: Path, clock: Clock, left: str) -> None:
    path = folder / "certificates.sqlite"
    if left == "nothing":
        path.write_bytes(b"")
    else:
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE certificates" if left == "no table" else "ALTER TABLE certificates RENAME TO c")
        connection.commit()
        connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"certificates\.sqlite: .*without it accounts could enrol twice; restore"):
        Authority(folder, clock=clock)
    assert path.read_bytes() == before


def test_a_database_of_another_program_or_version_is_refused(folder: Path, clock: Clock) -> None:
    path = folder / "certificates.sqlite"
    for statements in (["CREATE TABLE x(y)"], ["PRAGMA application_id=1751217524", "PRAGMA user_version=2"]):
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        with pytest.raises(StorageError, match=r"certificates\.sqlite"):
            Authority(folder, clock=clock)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError):
        Authority(folder, clock=clock)


def test_it_shows_nothing_of_itself_and_does_not_travel(authority: Authority) -> None:
    assert repr(authority) == "Authority()"
    for travel in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            travel(authority)


def test_over_http_a_device_enrols(authority: Authority) -> None:
    app = authority_app(authority)
    body = asked(authority)
    answer = ask(app, "POST", path_of("certificate"), body=msgspec.json.encode(body))
    assert answer.status == 200
    given = read_json(answer.body, CertificateAnswer).certificate
    assert verified_certificate(given, authority.public(), plan_id=PLAN).identity == body.identity
    assert ask(app, "GET", path_of("health")).status == 200


@pytest.mark.parametrize("wrong", [b"", b"{}", b"[]", b"null", b"\xff", b"{" * 4_000])
def test_over_http_what_is_no_request_is_refused(authority: Authority, wrong: bytes) -> None:
    answer = ask(authority_app(authority), "POST", path_of("certificate"), body=wrong)
    assert (answer.status, json.loads(answer.body)["reason"]) == (400, "malformed")


def test_over_http_a_refusal_has_its_type_and_long_bodies_are_not_read(authority: Authority) -> None:
    app = authority_app(authority)
    body = msgspec.json.encode(msgspec.structs.replace(asked(authority), proof=bytes(64)))
    answer = ask(app, "POST", path_of("certificate"), body=body)
    assert (answer.status, json.loads(answer.body)["type"]) == (403, "enrolment")
    long = ask(app, "POST", path_of("certificate"), headers={"content-length": "5000"}, pieces=[])
    assert long.status == 413


def test_over_http_an_address_cannot_ask_without_end(authority: Authority) -> None:
    app = authority_app(authority, LimitSettings(address_per_minute=6))
    statuses = [ask(app, "POST", path_of("certificate"), body=b"{}").status for _ in range(12)]
    assert statuses == [400] * 10 + [429] * 2


def test_only_the_authoritys_routes_are_served(authority: Authority) -> None:
    app = authority_app(authority)
    for path in ("/v1/fleet", "/metrics", "/admin/v1/status", "/readyz"):
        assert ask(app, "GET", path).status == 404
