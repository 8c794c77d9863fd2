"""Spend a privacy budget once, and only once: entries are checked against everything before them, then appended.

Works over any `LedgerStore`. Two processes may spend from one store: whoever loses the race for the next place reads
what the other wrote and is checked again.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from hushrec_privacy.errors import BudgetError, LedgerError
from hushrec_privacy.ledger.chain import Anchor, LedgerStore, Record, check_record, next_record
from hushrec_privacy.ledger.entries import Close, Entry, Genesis, Open, Spend, entry_bytes, read_entry
from hushrec_privacy.ledger.rules import PlanTotals, Totals, check_entry, count_entry

__all__ = ["Ledger", "append_entry", "history", "verify"]

MOST_TRIES = 1_000  # each try that fails means that another process got on


def verify(store: LedgerStore, *, anchor: Anchor | None = None) -> Totals:
    """Read a whole ledger and check every byte of it: chain, entries, limits, and that the anchor lies in it.

    Guarantee:
        What is returned has counted every entry up to the head, and each was within the limits when it was added. With
        an anchor it is also no older than that anchor, and everything up to the anchor is as it was when the anchor was
        given. Without one, an older copy of the same ledger passes.

    Args:
        store: The ledger.
        anchor: A point of it that was kept elsewhere.

    Raises:
        LedgerError: It is empty, damaged, altered, or not what the anchor stands for.
    """
    found = _follow(store.scan(), None, anchor)
    if found is None:
        raise LedgerError(
            "the ledger has no first entry: it was never begun, or everything in it was lost; "
            "restore its newest copy, or see docs/runbook.md, A database was restored"
        )
    if anchor is not None and anchor.index > found.head.index:
        raise LedgerError(
            f"the ledger ends with entry {found.head.index} and the anchor stands for entry {anchor.index}: this is an "
            "older copy, or the anchor is of another ledger; restore the newest one, and count what is missing as spent"
        )
    return found


def history(store: LedgerStore) -> Iterator[tuple[Anchor, Entry]]:
    """Give all entries in order, each with its place; the caller has verified the ledger.

    Raises:
        LedgerError: An entry cannot be read.
    """
    for record in store.scan():
        yield record.anchor, read_entry(record.entry, name=f"entry {record.index} of the ledger")


def append_entry(store: LedgerStore, entry: Entry, known: Totals | None = None, *, dry_run: bool = False) -> Totals:
    """Add an entry if the limits allow it, however many processes add at the same moment.

    Args:
        store: The ledger.
        entry: What to add.
        known: What the ledger was known to hold; brought up to date. None: read from the start.
        dry_run: Check only, and write nothing.

    Returns:
        What the ledger holds now.

    Raises:
        BudgetError: The limits forbid it; nothing was written.
        LedgerError: The ledger is damaged or cannot be written.
    """
    data = entry_bytes(entry)
    for _ in range(MOST_TRIES):
        known = verify(store) if known is None else _catch_up(store, known)
        check_entry(entry, known)
        if dry_run:
            return known
        record = next_record(data, known.head)
        if store.append(record):
            return count_entry(entry, known, record.anchor)
    raise LedgerError(f"other processes were faster {MOST_TRIES} times; nothing was written")


class Ledger:
    """A ledger that remembers what it has verified, so that a spend reads only what is new.

    Safe to use from several threads. The whole ledger is verified when it is opened.

    >>> from hushrec_privacy.ledger import Limits, MemoryLedgerStore, Open
    >>> ledger = Ledger.begin(MemoryLedgerStore())
    >>> plan = Open("ab" * 32, "gaussian", {}, "user", "zero-out", "0.000001", "central", Limits(max_rounds=2))
    >>> ledger.open_plan(plan)
    >>> ledger.spend(plan.plan, 1).index
    2
    >>> ledger.spend(plan.plan, 1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    hushrec_privacy.errors.BudgetError: plan abababababab…: round 1 asked for, and round 1 is spent already; ...
    """

    def __init__(
        self, store: LedgerStore, *, anchor: Anchor | None = None, clock: Callable[[], int] | None = None
    ) -> None:
        """Verify a ledger and go on with it.

        Args:
            store: Where it lies.
            anchor: A point of it that was kept elsewhere; see `verify`.
            clock: Seconds since 1970-01-01 UTC for new entries; None: entries tell no time.

        Raises:
            LedgerError: See `verify`.
        """
        self._store, self._clock, self._lock = store, clock, threading.Lock()
        self._known = verify(store, anchor=anchor)

    @classmethod
    def begin(
        cls, store: LedgerStore, *, lifetime_rho: str | None = None, clock: Callable[[], int] | None = None
    ) -> "Ledger":
        """Begin a new ledger in an empty store.

        Args:
            store: Where it will lie.
            lifetime_rho: ρ that all its plans together may spend, a decimal string; it can never be changed.
            clock: As for `Ledger`.

        Raises:
            ConfigError: `lifetime_rho` is no decimal string.
            LedgerError: The store holds a ledger already, or could not be written.
        """
        genesis = Genesis(lifetime_rho, None if clock is None else clock())
        if not store.append(next_record(entry_bytes(genesis), None)):
            raise LedgerError("there is a ledger already; open it instead of beginning a new one")
        return cls(store, clock=clock)

    def open_plan(self, plan: Open, *, dry_run: bool = False) -> None:
        """Begin a plan. One that is there already with the same contents, whatever its time, is left as it is.

        Args:
            plan: What it may spend, and how its ε is computed; the time is added by the clock.
            dry_run: Check only, and write nothing.

        Raises:
            BudgetError: Another one is there under this id, or of another unit or adjacency.
            LedgerError: The ledger is damaged or cannot be written.
        """
        with self._lock:
            self._known = _catch_up(self._store, self._known)
            kept = self._known.plans.get(plan.plan)
            if kept is None or replace(kept.opened, at_s=None) != replace(plan, at_s=None):
                self._add(replace(plan, at_s=self._now()), dry_run)

    def spend(
        self,
        plan: str,
        first: int,
        last: int | None = None,
        *,
        rho: str | None = None,
        epsilon: str | None = None,
        dry_run: bool = False,
    ) -> Anchor:
        """Spend one round of a plan, or several at once.

        Guarantee:
            When it returns, the spend is in the ledger and survives the death of the process. If it raises BudgetError,
            nothing was written. After any other error, or none because the process died, it may have been spent: a
            round is then asked for again in vain, and never spent twice.

        Args:
            plan: Id of the plan.
            first: The round, from 1.
            last: Last round of a block of rounds; None: only the one.
            rho: By how much the plan's ρ rises at most, a decimal string; needed where ρ is limited.
            epsilon: The plan's ε at its δ with these rounds and all before them, a decimal string; needed where ε is
                limited.
            dry_run: Check only, and write nothing.

        Returns:
            The ledger's head, to be kept elsewhere.

        Raises:
            BudgetError: The limits forbid it.
            ConfigError: An argument is not of the right form.
            LedgerError: The ledger is damaged or cannot be written.
        """
        entry = Spend(plan, first, first if last is None else last, rho, epsilon, at_s=self._now())
        with self._lock:
            return self._add(entry, dry_run)

    def close_plan(self, plan: str) -> Anchor:
        """End a plan: nothing more can be spent in it.

        Raises:
            BudgetError: It is unknown or closed already.
            LedgerError: The ledger is damaged or cannot be written.
        """
        entry = Close(plan, at_s=self._now())
        with self._lock:
            return self._add(entry, dry_run=False)

    def totals(self) -> Totals:
        """What the ledger holds now, what other processes added included.

        Raises:
            LedgerError: It was altered or cannot be read.
        """
        with self._lock:
            self._known = _catch_up(self._store, self._known)
            return Totals(self._known.genesis, self._known.head, dict(self._known.plans), self._known.spent)

    def plan(self, plan: str) -> PlanTotals:
        """What one plan has spent.

        Raises:
            BudgetError: It is not in the ledger.
            LedgerError: The ledger was altered or cannot be read.
        """
        found = self.totals().plans.get(plan)
        if found is None:
            raise BudgetError(f"plan {plan[:12]}… is not in this ledger; open it first")
        return found

    def anchor(self) -> Anchor:
        """The ledger's head: keep it elsewhere, and give it to `verify` later.

        Raises:
            LedgerError: The ledger was altered or cannot be read.
        """
        return self.totals().head

    def verify(self, *, anchor: Anchor | None = None) -> Totals:
        """Read and check the whole ledger anew; see the function of this name.

        Raises:
            LedgerError: See there.
        """
        return verify(self._store, anchor=anchor)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()

    def _add(self, entry: Entry, dry_run: bool) -> Anchor:
        self._known = append_entry(self._store, entry, self._known, dry_run=dry_run)
        return self._known.head


def _catch_up(store: LedgerStore, known: Totals) -> Totals:
    """Count what was added since; what is known must still be there, or a ledger was put back under our hands."""
    records = iter(store.scan(known.head.index))
    last = next(records, None)
    if last is None or last.anchor != known.head:
        raise LedgerError("the ledger was put back or rewritten while it was open; restore the newest copy")
    return _follow(records, known, None) or known


def _follow(records: Iterable[Record], found: Totals | None, anchor: Anchor | None) -> Totals | None:
    for record in records:
        check_record(record, None if found is None else found.head)
        if anchor is not None and record.index == anchor.index and record.anchor != anchor:
            raise LedgerError(
                f"entry {record.index} of the ledger is not the one of the anchor: it was rewritten, or the anchor is "
                "of another ledger"
            )
        name = f"entry {record.index} of the ledger"
        entry = read_entry(record.entry, name=name)
        try:
            check_entry(entry, found)
        except BudgetError as error:
            raise LedgerError(f"{name} should never have been written ({error}): it was forged") from error
        found = count_entry(entry, found, record.anchor)
    return found
