"""What a device keeps sealed: keys, certificates and its participation record, in one vault that is opened when needed.

Nothing here is opened before it is asked for, so that without consent no keyring is asked either. The record begins
with the vault and ends with it: who loses the vault, or its key, loses the certificates too, and an account gets one
certificate a plan, so nothing is spent twice within one. A vault that has keys and no record is refused.

A record that an earlier version kept in a file of its own is taken over when it is first needed: into the vault, all
entries at once, and only then is the file destroyed. Killed at any moment, one of the two holds all of it.
"""

import os
import threading
from pathlib import Path

from hushrec_privacy.errors import ConfigError, LedgerError
from hushrec_privacy.ledger import ParticipationRecord, SqliteLedgerStore, verify

from hushrec.fleet.folder import FleetFolder
from hushrec.vault import Vault
from hushrec.vault_ledger import VaultLedgerStore

__all__ = ["SealedStore"]

_PLANS = "plan/"  # of `hushrec.fleet_secrets`: there is no such name before there is a record


class SealedStore:
    """The vault of a fleet's folder and the record in it; safe to use from several threads.

    Args:
        folder: Locked by the caller for as long as this is used.
        key: Of the vault, 32 bytes; None: the system's keyring has it.
        lifetime_rho: For a new record, a decimal string.
    """

    def __init__(self, folder: FleetFolder, key: bytes | None, *, lifetime_rho: str) -> None:
        self._folder, self._key, self._lifetime_rho = folder, key, lifetime_rho
        self._lock = threading.RLock()
        self._vault: Vault | None = None
        self._record: ParticipationRecord | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the record is open. Waits for nobody."""
        return self._record is not None

    @property
    def is_new(self) -> bool:
        """Whether this device never kept anything here. Opens nothing."""
        return not any(map(os.path.lexists, (self._folder.vault, self._folder.plain_record)))

    def vault(self) -> Vault:
        """The vault; opened, or made, at the first call.

        Raises:
            ConfigError: This is closed.
            VaultError: It cannot be opened.
        """
        with self._lock:
            if self._closed:
                raise ConfigError("the fleet client is closed; open another one")
            if self._vault is None:
                self._vault = Vault.open(self._folder.vault, self._key)
            return self._vault

    def record(self) -> ParticipationRecord:
        """The participation record; opened, begun, or taken over from an earlier version, at the first call.

        Raises:
            ConfigError: This is closed.
            LedgerError: It is lost, damaged or altered, or cannot be used.
            VaultError: The vault cannot be opened.
        """
        with self._lock:
            if self._record is None:
                self._record = self._opened(self.vault())
            return self._record

    def ledger(self) -> VaultLedgerStore:
        """The entries of the record, to be read.

        Raises:
            ConfigError, LedgerError, VaultError: As for `record`.
        """
        self.record()
        return VaultLedgerStore(self.vault())

    def close(self) -> None:
        """Close the vault. Closing twice is allowed; anything else afterwards is refused, or raises LedgerError."""
        with self._lock:
            self._closed = True
            if self._vault is not None:
                self._vault.close()

    def _opened(self, vault: Vault) -> ParticipationRecord:
        store = VaultLedgerStore(vault)
        try:
            _take_over(self._folder.plain_record, store)
        except OSError as error:
            raise LedgerError(
                f"{self._folder.plain_record}: the record of an earlier version cannot be taken over "
                f"({error.strerror}); check the rights of its folder"
            ) from error
        if next(store.scan(), None) is not None:
            return ParticipationRecord(store)
        if any(name.startswith(_PLANS) for name in vault.names()):
            raise LedgerError(
                f"{self._folder.vault}: holds the keys of plans, and the record of how often this device took part is "
                "gone: leave the fleet, then this device takes part again from the next plan on"
            )
        return ParticipationRecord.begin(store, lifetime_rho=self._lifetime_rho)


def _take_over(plain: Path, store: VaultLedgerStore) -> None:
    """Bring a record from a file of its own, if there is one, into the vault, and destroy the file."""
    _finish_destroying(plain)
    if not _holds_something(plain):
        return
    with SqliteLedgerStore(plain) as old:
        verify(old)
        records = list(old.scan())
    kept = list(store.scan())
    if not kept:
        store.append_all(records)
    elif kept[: len(records)] != records:
        raise LedgerError(
            f"{plain}: is not what the vault took over, an older hushrec has written to it since; nothing is sent. "
            "Leave the fleet and remove the folder: this device takes part again from the next plan on"
        )
    plain.rename(_doomed(plain))
    _finish_destroying(plain)


def _finish_destroying(plain: Path) -> None:
    """Overwrite and remove a file whose contents the vault has. What the disk keeps of it is beyond reach here."""
    doomed = _doomed(plain)
    try:
        size = doomed.stat().st_size
    except FileNotFoundError:
        return
    _sync_folder(doomed.parent)  # or a lost rename would leave an overwritten file under the record's own name
    with doomed.open("r+b") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    doomed.unlink()
    _sync_folder(doomed.parent)


def _doomed(plain: Path) -> Path:
    return plain.with_name(f"{plain.name}.sealed")


def _holds_something(plain: Path) -> bool:
    """Whether there is a record; an empty file is what a killed earlier version left before it had spent anything."""
    if not plain.exists():
        return False
    if plain.stat().st_size:
        return True
    plain.unlink()
    return False


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # others cannot open a folder
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
