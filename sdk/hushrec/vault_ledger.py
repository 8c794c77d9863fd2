"""A ledger inside a vault: where a device's participation record lies, sealed entry by entry beside its keys.

record/<index>   hash of the entry before (32), its own (32), then the entry; the index has eight digits

An appended entry is on the disk before the call returns, as every value of a vault is. Who takes entries out, or edits
them, makes the whole vault unusable, keys and certificates with it: no device goes on with half a record. Names are not
hidden, so whoever reads the file can count the entries.
"""

import contextlib
from collections.abc import Iterable, Iterator

from hushrec_privacy.errors import LedgerError, VaultError
from hushrec_privacy.ledger import Anchor, Record
from hushrec_privacy.ledger.chain import follows

from hushrec.vault import Vault

__all__ = ["VaultLedgerStore"]

_PREFIX = "record/"
_HASH_BYTES = 32


class VaultLedgerStore:
    """A `hushrec_privacy.ledger.LedgerStore` in an open vault; closing the vault is the caller's.

    >>> import tempfile
    >>> from hushrec_privacy.ledger import ParticipationRecord
    >>> with tempfile.TemporaryDirectory() as folder, Vault.open(f"{folder}/vault.db", bytes(32)) as vault:
    ...     record = ParticipationRecord.begin(VaultLedgerStore(vault), lifetime_rho="1")
    ...     record.totals().rho_left, vault.names()
    ('1', ['record/00000000'])
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def append(self, record: Record) -> bool:
        """See `LedgerStore`.

        Raises:
            LedgerError: See there.
        """
        value, added = record.previous + record.hash + record.entry, []

        def add(there: bytes | None) -> bytes:
            if there is None:
                added.append(value)
            return there or value

        with _told():
            if not follows(record, self._anchor(record.index - 1)):  # no entry is ever changed or taken out
                return False
            self._vault.update(_name(record.index), add)
        return bool(added)

    def append_all(self, records: Iterable[Record]) -> None:
        """Fill an empty store: all records at once or, if anything fails, none.

        Raises:
            LedgerError: They could not be written.
        """
        with _told():
            self._vault.put_many({_name(one.index): one.previous + one.hash + one.entry for one in records})

    def scan(self, start: int = 0) -> Iterator[Record]:
        """See `LedgerStore`.

        Raises:
            LedgerError: See there.
        """
        with _told():
            values = self._vault.values(_PREFIX)
        for index in range(start, len(values)):
            value = values.get(_name(index))
            if value is None:
                raise LedgerError(f"entry {index} of the participation record is missing in its vault")
            yield Record(index, value[:_HASH_BYTES], value[_HASH_BYTES : 2 * _HASH_BYTES], value[2 * _HASH_BYTES :])

    def close(self) -> None:
        """See `LedgerStore`; nothing is held."""

    def _anchor(self, index: int) -> Anchor | None:
        value = None if index < 0 else self._vault.get(_name(index))
        return None if value is None else Anchor(index, value[_HASH_BYTES : 2 * _HASH_BYTES])


def _name(index: int) -> str:
    return f"{_PREFIX}{index:08}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except VaultError as error:
        raise LedgerError(f"the participation record in the vault cannot be used: {error.message}") from error
