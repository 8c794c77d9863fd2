"""The four ways to divide a log into training, validation and test: pure functions from a log to positions.

Every protocol lays the events it keeps end to end (`Plan.order`) as sequences, trains on the head of each, and asks
questions whose histories are stretches of the same array. Ties in time go by row. `splits.py` makes items of positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from hushrec_privacy.errors import DataError
from numpy.typing import NDArray

from hushrec_model.log import Log
from hushrec_model.positions import Positions, Questions, before, bounds, count, first_new, prefixes, several, single

__all__ = ["PROTOCOLS", "Plan"]

EARLIER_SHARE = 0.9  # of the events or sessions: what lies before a time cut that nobody gave
SHORTEST = 3  # events or baskets: one to learn from, one for validation, one for the test


@dataclass(frozen=True, eq=False)
class Plan:
    """What a protocol decided.

    Attributes:
        order: The events kept, as positions in the log, sequence after sequence, shape (N,).
        offsets: Bounds of the S sequences in `order`, shape (S + 1,).
        train_stop: Sequence s is trained on up to here, shape (S,).
        known_stop: Sequence s is known before the test up to here: training and validation, shape (S,).
        valid: Validation queries.
        test: Test queries.
        filter_seen: Whether items of the history leave the ranking.
        too_short: Sequences with too few events to be tested.
        needs: What an event log must have for this protocol, for an error text.
        options: What was given or decided.
        notes: Sentences for the terminal.
        basket: Number of each event's basket inside its sequence, shape (N,); None without baskets.
    """

    order: Positions
    offsets: Positions
    train_stop: Positions
    known_stop: Positions
    valid: Questions
    test: Questions
    filter_seen: bool
    too_short: int
    needs: str
    options: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    basket: NDArray[np.int32] | None = None

    def before_test(self) -> NDArray[np.bool_]:
        """Which of the kept events are known before the test, shape (N,)."""
        return before(self.offsets, self.known_stop)


def _leave_one_out(log: Log, _test_from: int | None) -> Plan:
    """A run of one user on one item counts as its last event; the last is the test, the one before it validation."""
    same = (log.user[1:] == log.user[:-1]) & (log.item[1:] == log.item[:-1])
    order = np.flatnonzero(np.append(~same, np.ones(min(len(log), 1), bool)))
    offsets = bounds(log.user[order], len(log.users))
    long = np.diff(offsets) >= SHORTEST
    start, end = offsets[:-1][long], offsets[1:][long]
    known_stop = offsets[1:] - long
    returns = _returns(log, order[before(offsets, known_stop)])
    seen = "seen items are ranked too: users return to items" if returns else "seen items are filtered: no user returns"
    return Plan(
        order=order,
        offsets=offsets,
        train_stop=offsets[1:] - 2 * long,
        known_stop=known_stop,
        valid=single(start, end - 2),
        test=single(start, end - 1),
        filter_seen=not returns,
        too_short=int((~long).sum()),
        needs=f"a user needs {SHORTEST} events on different items in a row",
        notes=[seen, *_too_short(log, order[offsets[:-1][~long]], "users", f"{SHORTEST} events")],
    )


def _sessions(log: Log, test_from: int | None) -> Plan:
    """Sessions from `test_from` on are the test, the last tenth before it validation; every prefix is a query."""
    time = _times(log, "sessions")
    order, offsets = _by_session(log, time)
    begins = time[order[offsets[:-1]]]
    if test_from is None:
        test_from = _quantile(begins)
    tested = begins >= test_from
    earlier = np.flatnonzero(~tested)
    earlier = earlier[np.argsort(begins[earlier], kind="stable")]
    chosen = np.zeros(len(begins), bool)
    chosen[earlier[len(earlier) - max(1, round(len(earlier) * (1 - EARLIER_SHARE))) :]] = True
    single = np.diff(offsets) == 1
    return Plan(
        order=order,
        offsets=offsets,
        train_stop=np.where(tested | chosen, offsets[:-1], offsets[1:]),
        known_stop=np.where(tested, offsets[:-1], offsets[1:]),
        valid=prefixes(offsets, chosen),
        test=prefixes(offsets, tested),
        filter_seen=False,
        too_short=int(single.sum()),
        needs=f"sessions of 2 or more events are needed on both sides of {_iso(test_from)}",
        options={"test_from": _iso(test_from)},
        notes=[
            f"{int(tested.sum())} sessions start at or after {_iso(test_from)} and are the test",
            f"the last {int(chosen.sum())} of the {len(earlier)} sessions before it are validation",
            *_too_short(log, order[offsets[:-1][single]], "sessions", "2 events"),
        ],
    )


def _temporal(log: Log, test_from: int | None) -> Plan:
    """Each user's first new item at or after `test_from`; validation asks the same from the 90 % quantile before it."""
    time = _times(log, "temporal")
    if test_from is None:
        test_from = _quantile(time)
    earlier = time < test_from
    valid_from = _quantile(time[earlier]) if earlier.any() else test_from
    order = np.arange(len(log), dtype=np.int64)
    offsets = log.bounds()
    new = _first_times(log)
    known_stop, train_stop = (offsets[:-1] + count(offsets, time < cut) for cut in (test_from, valid_from))
    fresh = (known_stop == offsets[:-1]) & (np.diff(offsets) > 0)
    return Plan(
        order=order,
        offsets=offsets,
        train_stop=train_stop,
        known_stop=known_stop,
        valid=first_new(offsets, train_stop, new & (time >= valid_from) & earlier),
        test=first_new(offsets, known_stop, new & ~earlier),
        filter_seen=True,
        too_short=int(fresh.sum()),
        needs=f"users with events before {_iso(valid_from)} and new items after {_iso(test_from)} are needed",
        options={"test_from": _iso(test_from)},
        notes=[
            f"the test asks for each user's first new item from {_iso(test_from)} on",
            f"validation asks the same from {_iso(valid_from)} on",
            "seen items are filtered: only new items are asked for",
            *_too_short(log, offsets[:-1][fresh], "users", f"an event before {_iso(test_from)}"),
        ],
    )


def _baskets(log: Log, _test_from: int | None) -> Plan:
    """Events of one user at one time are a basket, each item once; the last is the test, the one before validation."""
    time = _times(log, "baskets")
    new_basket = np.ones(len(log), bool)
    new_basket[1:] = (log.user[1:] != log.user[:-1]) | (time[1:] != time[:-1])
    number = np.cumsum(new_basket) - 1
    order = np.sort(np.unique(number * (len(log.items) + 1) + log.item, return_index=True)[1])
    number = number[order]
    basket_bounds = bounds(number, int(number[-1]) + 1 if len(number) else 0)
    offsets = bounds(log.user[order], len(log.users))
    baskets = np.searchsorted(basket_bounds, offsets)  # user u has the baskets [baskets[u], baskets[u + 1])
    long = np.diff(baskets) >= SHORTEST
    start, last = offsets[:-1][long], baskets[1:][long]
    test_start, valid_start = basket_bounds[last - 1], basket_bounds[last - 2]
    known_stop, train_stop = offsets[1:].copy(), offsets[1:].copy()
    known_stop[long], train_stop[long] = test_start, valid_start
    return Plan(
        order=order,
        offsets=offsets,
        train_stop=train_stop,
        known_stop=known_stop,
        valid=several(start, valid_start, test_start),
        test=several(start, test_start, offsets[1:][long]),
        filter_seen=False,
        too_short=int((~long).sum()),
        needs=f"a user needs baskets at {SHORTEST} different times",
        notes=_too_short(log, order[offsets[:-1][~long]], "users", f"{SHORTEST} baskets"),
        basket=(number - np.repeat(baskets[:-1], np.diff(offsets))).astype(np.int32),
    )


PROTOCOLS: dict[str, Callable[[Log, int | None], Plan]] = {
    "leave-one-out": _leave_one_out,
    "sessions": _sessions,
    "temporal": _temporal,
    "baskets": _baskets,
}


def _times(log: Log, protocol: str) -> NDArray[np.int64]:
    if log.time is None:
        raise DataError(f"protocol {protocol} needs times; the events have none: name a column, or use leave-one-out")
    return log.time


def _iso(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def _quantile(times: NDArray[np.int64]) -> int:
    """The time that 90 % lie before, as one of the times themselves; 0 if there are none."""
    if not len(times):
        return 0
    at = min(int(len(times) * EARLIER_SHARE), len(times) - 1)
    return int(np.partition(times, at)[at])


def _pairs(log: Log, order: Positions) -> NDArray[np.int64]:
    return log.user[order].astype(np.int64) * (len(log.items) + 1) + log.item[order]


def _returns(log: Log, order: Positions) -> bool:
    """Whether any user has an item twice among these events."""
    pairs = np.sort(_pairs(log, order))  # np.unique would hash, ten times slower on 10 million events
    return bool((pairs[1:] == pairs[:-1]).any())


def _first_times(log: Log) -> NDArray[np.bool_]:
    """Which events are the user's first on their item, shape (N,)."""
    first = np.zeros(len(log), bool)
    first[np.unique(_pairs(log, np.arange(len(log))), return_index=True)[1]] = True
    return first


def _by_session(log: Log, time: NDArray[np.int64]) -> tuple[Positions, Positions]:
    """Events by session (in order of first row), then time, then row, with the sessions' bounds."""
    if log.session is None:
        return np.arange(len(log), dtype=np.int64), log.bounds()
    name = log.user.astype(np.int64) * (int(log.session.max(initial=0)) + 1) + log.session
    _, number = np.unique(name, return_inverse=True)
    first_row = np.full(int(number.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_row, number, log.row)
    rank = np.empty_like(first_row)
    rank[np.argsort(first_row)] = np.arange(len(first_row))
    order = np.lexsort((log.row, time, rank[number]))
    return order, bounds(rank[number][order], len(rank))


def _too_short(log: Log, first_events: Positions, what: str, fewer_than: str) -> list[str]:
    """Count the sequences that cannot be tested and name some by the row of their first event."""
    if not len(first_events):
        return []
    shown = ", ".join(str(row + 1) for row in np.sort(log.row[first_events])[:3].tolist())
    more = ", …" if len(first_events) > 3 else ""
    return [f"{len(first_events)} {what} lack {fewer_than} and are not tested (first seen in data rows {shown}{more})"]
