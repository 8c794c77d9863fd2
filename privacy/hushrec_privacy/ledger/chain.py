"""The chain of a ledger: each entry's hash covers all entries before it. What a store of such a chain must do.

hash = SHA-256("hushrec ledger 1" ‖ hash of the entry before, 32 zero bytes for the first ‖ the entry's bytes). No key:
the chain finds damage and careless editing. Against one who can rewrite the whole file only an anchor that is kept
elsewhere helps.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hushrec_privacy.errors import ConfigError, LedgerError

__all__ = ["Anchor", "LedgerStore", "MemoryLedgerStore", "Record", "check_record", "follows", "next_record"]

DOMAIN = b"hushrec ledger 1"
_ANCHOR = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Anchor:
    """One point of a ledger: an entry's index and hash, which stand for it and all entries before it.

    Kept where whoever can change the ledger cannot reach it (a signed release, another machine, paper), it shows later
    that the ledger is not an older copy and that nothing up to that point was rewritten. Without one kept elsewhere
    neither can be seen.

    Attributes:
        index: Number of the entry, from 0.
        hash: Its hash, 32 bytes.
    """

    index: int
    hash: bytes

    def __str__(self) -> str:
        """One line, as `Anchor.parse` reads it: index, colon, hash in hex."""
        return f"{self.index}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> "Anchor":
        """Read an anchor that was written by `str`.

        Raises:
            ConfigError: It is not one.

        >>> Anchor.parse("7:" + "0a" * 32).index
        7
        """
        found = _ANCHOR.fullmatch(text.strip())
        if not found:
            raise ConfigError("the anchor is wrong; it looks like 41:5f0c…, the index and 64 lower-case hex digits")
        return cls(int(found[1]), bytes.fromhex(found[2]))


@dataclass(frozen=True, slots=True)
class Record:
    """An entry in its place.

    Attributes:
        index: Its number, from 0.
        previous: Hash of the entry before it; 32 zero bytes for the first.
        hash: Its own hash.
        entry: Its bytes, canonical JSON.
    """

    index: int
    previous: bytes
    hash: bytes
    entry: bytes

    @property
    def anchor(self) -> Anchor:
        """The point of the ledger that this entry makes."""
        return Anchor(self.index, self.hash)


class LedgerStore(Protocol):
    """Where the records of one ledger lie. It keeps bytes; what they mean is checked above it."""

    def append(self, record: Record) -> bool:
        """Add a record if the last one is still the one that it names as the one before it; durable on return.

        Compare and append are one step, whatever other processes do at that moment.

        Returns:
            True: it is stored, and survives the death of the process and of the power. False: another record has come
            in between, and nothing was written.

        Raises:
            LedgerError: It could not be written; if in doubt it may be there, never half of it.
        """

    def scan(self, start: int = 0) -> Iterator[Record]:
        """Give the records from index `start` on, in order.

        Raises:
            LedgerError: They cannot be read.
        """

    def close(self) -> None:
        """Give back what it holds; closing twice is allowed."""


class MemoryLedgerStore:
    """A store that is gone with the process: for simulations and tests, never where a budget protects a person."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> bool:
        """See `LedgerStore`."""
        last = self.records[-1].anchor if self.records else None
        if not follows(record, last):
            return False
        self.records.append(record)
        return True

    def scan(self, start: int = 0) -> Iterator[Record]:
        """See `LedgerStore`."""
        yield from self.records[start:]

    def close(self) -> None:
        """See `LedgerStore`; nothing is held."""


def next_record(entry: bytes, last: Anchor | None) -> Record:
    """Put an entry after the last one.

    Args:
        entry: Its bytes.
        last: The ledger's last entry; None: it has none.

    >>> next_record(b"{}", None).index
    0
    """
    previous = bytes(32) if last is None else last.hash
    index = 0 if last is None else last.index + 1
    return Record(index, previous, hashlib.sha256(DOMAIN + previous + entry).digest(), entry)


def follows(record: Record, last: Anchor | None) -> bool:
    """Whether a record names this one as the one before it."""
    if last is None:
        return record.index == 0 and record.previous == bytes(32)
    return record.index == last.index + 1 and record.previous == last.hash


def check_record(record: Record, last: Anchor | None) -> None:
    """Refuse a record that does not continue the chain.

    Raises:
        LedgerError: Entries are missing or out of order, or a hash is not that of the entry.
    """
    expected = next_record(record.entry, last)
    if record.index != expected.index:
        raise LedgerError(f"entry {expected.index} of the ledger is missing or not in its place: it was altered")
    if record != expected:
        raise LedgerError(
            f"entry {record.index} of the ledger does not fit its hash: it, or one before it, was altered"
        )
