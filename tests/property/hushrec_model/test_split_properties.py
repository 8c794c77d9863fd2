"""For any log: nothing of the test reaches training, every event has its place, and the fast splits equal slow ones."""

from collections import defaultdict

import numpy as np
import pytest
from hushrec_model.log import Log
from hushrec_model.protocols import PROTOCOLS, Plan
from hushrec_model.splits import split_log
from hushrec_privacy.errors import DataError
from hypothesis import given
from hypothesis import strategies as st

from tests.small_log import DAY, small_log

Row = tuple[str, str, int]
Question = tuple[list[str], list[str]]

row = st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefgh"), st.integers(0, 12))
rows = st.lists(row, min_size=1, max_size=60)
protocols = st.sampled_from(sorted(PROTOCOLS))
cuts = st.integers(1, 12)


def plan_of(log: Log, protocol: str, cut: int) -> Plan:
    return PROTOCOLS[protocol](log, cut * DAY if protocol in ("sessions", "temporal") else None)


def asked(events: list[Row], protocol: str, cut: int) -> list[Question]:
    """History and targets of every test query."""
    log = small_log(events)
    plan = plan_of(log, protocol, cut)
    items = [log.items[log.item[event] - 1] for event in plan.order]
    test = plan.test
    return [
        (
            items[test.start[q] : test.stop[q]],
            [items[at] for at in test.target[test.target_offsets[q] : test.target_offsets[q + 1]]],
        )
        for q in range(len(test.start))
    ]


def histories(events: list[Row]) -> list[list[tuple[int, str]]]:
    """(day, item) of every user in time, ties by row."""
    by_user: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for number, (user, item, day) in enumerate(events):
        by_user[user].append((day, number, item))
    return [[(day, item) for day, _, item in sorted(history)] for history in by_user.values()]


@given(rows, protocols, cuts)
def test_no_target_is_trained_on_and_none_comes_before_its_history(events: list[Row], protocol: str, cut: int) -> None:
    log = small_log(events)
    plan = plan_of(log, protocol, cut)
    bounds = zip(plan.offsets.tolist(), plan.train_stop.tolist(), strict=False)
    trained = {at for start, stop in bounds for at in range(start, stop)}
    for questions in (plan.valid, plan.test):
        assert not set(questions.target.tolist()) & trained
        assert (questions.start < questions.stop).all()
        for q in range(len(questions.start)):
            targets = questions.target[questions.target_offsets[q] : questions.target_offsets[q + 1]]
            assert len(targets) >= 1
            assert (targets >= questions.stop[q]).all()
            assert len(set(log.user[plan.order[[*targets, questions.start[q]]]].tolist())) == 1


@given(rows, protocols, cuts)
def test_no_test_target_is_among_what_is_known_before_the_test(events: list[Row], protocol: str, cut: int) -> None:
    plan = plan_of(small_log(events), protocol, cut)
    known = plan.before_test()
    assert not known[plan.test.target].any()
    assert known[plan.valid.target].all()
    assert (plan.train_stop <= plan.known_stop).all()


@given(rows, protocols, cuts)
def test_every_event_is_accounted_for(events: list[Row], protocol: str, cut: int) -> None:
    log = small_log(events)
    assert log.time is not None
    plan = plan_of(log, protocol, cut)
    assert len(set(plan.order.tolist())) == len(plan.order) == plan.offsets[-1]
    kept = {(log.user[e], log.item[e], log.time[e] if protocol == "baskets" else 0) for e in plan.order}
    left_out = set(range(len(log))) - set(plan.order.tolist())
    assert not left_out or protocol in ("leave-one-out", "baskets")
    for event in left_out:  # only repeats within a run or a basket go
        assert (log.user[event], log.item[event], log.time[event] if protocol == "baskets" else 0) in kept


@given(rows)
def test_leave_one_out_equals_the_plain_loop(events: list[Row]) -> None:
    expected = []
    for history in histories(events):
        items = [item for _, item in history]
        items = [item for item, following in zip(items, [*items[1:], ""], strict=True) if item != following]
        if len(items) >= 3:
            expected.append((items[:-1], items[-1:]))
    assert asked(events, "leave-one-out", 0) == expected


@given(rows)
def test_baskets_equal_the_plain_loop(events: list[Row]) -> None:
    expected = []
    for history in histories(events):
        days: dict[int, dict[str, None]] = defaultdict(dict)
        for day, item in history:
            days[day][item] = None
        *before, last = [list(basket) for basket in days.values()]
        if len(before) >= 2:
            expected.append(([item for basket in before for item in basket], last))
    assert asked(events, "baskets", 0) == expected


@given(rows, cuts)
def test_temporal_equals_the_plain_loop(events: list[Row], cut: int) -> None:
    expected = []
    for history in histories(events):
        items = [item for _, item in history]
        new = [n for n, (day, item) in enumerate(history) if day >= cut and item not in items[:n]]
        if new and history[0][0] < cut:
            expected.append((items[: new[0]], [items[new[0]]]))
    assert asked(events, "temporal", cut) == expected


@given(rows, cuts)
def test_sessions_equal_the_plain_loop(events: list[Row], cut: int) -> None:
    expected: list[Question] = []
    for history in histories(events):
        items = [item for _, item in history]
        if history[0][0] >= cut:
            expected += [(items[:n], [items[n]]) for n in range(1, len(items))]
    assert asked(events, "sessions", cut) == expected


@given(rows, st.lists(st.integers(0, 2), min_size=60, max_size=60), cuts)
def test_named_sessions_equal_users_of_that_name(events: list[Row], names: list[int], cut: int) -> None:
    log = small_log(events, sessions=names[: len(events)])
    plan = plan_of(log, "sessions", cut)
    got = [log.item[plan.order[a:b]].tolist() for a, b in zip(plan.offsets, plan.offsets[1:], strict=False)]
    renamed = [(f"{user}{name}", item, day) for (user, item, day), name in zip(events, names, strict=False)]
    items = [[log.items.index(item) + 1 for _, item in history] for history in histories(renamed)]
    assert got == items


@given(rows, protocols, cuts, st.permutations("abcdefgh"))
def test_the_names_of_items_change_nothing(events: list[Row], protocol: str, cut: int, names: list[str]) -> None:
    renamed = [(user, names["abcdefgh".index(item)], day) for user, item, day in events]
    one, two = (plan_of(small_log(of), protocol, cut) for of in (events, renamed))
    assert (one.options, one.filter_seen, one.too_short) == (two.options, two.filter_seen, two.too_short)
    np.testing.assert_array_equal(one.order, two.order)
    np.testing.assert_array_equal(one.test.target, two.test.target)


def test_every_protocol_is_compared_with_a_loop() -> None:
    assert set(PROTOCOLS) == {"leave-one-out", "baskets", "temporal", "sessions"}


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_log_without_events_is_refused(protocol: str) -> None:
    with pytest.raises(DataError):
        split_log(small_log([]), protocol)
