"""Without consent nothing is opened: no keyring, no socket, no sealed record."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import numpy as np
import pytest
from hushrec.fleet.client import FleetClient
from hushrec.fleet.settings import FleetSettings
from hushrec.fleet_secrets import FleetSecrets
from hushrec.receipt import SEALED_PAGE
from hushrec.recommender import Recommender
from hushrec_privacy.errors import FleetError

from tests.whole_fleet import GOOD, WholeFleet


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    return WholeFleet(tmp_path / "fleet")


class NotedKeyring(keyring.backend.KeyringBackend):
    """Keeps passwords for the length of a test, and notes that it was asked."""

    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append("get")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.asked.append("set")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[NotedKeyring]:
    before, noted = keyring.get_keyring(), NotedKeyring()
    keyring.set_keyring(noted)
    yield noted
    keyring.set_keyring(before)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sockets and names that anybody asked for; nobody gets one."""
    asked: list[str] = []

    def refuse(*arguments: object, **_named: object) -> None:
        asked.append(str(arguments))
        raise OSError

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    return asked


def a_client(fleet: WholeFleet) -> FleetClient:
    """As an app makes it, without consent, its key in the system's keyring."""

    def token(plan_id: str) -> str:
        raise AssertionError(plan_id)

    settings = FleetSettings(fleet.trust, fleet.folder / "device-x", limits=fleet.limits)
    shopper = Recommender.open(fleet.bundle.root)
    return FleetClient("https://learn.shop.example", shopper, settings, conditions=lambda: GOOD, token=token)


def used(client: FleetClient) -> None:
    """All that an app does with a client whose shopper did not agree."""
    assert not client.consent
    for _ in range(20):
        client.step()
    client.start()
    time.sleep(0.05)
    client.status()
    client.receipt()
    client.allow_direct("user-vector", True)
    with pytest.raises(FleetError, match="not known yet"):
        client.send_features("user-vector", np.ones(8))
    client.stop()


def test_without_consent_no_keyring_is_asked_no_socket_is_opened_and_no_name_is_looked_up(
    fleet: WholeFleet, ring: NotedKeyring, outside: list[str]
) -> None:
    with a_client(fleet) as client:
        used(client)
        assert client.status().rho_left == "1000000000"
        assert "This device has sent nothing" in client.receipt()
        assert client.receipt(unseal=True) == client.receipt(), "there is nothing to open"
        client.leave()
        assert not ring.asked
        assert not outside
        assert not (fleet.folder / "device-x" / "vault.db").exists()
        client.consent = True
        client._gate.reopen()
        client.step()
        assert ring.asked == ["set", "get", "get"]
        assert outside, "or the counter counts nothing"
    assert client.status().rho_left == "1000000000"


def test_a_record_that_is_there_stays_sealed_without_consent_until_somebody_asks_for_it(
    fleet: WholeFleet, ring: NotedKeyring, outside: list[str]
) -> None:
    with a_client(fleet) as client:
        client.consent = True
        client.step()
        FleetSecrets(client._store.vault()).identity(fleet.plan.plan_id)
    ring.asked.clear()
    outside.clear()
    with a_client(fleet) as client:
        used(client)
        assert client.status().rho_left is None
        assert client.receipt() == SEALED_PAGE
        assert not ring.asked
        assert "This device has sent nothing" in client.receipt(unseal=True)
        assert ring.asked == ["get"]
        assert client.status().rho_left == "1000000000"
    with a_client(fleet) as client:
        client.leave()
        assert ring.asked == ["get", "get"]
        assert not [name for name in client._store.vault().names() if name.startswith("plan/")]
    assert not outside
