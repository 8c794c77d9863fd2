"""Logs made by hand for tests: one tuple an event, users and items by letter."""

from collections.abc import Sequence

import numpy as np
from hushrec_model.log import Log

DAY = 86_400_000_000  # microseconds


def small_log(
    events: Sequence[tuple[str, str] | tuple[str, str, int]],
    *,
    sessions: Sequence[int] | None = None,
    listed: str = "",
) -> Log:
    """Make a log of (user, item) or (user, item, day) rows, sorted as reading sorts.

    Args:
        events: Rows of a file; days count from 1970-01-01.
        sessions: Session of every row.
        listed: Items of the items file, a letter each.
    """
    users = list(dict.fromkeys(user for user, *_ in events))
    items = list(dict.fromkeys([*listed, *(item for _, item, *_ in events)]))
    user = np.array([users.index(event[0]) for event in events], np.int32)
    item = np.array([items.index(event[1]) + 1 for event in events], np.int32)
    time = np.array([event[2] * DAY for event in events if len(event) == 3], np.int64)
    timed = len(time) == len(events) > 0
    order = np.lexsort((time, user)) if timed else np.argsort(user, kind="stable")
    return Log(
        users=users,
        items=items,
        listed=len(listed),
        behaviors=("view",),
        user=user[order],
        item=item[order],
        behavior=np.zeros(len(events), np.int8),
        time=time[order] if timed else None,
        session=None if sessions is None else np.array(sessions, np.int32)[order],
        row=order.astype(np.int64),
    )
