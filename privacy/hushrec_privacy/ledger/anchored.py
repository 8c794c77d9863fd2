"""Anchors as people keep them: a head on paper, or a file elsewhere that a ledger itself keeps up to date.

A ledger alone cannot tell itself from an older copy. A file outside its folder can: after every entry, and before the
caller makes what the entry pays for, the new head is on the disk there. So a ledger that was restored, or that another
copy has overtaken, is older than the file and is refused. It does not help when the file is restored together with the
ledger, or when a copy is used without it.
"""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from hushrec_privacy.errors import ConfigError, LedgerError
from hushrec_privacy.ledger.chain import Anchor, LedgerStore
from hushrec_privacy.ledger.entries import Entry
from hushrec_privacy.ledger.ledger import Ledger

__all__ = ["AnchoredLedger", "anchor_file", "anchored_ledger", "kept_anchor", "read_anchor"]

_HEAD = re.compile(r"\s*[0-9]+:")  # what begins like this was meant as a head, not as the name of a file
_LARGEST_FILE_BYTES = 200
_ADVICE = "if there is no newer copy, its whole budget is spent"


class AnchoredLedger(Ledger):
    """A ledger that keeps its head in a file elsewhere.

    Guarantee:
        When a call returns, the file stands for the ledger as it is then, and survives the loss of power. A ledger that
        is older than the file is refused when it is opened; one that another copy overtakes through the same file,
        before it adds its next entry. Copies that add the same entry in the same second cannot be told apart then: it
        is found at the first entry that they do not add in step.
    """

    def __init__(self, store: LedgerStore, path: Path, clock: Callable[[], int] | None = None) -> None:
        """Compare a ledger with its anchor file and go on with it; a ledger that has spent nothing gets a new file.

        Args:
            store: Where the ledger lies.
            path: The file, outside of whatever the ledger is backed up and restored with.
            clock: As for `Ledger`; times are what tells the entries of two copies apart.

        Raises:
            LedgerError: See `verify`; the ledger is not what the file stands for; the file is missing although the
                ledger has spent something, is no anchor, or cannot be written.
        """
        kept = kept_anchor(str(path))
        try:
            super().__init__(store, anchor=kept, clock=clock)
        except LedgerError as error:
            raise LedgerError(f"compared with the anchor in {path}: {error.message}; {_ADVICE}") from error
        known = self.totals()
        if kept is None and any(plan.rounds for plan in known.plans.values()):
            raise LedgerError(
                f"{path}: is not there, but the ledger has spent: restore the file; if the ledger never had one and is "
                "certainly the newest, make one: hushrec privacy ledger verify LEDGER > FILE"
            )
        self._path, self._kept = path, known.head
        _write(path, known.head)

    def _add(self, entry: Entry, dry_run: bool) -> Anchor:
        self._check_kept()
        head = super()._add(entry, dry_run)
        if not dry_run:
            self._check_kept()  # of two copies that spent at the same moment one stops here, or at its next entry
            _write(self._path, head)
            self._kept = head
        return head

    def _check_kept(self) -> None:
        if kept_anchor(str(self._path)) != self._kept:
            raise LedgerError(
                f"{self._path}: no longer holds the head of this ledger: another copy of it is in use; end one of them "
                "and go on with the other"
            )


def anchored_ledger(store: LedgerStore, anchor: str | None, clock: Callable[[], int] | None = None) -> Ledger:
    """Open a ledger with whatever the user gave as its anchor.

    Args:
        store: Where the ledger lies.
        anchor: A head, compared once; the name of a file, compared and kept; None: neither.
        clock: As for `Ledger`.

    Raises:
        ConfigError: It looks like a head and is none.
        LedgerError: See `Ledger` and `AnchoredLedger`.
    """
    path = None if anchor is None else anchor_file(anchor)
    if path is not None:
        return AnchoredLedger(store, path, clock)
    return Ledger(store, anchor=None if anchor is None else Anchor.parse(anchor), clock=clock)


def anchor_file(text: str) -> Path | None:
    """The file that an anchor's text names; None: it is a head itself.

    >>> anchor_file("7:" + "0a" * 32), str(anchor_file("shop.anchor"))
    (None, 'shop.anchor')
    """
    return None if _HEAD.match(text) else Path(text)


def kept_anchor(text: str) -> Anchor | None:
    """The anchor that is meant by a head or kept in a file; None: there is no such file.

    Raises:
        ConfigError: It looks like a head and is none.
        LedgerError: The file holds no anchor, or cannot be read.
    """
    path = anchor_file(text)
    if path is None:
        return Anchor.parse(text)
    try:
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE_BYTES:
            raise LedgerError(f"{path}: is no anchor file; name another one")
        return Anchor.parse(path.read_bytes().decode("ascii", errors="replace"))
    except OSError as error:
        raise LedgerError(f"{path}: the anchor cannot be read ({error.strerror}); check its rights") from error
    except ConfigError as error:
        raise LedgerError(f"{path}: holds no anchor, which is one line such as 41:5f0c…; name another file") from error


def read_anchor(text: str) -> Anchor:
    """The anchor that is meant by a head or kept in a file.

    Raises:
        ConfigError: It looks like a head and is none.
        LedgerError: There is no such file, it holds no anchor, or cannot be read.
    """
    found = kept_anchor(text)
    if found is None:
        raise LedgerError(f"{text}: there is no such anchor file; name one, or give a head such as 41:5f0c…")
    return found


def _write(path: Path, anchor: Anchor) -> None:
    """Replace the file by one that holds this anchor: the old one or the new one at every moment, durable on return."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(f"{anchor}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if os.name == "posix":  # others cannot open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise LedgerError(f"{path}: the anchor cannot be written ({error.strerror}); check its folder") from error
