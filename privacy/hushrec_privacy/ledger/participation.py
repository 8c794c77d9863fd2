"""What a device remembers of its part in learning together: plans and how often it took part, and nothing else.

The same ledger as the server's, under limits of the device's own: at most k participations a plan, rounds at least b
apart and strictly increasing, and ρ over a lifetime. It keeps no times, no items and nothing of the shopper; it
outlives `forget()`, since forgetting what was spent would spend it twice.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hushrec_privacy.errors import ConfigError, LedgerError
from hushrec_privacy.ledger.chain import Anchor, LedgerStore
from hushrec_privacy.ledger.entries import Open
from hushrec_privacy.ledger.ledger import Ledger
from hushrec_privacy.ledger.rules import Totals
from hushrec_privacy.ledger.sqlite import SqliteLedgerStore

__all__ = ["ParticipationRecord", "is_participation_record"]


class ParticipationRecord:
    """The participations of one device.

    >>> from hushrec_privacy.ledger import Limits, MemoryLedgerStore
    >>> record = ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho="1")
    >>> limits = Limits(max_rounds=2000, cap=2, separation=200)
    >>> plan = Open("ab" * 32, "banded-toeplitz", {}, "device", "zero-out", "0.000001", "central", limits)
    >>> record.join(plan)
    >>> record.participate(plan.plan, 7, rho="0.25").index
    2
    >>> record.left(plan.plan)
    1
    """

    def __init__(self, store: LedgerStore) -> None:
        """Go on with a record.

        Raises:
            LedgerError: It is damaged or altered.
        """
        self._ledger = Ledger(store)

    @classmethod
    def begin(cls, store: LedgerStore, *, lifetime_rho: str) -> "ParticipationRecord":
        """Begin a record in an empty store.

        Args:
            store: Where it will lie.
            lifetime_rho: ρ that this device spends at most, over all plans, a decimal string; it can never be changed.

        Raises:
            ConfigError: `lifetime_rho` is no decimal string.
            LedgerError: The store holds a record already, or could not be written.
        """
        if not isinstance(lifetime_rho, str):
            raise ConfigError("lifetime_rho is missing; a device must limit what it spends over its lifetime")
        Ledger.begin(store, lifetime_rho=lifetime_rho)
        return cls(store)

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, lifetime_rho: str) -> "ParticipationRecord":
        """Open the record in a file, or begin it if there is no such file, or one that a killed begin left empty.

        Args:
            path: The file.
            lifetime_rho: For a new record, as for `begin`; one that is there keeps its own.

        Raises:
            ConfigError: `lifetime_rho` is no decimal string.
            LedgerError: The file is not a record, is damaged, or cannot be used.
        """
        if _holds_nothing(path):
            try:
                return _closed_on_error(SqliteLedgerStore.create(path), partial(cls.begin, lifetime_rho=lifetime_rho))
            except LedgerError:
                if _holds_nothing(path):
                    raise  # otherwise another process was faster
        return _closed_on_error(SqliteLedgerStore(path), cls)

    def join(self, plan: Open) -> None:
        """Note a plan that the device takes part in; a second time changes nothing.

        Args:
            plan: Its limits are the device's own: the stricter of the plan's and the app's.

        Raises:
            BudgetError: Another plan is there under this id, or of another unit or adjacency.
            ConfigError: It has no cap on participations, or tells a time.
            LedgerError: The record is damaged or cannot be written.
        """
        if plan.limits.cap is None:
            raise ConfigError("the plan has no cap; a device takes part in a limited number of rounds")
        if plan.at_s is not None:
            raise ConfigError("the plan's entry tells a time; a device keeps no times")
        self._ledger.open_plan(plan)

    def participate(self, plan: str, round_: int, *, rho: str, dry_run: bool = False) -> Anchor:
        """Spend one participation, before masked bytes leave the device and whatever follows.

        Args:
            plan: Id of a plan that was joined.
            round_: The round, from 1.
            rho: By how much the plan's ρ rises at most through it, a decimal string.
            dry_run: Say whether it would be allowed, and write nothing.

        Returns:
            The record's head.

        Raises:
            BudgetError: The plan is unknown, the round is spent or too near to the last one, the cap or the lifetime ρ
                is reached.
            ConfigError: An argument is not of the right form.
            LedgerError: The record is damaged or cannot be written.
        """
        return self._ledger.spend(plan, round_, rho=rho, dry_run=dry_run)

    def left(self, plan: str) -> int:
        """How many participations a plan has left.

        Raises:
            BudgetError: It was never joined.
            LedgerError: The record is damaged or cannot be read.
        """
        return self._ledger.plan(plan).rounds_left

    def totals(self) -> Totals:
        """All that is spent: what a receipt is printed from.

        Raises:
            LedgerError: The record is damaged or cannot be read.
        """
        return self._ledger.totals()

    def close(self) -> None:
        """Close the store."""
        self._ledger.close()


def is_participation_record(totals: Totals) -> bool:
    """Whether a ledger is a device's: its lifetime and each of its plans are limited. A shop's ledger limits neither.

    Args:
        totals: Of a verified ledger.
    """
    limited = all(plan.opened.limits.cap is not None for plan in totals.plans.values())
    return totals.genesis.lifetime_rho is not None and limited


def _closed_on_error(store: LedgerStore, use: Callable[[LedgerStore], ParticipationRecord]) -> ParticipationRecord:
    try:
        return use(store)
    except BaseException:
        store.close()
        raise


def _holds_nothing(path: str | os.PathLike[str]) -> bool:
    if not os.path.lexists(path):
        return True
    file = Path(path)
    return file.is_file() and file.stat().st_size == 0
