"""The four protocols on logs small enough to check by eye."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.splits import Split, split_log
from hushrec_privacy.errors import ConfigError, DataError

from tests.small_log import DAY, small_log


def day(number: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)


def words(split: Split, numbers: np.ndarray) -> str:
    return "".join(split.items[n - 1] if n else "." for n in numbers)


def sequences(split: Split, part: Sequences) -> list[str]:
    return [words(split, part.item[a:b]) for a, b in zip(part.offsets, part.offsets[1:], strict=False)]


def questions(split: Split, part: Queries) -> list[tuple[str, str]]:
    return [(words(split, part.history(q)), words(split, part.targets(q))) for q in range(len(part))]


def typed(text: str) -> list[tuple[str, str]]:
    """ "u:abc v:ab" as rows without times."""
    return [(group[0], item) for group in text.split() for item in group[2:]]


def timed(text: str) -> list[tuple[str, str, int]]:
    """ "u a1 b12; v a3" as rows of user, item and day."""
    users = [group.split() for group in text.split(";")]
    return [(user, event[0], int(event[1:])) for user, *events in users for event in events]


def test_leave_one_out_keeps_the_last_event_for_the_test_and_the_one_before_for_validation() -> None:
    split = split_log(small_log(typed("u:abcd v:bac")), "leave-one-out")
    assert sequences(split, split.train) == ["ab", "b"]
    assert questions(split, split.valid) == [("ab", "c"), ("b", "a")]
    assert questions(split, split.test) == [("abc", "."), ("ba", "c")]


def test_leave_one_out_counts_a_run_on_one_item_as_one_event() -> None:
    split = split_log(small_log(typed("u:aabbbcc v:abc"), listed="abc"), "leave-one-out")
    assert questions(split, split.test) == [("ab", "c"), ("ab", "c")]
    assert split.too_short == 0


def test_a_run_counts_as_its_last_event() -> None:
    log = small_log(timed("u a1 a2 b3 c4 c5"))
    split = split_log(log, "leave-one-out")
    assert split.test.events.time is not None
    assert (split.test.events.time // DAY).tolist() == [2, 3, 5]


def test_users_too_short_for_leave_one_out_are_trained_on_counted_and_named_by_row() -> None:
    split = split_log(small_log(typed("u:ab w:abc v:a")), "leave-one-out")
    assert sequences(split, split.train) == ["ab", "a", "a"]
    assert split.too_short == 2
    assert "2 users lack 3 events and are not tested (first seen in data rows 1, 6)" in split.notes


def test_seen_items_are_filtered_only_if_nobody_returns() -> None:
    assert split_log(small_log(typed("u:abc v:abc")), "leave-one-out").filter_seen
    returning = split_log(small_log(typed("u:abac v:abc")), "leave-one-out")
    assert not returning.filter_seen
    assert "seen items are ranked too: users return to items" in returning.notes


def test_a_return_in_the_test_event_does_not_decide_on_filtering() -> None:
    assert split_log(small_log(typed("u:abca v:abc")), "leave-one-out").filter_seen


def test_an_item_that_only_test_events_name_is_outside_the_catalogue_and_a_listed_one_inside() -> None:
    log = small_log(typed("u:abz v:abc w:bac"), listed="q")
    split = split_log(log, "leave-one-out")
    assert split.items == ["q", "a", "b"]
    assert questions(split, split.test)[0] == ("ab", ".")
    assert [log.items[i - 1] for i in split.catalog] == split.items


def test_items_of_validation_events_are_known() -> None:
    split = split_log(small_log(typed("u:aby v:abc")), "leave-one-out")
    assert split.items == ["a", "b"]
    split = split_log(small_log(typed("u:ayb v:abc")), "leave-one-out")
    assert split.items == ["a", "y", "b"]


def test_sessions_ask_for_every_next_item_of_the_sessions_from_the_cut_on() -> None:
    rows = timed("u a1 b1; v b2 c2; w a5 c5 a6")
    split = split_log(small_log(rows), "sessions", test_from=day(5))
    assert sequences(split, split.train) == ["ab"]
    assert questions(split, split.valid) == [("b", "c")]
    assert questions(split, split.test) == [("a", "c"), ("ac", "a")]
    assert not split.filter_seen
    assert split.options == {"test_from": "1970-01-06T00:00:00+00:00", "filter_seen": "false"}


def test_a_session_belongs_to_the_side_on_which_it_starts() -> None:
    rows = timed("u a1 b9; t a1 b1; v b5 a5")
    split = split_log(small_log(rows), "sessions", test_from=day(5))
    assert questions(split, split.test) == [("b", "a")]


def test_the_session_column_divides_a_user_and_never_joins_two() -> None:
    rows = timed("u a1 b1 c2 d2; v a1 c1 d6 a6")
    split = split_log(small_log(rows, sessions=[0, 0, 1, 1, 0, 0, 1, 1]), "sessions", test_from=day(5))
    assert sequences(split, split.train) == ["ab", "ac"]
    assert questions(split, split.valid) == [("c", "d")]
    assert questions(split, split.test) == [("d", "a")]


def test_sessions_without_a_cut_take_the_last_tenth() -> None:
    rows = [(f"u{n}", item, n) for n in range(20) for item in "ab"]
    split = split_log(small_log(rows), "sessions")
    assert split.options["test_from"] == day(18).isoformat()
    assert (len(split.train), len(split.valid), len(split.test)) == (16, 2, 2)


def test_temporal_asks_for_the_first_item_that_is_new_to_the_user() -> None:
    rows = timed("u a1 b2 a11 c12 d13; v a1 c8 b9 b10; w a12 b13; x b1 b12; y c9")
    split = split_log(small_log(rows), "temporal", test_from=day(10))
    assert questions(split, split.test) == [("aba", "c")]
    assert split.filter_seen
    assert split.too_short == 1
    assert split.notes[3].startswith("1 users lack an event before 1970-01-11T00:00:00+00:00 and are not tested")


def test_temporal_validates_by_the_same_rule_before_the_cut() -> None:
    rows = [("u", item, number) for number, item in enumerate("abcdefghij")] + timed("u k20")
    split = split_log(small_log(rows), "temporal", test_from=day(15))
    assert sequences(split, split.train) == ["abcdefghi"]
    assert questions(split, split.valid) == [("abcdefghi", "j")]
    assert questions(split, split.test) == [("abcdefghij", ".")]


def test_the_last_basket_is_the_test_with_all_its_items_once() -> None:
    rows = timed("u a1 b1 a1 c2 b3 a3 b3; v a1")
    split = split_log(small_log(rows), "baskets")
    assert sequences(split, split.train) == ["ab", "a"]
    assert questions(split, split.valid) == [("ab", "c")]
    assert questions(split, split.test) == [("abc", "ba")]
    assert split.test.events.basket is not None
    assert split.test.events.basket.tolist() == [0, 0, 1, 2, 2, 0]
    assert (split.filter_seen, split.too_short) == (False, 1)


def test_ties_in_time_go_by_row() -> None:
    split = split_log(small_log(timed("u c2 a1 b1 d2"), listed="abcd"), "leave-one-out")
    assert questions(split, split.test) == [("abc", "d")]


def test_the_hash_is_that_of_the_written_rule() -> None:
    log = small_log(timed("v a1; u a1 b2; v b3 c4; u c5"))
    split = split_log(log, "leave-one-out")
    what = {"options": {"filter_seen": "true"}, "protocol": "leave-one-out"}
    head = json.dumps(what, sort_keys=True, separators=(",", ":"))
    rows = (4).to_bytes(8, "little") + (5).to_bytes(8, "little")
    assert split.protocol_sha256 == hashlib.sha256(head.encode() + b"\0" + rows).hexdigest()


def test_other_protocols_cuts_and_rows_have_other_hashes() -> None:
    log = small_log(timed("u a1 b2 c3; v a1 b5 c6; w b2 a3; x a7 c8; y a2 b7 c7"))
    splits = [split_log(log, protocol) for protocol in ("leave-one-out", "baskets")]
    splits += [split_log(log, "sessions", test_from=day(cut)) for cut in (6, 7)]  # the same test sessions
    splits.append(split_log(small_log(timed("u a1 b2 c3; v a1 b5 c6")), "leave-one-out"))
    assert len({split.protocol_sha256 for split in splits}) == len(splits)


@pytest.mark.parametrize("protocol", ["sessions", "temporal", "baskets"])
def test_protocols_that_need_times_say_so(protocol: str) -> None:
    with pytest.raises(DataError, match=f"protocol {protocol} needs times; the events have none"):
        split_log(small_log(typed("u:abc")), protocol)


@pytest.mark.parametrize("protocol", ["leave-one-out", "baskets"])
def test_a_cut_that_means_nothing_is_refused(protocol: str) -> None:
    with pytest.raises(ConfigError, match="test_from means nothing to protocol"):
        split_log(small_log(timed("u a1")), protocol, test_from=day(1))


def test_a_naive_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="without a time zone"):
        split_log(small_log(timed("u a1")), "sessions", test_from=datetime(2024, 1, 1))  # noqa: DTZ001


def test_an_unknown_protocol_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sessions'"):
        split_log(small_log(timed("u a1")), "session")


@pytest.mark.parametrize(
    ("protocol", "cut"), [("leave-one-out", None), ("baskets", None), ("sessions", day(50)), ("temporal", day(50))]
)
def test_a_log_that_leaves_nothing_to_ask_is_refused(protocol: str, cut: datetime | None) -> None:
    with pytest.raises(DataError, match=r"nothing of 4 events is left for \w+; "):
        split_log(small_log(timed("u a1 b2; v a1 b3")), protocol, test_from=cut)
