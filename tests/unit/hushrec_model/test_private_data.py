"""What private training may see."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.private_data import public_items, public_log, public_split
from hushrec_model.splits import split_log
from hushrec_model.user_sequences import UserSequences
from hushrec_privacy.errors import ConfigError, DataError
from hypothesis import given, settings
from hypothesis import strategies as st

ITEMS = 12


def log(listed: int = 3) -> Log:
    user = np.repeat(np.arange(3, dtype=np.int32), 4)
    item = np.array([1, 2, 3, 4, 2, 4, 1, 3, 5, 1, 2, 3], np.int32)
    behavior = np.array([0, 1] * 6, np.int8)
    return Log(
        ["a", "b", "c"],
        ["u", "v", "w", "x", "y"],
        listed,
        behaviors=("view", "cart"),
        user=user,
        item=item,
        behavior=behavior,
        time=None,
        session=None,
        row=np.arange(12),
    )


def test_the_catalogue_is_the_items_file_s() -> None:
    public = public_log(log())
    split = public_split(split_log(public, "leave-one-out"), public, filter_seen=True)
    assert split.items == ["u", "v", "w"]
    assert split.filter_seen
    assert public.behaviors == ("view",)
    for events in (split.train, split.valid.events, split.test.events):
        assert events.item.max() <= 3
        assert not events.behavior.any()
    assert split.test.target.max() <= 3
    whole = split_log(public, "leave-one-out")
    assert whole.items[:3] == split.items, "listed items keep their numbers"


def test_without_an_items_file_there_is_no_public_catalogue() -> None:
    with pytest.raises(ConfigError, match="needs --items"):
        public_split(split_log(log(0), "leave-one-out"), log(0))


def timed(users: list[list[tuple[int, int]]], *, sessions: bool) -> Log:
    """A log of (time, item) events a user, sorted as reading sorts."""
    rows = [(u, t, i) for u, events in enumerate(users) for t, i in sorted(events)]
    return Log(
        [str(u) for u in range(len(users))],
        [str(i) for i in range(1, ITEMS + 1)],
        ITEMS,
        behaviors=("view",),
        user=np.array([u for u, _, _ in rows], np.int32),
        item=np.array([i for _, _, i in rows], np.int32),
        behavior=np.zeros(len(rows), np.int8),
        time=np.array([t * 86_400_000_000 for _, t, _ in rows], np.int64),
        session=np.array([t // 2 for _, t, _ in rows], np.int32) if sessions else None,
        row=np.arange(len(rows)),
    )


histories = st.lists(st.tuples(st.integers(0, 40), st.integers(1, ITEMS)), min_size=3, max_size=12)
CUT = datetime(1970, 1, 25, tzinfo=UTC)


@settings(max_examples=60)
@given(
    others=st.lists(histories, min_size=3, max_size=8),
    one=st.lists(st.tuples(st.integers(0, 40), st.integers(1, ITEMS)), min_size=3, max_size=60),
)
@pytest.mark.parametrize(
    ("protocol", "cut", "sessions"),
    [
        ("leave-one-out", None, False),
        ("baskets", None, False),
        ("temporal", CUT, False),
        ("sessions", CUT, False),
        ("sessions", CUT, True),
    ],
)
def test_nobody_s_events_decide_what_is_trained_of_others(
    protocol: str, cut: datetime | None, sessions: bool, others: list[list[tuple[int, int]]], one: list[tuple[int, int]]
) -> None:
    """Real neighbours, with and without one user: otherwise the sensitivity is not that of one user."""
    trained = []
    for users in (others, [*others, one]):
        made = timed(users, sessions=sessions)
        try:
            split = public_split(split_log(made, protocol, test_from=cut, separable=True), made)
        except DataError:
            return  # nothing is left to train or ask
        assert split.train.shopper is not None
        samples = UserSequences(split.train, 50)
        owners = split.train.shopper.tolist()
        whole = [
            (owner, split.train.item[a:b].tolist())
            for owner, a, b in zip(owners, split.train.offsets[:-1], split.train.offsets[1:], strict=True)
        ]
        trained.append([row for row in whole if row[0] < len(others)])
        assert len(samples) <= len(users)
    assert trained[0] == trained[1]


@pytest.mark.parametrize("protocol", ["sessions", "temporal"])
def test_a_cut_by_everybody_s_times_is_refused(protocol: str) -> None:
    made = timed([[(t, 1 + t % ITEMS) for t in range(12)]] * 4, sessions=False)
    with pytest.raises(ConfigError, match="name a day with --test-from"):
        split_log(made, protocol, separable=True)


def test_prices_from_the_log_are_taken_out() -> None:
    known = Items(["a"], np.array([2.5]), {}, None, price_from_events=True)
    assert math.isnan(public_items(known).price[0])
    assert not public_items(known).price_from_events
    own = Items(["a"], np.array([2.5]), {}, None)
    assert public_items(own) is own
