"""A shop's events as arrays: what reading makes, and what splitting, counting and training take.

Holds no file names and no real user ids: users are pseudonyms (see `pseudonyms.py`). What is known of the items lies in
`items.py`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Log"]


@dataclass(frozen=True, eq=False)
class Log:
    """All events of a shop, sorted by (first appearance of the user, time, row); without times by (user, row).

    N is the number of events, V the number of items, U the number of users.

    Attributes:
        users: Pseudonym of every user, in order of first appearance in the file, length U.
        items: Item ids, length V; `items[i - 1]` is item i. First those of the items file in its order, then those that
            only events name, by first appearance.
        listed: How many of `items` come from the items file; 0 if there was none.
        behaviors: Names of the behaviours; ("view",) if the events have no such column.
        user: Index into `users` of every event, shape (N,).
        item: Item of every event, 1 to V, shape (N,).
        behavior: Index into `behaviors` of every event, shape (N,).
        time: Microseconds since 1970-01-01 UTC, shape (N,); None if the events have no time.
        session: Number of the named session, equal for events of one session, shape (N,); None without such a column.
        row: Number of the event's row in the file, from 0, header not counted, shape (N,). In one-line-per-user text:
            the position of the event in reading order.
    """

    users: list[str]
    items: list[str]
    listed: int
    behaviors: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    behavior: NDArray[np.int8]
    time: NDArray[np.int64] | None
    session: NDArray[np.int32] | None
    row: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of events."""
        return len(self.user)

    def bounds(self) -> NDArray[np.int64]:
        """Where each user's events begin and end: user u has the events [bounds[u], bounds[u + 1]), shape (U + 1,)."""
        return np.searchsorted(self.user, np.arange(len(self.users) + 1, dtype=np.int32)).astype(np.int64)
