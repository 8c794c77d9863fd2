"""Split a log into training sequences, validation and test queries, and say by a hash which split it was.

The four protocols are in `protocols.py`. Nothing of a test event reaches the training part: not the sequences, and not
the catalogue, which holds the items of the items file and of the events before the test (training and validation). A
target outside it is a miss.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError, DataError
from numpy.typing import NDArray

from hushrec_model.log import Log
from hushrec_model.positions import Questions, before
from hushrec_model.protocols import PROTOCOLS, Plan
from hushrec_model.sequences import Queries, Sequences

__all__ = ["TIMED", "Queries", "Sequences", "Split", "split_log"]

TIMED = ("sessions", "temporal")
"""Protocols whose test begins at one time for all."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Split:
    """One log, divided for training, choosing and testing. All item numbers in it are those of its own catalogue.

    Attributes:
        protocol: Name of the protocol.
        options: What was given or decided, as text: `filter_seen`, and `test_from` where the protocol has one.
        protocol_sha256: Hash of protocol, options and the test rows' numbers. Equal hashes: the same test.
        items: The catalogue, V ids; `items[i - 1]` is item i. Items that only test events name are not in it.
        catalog: Number in `Log.items` (from 1) of each, shape (V,).
        train: What is learned from: one sequence a user, or a session.
        valid: Queries to choose by.
        test: Queries to report.
        filter_seen: Whether items of the history are left out of the ranking.
        too_short: Users (or sessions) with too few events to be tested.
        notes: What was decided and counted, one sentence each.
    """

    protocol: str
    options: dict[str, str]
    protocol_sha256: str
    items: list[str]
    catalog: NDArray[np.int32]
    train: Sequences
    valid: Queries
    test: Queries
    filter_seen: bool
    too_short: int
    notes: list[str]


def split_log(log: Log, protocol: str, *, test_from: datetime | None = None, separable: bool = False) -> Split:
    """Split a log by one of the protocols.

    leave-one-out: the last event of each user is the test, the one before it validation. sessions: every prefix of the
    sessions that start at or after `test_from` predicts its next item. temporal: the first new item of each user at or
    after `test_from`. baskets: events of one user at one time are one basket, and the last is the test.

    Args:
        log: All events.
        protocol: One of leave-one-out, sessions, temporal, baskets.
        test_from: Where the test begins, for sessions and temporal; None: after 90 % of the sessions, or of the events.
        separable: Let nobody's events decide where those of others are cut, as user-level privacy needs it: sessions
            and temporal then want `test_from`, and train on what they would validate on.

    Returns:
        The split; users (sessions) in order of first appearance.

    Raises:
        ConfigError: Unknown protocol; `test_from` is naive or given to a protocol that has no use for it.
        DataError: The log has no times but the protocol needs them, or nothing is left to train on or to ask.

    Two users, a's events on the items 1, 2, 3 and b's on 2, 1, 3:

    >>> user, item = np.array([0, 0, 0, 1, 1, 1], np.int32), np.array([1, 2, 3, 2, 1, 3], np.int32)
    >>> rest = {"behaviors": ("view",), "behavior": np.zeros(6, np.int8), "time": None, "session": None}
    >>> log = Log(["a", "b"], ["x", "y", "z"], 3, user=user, item=item, row=np.arange(6), **rest)
    >>> split = split_log(log, "leave-one-out")
    >>> split.train.item.tolist(), split.test.history(0).tolist(), split.test.targets(0).tolist(), split.filter_seen
    ([1, 2], [1, 2], [3], True)
    """
    checks.one_of(PROTOCOLS, protocol=protocol)
    timed = protocol in TIMED
    if separable and timed and test_from is None:
        raise ConfigError(
            f"protocol {protocol} would cut by everybody's times together, and with epsilon nobody may move the cut of "
            "others: name a day with --test-from, or use leave-one-out"
        )
    plan = PROTOCOLS[protocol](log, _microseconds(protocol, test_from))
    _check_complete(log, protocol, plan)
    catalog = _catalog(log, plan)
    number = np.zeros(len(log.items) + 1, np.int32)
    number[catalog] = np.arange(1, len(catalog) + 1, dtype=np.int32)
    events = Sequences(
        plan.offsets,
        number[log.item[plan.order]],
        log.behavior[plan.order],
        None if log.time is None else log.time[plan.order],
        plan.basket,
        _shoppers(log, plan),
    )
    options = {**plan.options, "filter_seen": "true" if plan.filter_seen else "false"}
    trained_on = ["what would be validation is trained on: nothing is chosen by it"] if separable and timed else []
    return Split(
        protocol=protocol,
        options=options,
        protocol_sha256=_fingerprint(protocol, options, log.row[plan.order[plan.test.target]]),
        items=[log.items[i - 1] for i in catalog.tolist()],
        catalog=catalog,
        train=_heads(events, plan.known_stop if separable and timed else plan.train_stop),
        valid=_queries(events, plan.valid),
        test=_queries(events, plan.test),
        filter_seen=plan.filter_seen,
        too_short=plan.too_short,
        notes=[*plan.notes, *trained_on, *_missing(log, catalog)],
    )


def _check_complete(log: Log, protocol: str, plan: Plan) -> None:
    trained = int((plan.train_stop - plan.offsets[:-1]).sum())
    for part, size in (("training", trained), ("validation", len(plan.valid.start)), ("test", len(plan.test.start))):
        if not size:
            raise DataError(f"protocol {protocol}: nothing of {len(log)} events is left for {part}; {plan.needs}")


def _microseconds(protocol: str, test_from: datetime | None) -> int | None:
    if test_from is None:
        return None
    if protocol not in TIMED:
        raise ConfigError(
            f"test_from means nothing to protocol {protocol!r}: leave it out, or use sessions or temporal"
        )
    if test_from.tzinfo is None:
        raise ConfigError(f"test_from is {test_from.isoformat()}, without a time zone; add one, for example +00:00")
    return (test_from - _EPOCH) // timedelta(microseconds=1)


def _catalog(log: Log, plan: Plan) -> NDArray[np.int32]:
    """Numbers of the items that may be known before the test, rising: the listed ones and those of earlier events."""
    known = np.zeros(len(log.items) + 1, bool)
    known[1 : log.listed + 1] = True
    known[log.item[plan.order[plan.before_test()]]] = True
    return np.flatnonzero(known).astype(np.int32)


def _missing(log: Log, catalog: NDArray[np.int32]) -> list[str]:
    left_out = len(log.items) - len(catalog)
    return [f"{left_out} items occur in test events only: outside the catalogue, each a miss"] if left_out else []


def _heads(events: Sequences, stop: NDArray[np.int64]) -> Sequences:
    """The first part of every sequence, up to `stop`; empty ones are left out."""
    lengths = stop - events.offsets[:-1]
    mask = before(events.offsets, stop)
    return Sequences(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[lengths > 0])]),
        events.item[mask],
        events.behavior[mask],
        None if events.time is None else events.time[mask],
        None if events.basket is None else events.basket[mask],
        None if events.shopper is None else events.shopper[lengths > 0],
    )


def _shoppers(log: Log, plan: Plan) -> NDArray[np.int32]:
    """The user of every sequence; an empty one, which nobody reads, gets the next one's."""
    first = np.minimum(plan.offsets[:-1], len(plan.order) - 1)
    return log.user[plan.order[first]]


def _queries(events: Sequences, questions: Questions) -> Queries:
    target = events.item[questions.target]
    return Queries(events, questions.start, questions.stop, questions.target_offsets, target)


def _fingerprint(protocol: str, options: dict[str, str], rows: NDArray[np.int64]) -> str:
    head = json.dumps({"options": options, "protocol": protocol}, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(head + b"\0" + rows.astype("<i8").tobytes()).hexdigest()
