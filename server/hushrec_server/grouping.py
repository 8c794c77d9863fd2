"""Requests that would wait for each other anyway, answered together: those that come while one group is worked on are
the next group. One that comes alone is worked on at once.

Lives on the event loop and needs no lock; the work itself may run in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Grouped"]

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class Grouped(Generic[_Asked, _Answer]):
    """One group at a time, each of one key. Keys take turns, so that none waits for all requests of another.

    Args:
        most: Requests in a group.

    >>> async def squares(key, numbers):
    ...     return [number**2 for number in numbers]
    >>> asyncio.run(Grouped(10).do("key", 7, squares))
    49
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[str, list[tuple[_Asked, asyncio.Future[_Answer | Exception]]]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def do(
        self, key: str, asked: _Asked, work: Callable[[str, Sequence[_Asked]], Awaitable[Sequence[_Answer | Exception]]]
    ) -> _Answer:
        """Have a request answered in a group of its key.

        Args:
            key: What all requests of a group have in common. Untrusted: nothing is kept of it.
            asked: The request.
            work: The same for all requests. Given a key and requests, answers each in their order, or gives the error
                that is its answer; what it raises is the answer of the whole group, and of no other one.
        """
        answer: asyncio.Future[_Answer | Exception] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((asked, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work_off(work))
        found = await answer
        if isinstance(found, Exception):
            raise found
        return found

    async def _work_off(
        self, work: Callable[[str, Sequence[_Asked]], Awaitable[Sequence[_Answer | Exception]]]
    ) -> None:
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                waiting = self._waiting.pop(key)
                group = waiting[: self._most]
                if len(waiting) > self._most:
                    self._waiting[key] = waiting[self._most :]  # behind all other keys
                found: Sequence[_Answer | Exception]
                try:
                    found = await work(key, [asked for asked, _ in group])
                    if len(found) != len(group):
                        raise RuntimeError(f"{len(group)} requests have {len(found)} answers")
                except Exception as error:  # noqa: BLE001  raised to each of the group
                    found = [error] * len(group)
                for (_, answer), each in zip(group, found, strict=True):
                    if not answer.done():  # else who asked does not wait any more
                        answer.set_result(each)
        finally:
            self._worker = None
