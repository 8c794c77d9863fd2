"""The ledger: what of a privacy budget is spent, append-only, hash-chained, and never spent twice."""

from hushrec_privacy.ledger.anchored import AnchoredLedger
from hushrec_privacy.ledger.chain import Anchor, LedgerStore, MemoryLedgerStore, Record
from hushrec_privacy.ledger.entries import Close, Entry, Genesis, Limits, Open, Spend
from hushrec_privacy.ledger.ledger import Ledger, append_entry, history, verify
from hushrec_privacy.ledger.participation import ParticipationRecord
from hushrec_privacy.ledger.rules import PlanTotals, Totals
from hushrec_privacy.ledger.sqlite import SqliteLedgerStore

__all__ = [
    "Anchor",
    "AnchoredLedger",
    "Close",
    "Entry",
    "Genesis",
    "Ledger",
    "LedgerStore",
    "Limits",
    "MemoryLedgerStore",
    "Open",
    "ParticipationRecord",
    "PlanTotals",
    "Record",
    "Spend",
    "SqliteLedgerStore",
    "Totals",
    "append_entry",
    "history",
    "verify",
]
