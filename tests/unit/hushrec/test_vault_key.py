"""A vault without a key asks the keyring, and says clearly when there is none."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from hushrec.vault import Vault
from hushrec_privacy.errors import VaultError
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as ForgetfulKeyring
from keyring.errors import KeyringLocked

HOW = r"give the key itself: FleetSettings\(vault_key=...\) in an app, --vault-key FILE of `hushrec`, or Vault.open"
"""Each of the three who can be without a keyring finds what to do."""


class MemoryKeyring(keyring.backend.KeyringBackend):
    """Keeps passwords for the length of a test."""

    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class LockedKeyring(MemoryKeyring):
    """Answers nothing."""

    def get_password(self, *_: str) -> str | None:
        raise KeyringLocked("secret detail")

    def set_password(self, *_: str) -> None:
        raise KeyringLocked("secret detail")


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


def test_a_new_vault_leaves_its_key_in_the_keyring_and_opens_with_it_wherever_it_lies(
    ring: MemoryKeyring, tmp_path: Path
) -> None:
    with Vault.open(tmp_path / "vault") as vault:
        vault.put("name", b"value")
    ((service, _),) = ring.kept
    assert service == "hushrec vault"
    (tmp_path / "vault").rename(tmp_path / "moved")
    with Vault.open(tmp_path / "moved") as vault:
        assert vault.get("name") == b"value"
    (key,) = ring.kept.values()
    with Vault.open(tmp_path / "moved", bytes.fromhex(key)) as vault:
        assert vault.get("name") == b"value"


def test_two_vaults_have_two_keys(ring: MemoryKeyring, tmp_path: Path) -> None:
    for name in ("one", "other"):
        Vault.open(tmp_path / name).close()
    assert len(ring.kept) == len(set(ring.kept.values())) == 2


@pytest.mark.parametrize("kept", [None, "", "00" * 31, "no hex", "00" * 32])
def test_a_key_that_is_missing_or_wrong_in_the_keyring_is_refused(
    ring: MemoryKeyring, tmp_path: Path, kept: str | None
) -> None:
    Vault.open(tmp_path / "vault").close()
    (place,) = ring.kept
    del ring.kept[place]
    if kept is not None:
        ring.kept[place] = kept
    with pytest.raises(VaultError, match=r"give the key itself|not its own") as refused:
        Vault.open(tmp_path / "vault")
    assert "00" * 31 not in str(refused.value)


def test_a_vault_that_was_made_with_a_key_does_not_open_without_one(ring: MemoryKeyring, tmp_path: Path) -> None:
    Vault.open(tmp_path / "vault", bytes(32)).close()
    assert not ring.kept
    with pytest.raises(VaultError, match=f"no key for this vault.*{HOW}"):
        Vault.open(tmp_path / "vault")


@pytest.mark.parametrize("kind", [NoKeyring, ForgetfulKeyring, LockedKeyring], ids=lambda kind: kind.__module__)
@pytest.mark.usefixtures("ring")
def test_without_a_keyring_that_works_no_vault_is_made(tmp_path: Path, kind: Any) -> None:
    keyring.set_keyring(kind())
    with pytest.raises(VaultError, match=HOW) as refused:
        Vault.open(tmp_path / "vault")
    assert "secret detail" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "keyring":
            raise ImportError(name)
        return whole(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VaultError, match=rf"install hushrec\[fleet\], or {HOW}"):
        Vault.open(tmp_path / "vault")
