"""Where the key of a vault comes from: the app gives it, or the operating system's keyring keeps it.

The keyring is asked through the library `keyring` (extra `fleet`), under the service "hushrec vault" and the vault's
id, so that a file may be moved. Which keyring that is, and who else may read it, the system decides.
"""

import os

from hushrec_privacy.errors import ConfigError, VaultError

__all__ = ["VAULT_KEY_BYTES", "checked_key", "key_from_keyring", "new_key_in_keyring"]

VAULT_KEY_BYTES = 32
SERVICE = "hushrec vault"
_GIVE = (
    "give the key itself: FleetSettings(vault_key=...) in an app, --vault-key FILE of `hushrec`, or "
    "Vault.open(..., key=...)"
)


def checked_key(key: bytes) -> bytes:
    """Give back a key that an app passed.

    Raises:
        ConfigError: It is not 32 bytes.
    """
    if not isinstance(key, bytes) or len(key) != VAULT_KEY_BYTES:
        raise ConfigError(f"the key of a vault has {VAULT_KEY_BYTES} bytes, from a source of good randomness")
    return key


def new_key_in_keyring(vault_id: bytes) -> bytes:
    """Draw a key for a new vault and leave it in the keyring.

    Raises:
        VaultError: There is no keyring, or it does not keep what it is given.
    """
    key = os.urandom(VAULT_KEY_BYTES)
    _in_keyring("set_password", vault_id, key.hex())
    if _in_keyring("get_password", vault_id) != key.hex():  # one library's stand-in for a keyring keeps nothing
        raise VaultError(f"the system's keyring does not keep the vault's key; {_GIVE}")
    return key


def key_from_keyring(vault_id: bytes) -> bytes:
    """Find the key of a vault in the keyring.

    Raises:
        VaultError: There is no keyring, or the key is not in it.
    """
    found = _in_keyring("get_password", vault_id)
    try:
        return checked_key(bytes.fromhex(found or ""))
    except (ValueError, ConfigError) as error:
        raise VaultError(
            "the system's keyring has no key for this vault: it was made with a key of the app's, or elsewhere; "
            + _GIVE
        ) from error


def _in_keyring(action: str, vault_id: bytes, *values: str) -> str | None:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise VaultError(
            f"no key was given and the library keyring is not installed: install hushrec[fleet], or {_GIVE}"
        ) from error
    try:
        found: str | None = getattr(keyring, action)(SERVICE, vault_id.hex(), *values)
    except (KeyringError, OSError, RuntimeError) as error:  # RuntimeError: no keyring at all, in some versions
        raise VaultError(
            f"no key was given and the system's keyring cannot be used ({type(error).__name__}); {_GIVE}"
        ) from error
    return found
