"""Requests are answered in groups, each of one key, and what goes wrong with one is no other's business."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hushrec_server.grouping import Grouped


class Squares:
    """Work that waits until it is let go, and notes its groups."""

    def __init__(self, most: int = 10) -> None:
        self.grouped: Grouped[int, int] = Grouped(most)
        self.groups: list[tuple[str, list[int]]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def work(self, key: str, asked: Sequence[int]) -> Sequence[int | Exception]:
        """A number's square; -1 is wrong, and in group "broken" all are."""
        self.groups.append((key, list(asked)))
        await self.free.wait()
        if key == "broken":
            raise OSError("no disk")
        return [ValueError("negative") if number < 0 else number**2 for number in asked]

    async def do(self, number: int, key: str = "key") -> int:
        """One request."""
        return await self.grouped.do(key, number, self.work)

    async def crowd(self, *numbers: int, key: str = "key") -> list[Any]:
        """A first request, and all others while it is worked on."""
        self.free.clear()
        first = asyncio.create_task(self.do(0, "first"))
        await asyncio.sleep(0)
        others = [asyncio.create_task(self.do(number, key)) for number in numbers]
        await asyncio.sleep(0)
        self.free.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)


def soon(test: Coroutine[Any, Any, None]) -> None:
    """Run a test that must not wait for ever."""
    asyncio.run(asyncio.wait_for(test, 20))


def test_what_comes_while_one_is_worked_on_is_one_group() -> None:
    async def run() -> None:
        squares = Squares()
        assert await squares.crowd(1, 2, 3) == [1, 4, 9]
        assert squares.groups == [("first", [0]), ("key", [1, 2, 3])]
        assert await squares.do(4) == 16
        assert squares.groups[2:] == [("key", [4])]

    soon(run())


def test_a_group_has_at_most_so_many_and_keeps_their_order() -> None:
    async def run() -> None:
        squares = Squares(most=2)
        assert await squares.crowd(1, 2, 3, 4, 5) == [1, 4, 9, 16, 25]
        assert [group for _, group in squares.groups] == [[0], [1, 2], [3, 4], [5]]

    soon(run())


def test_keys_take_turns_and_share_no_group() -> None:
    async def run() -> None:
        squares = Squares(most=2)
        squares.free.clear()
        numbers = [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 5), ("a", 6)]
        asked = [asyncio.create_task(squares.do(number, key)) for key, number in numbers]
        await asyncio.sleep(0)
        squares.free.set()
        assert await asyncio.gather(*asked) == [1, 4, 9, 16, 25, 36]
        assert squares.groups == [("a", [1, 2]), ("b", [5]), ("a", [3, 4]), ("a", [6])]
        assert squares.grouped._waiting == {}, "a key that anyone may make up is not kept"

    soon(run())


def test_an_error_of_one_is_its_own() -> None:
    async def run() -> None:
        first, wrong, last = await Squares().crowd(1, -1, 3)
        assert (first, last) == (1, 9)
        assert isinstance(wrong, ValueError)

    soon(run())


def test_an_error_of_the_work_is_that_of_its_group_and_the_next_one_is_worked_on() -> None:
    async def run() -> None:
        squares = Squares()
        assert {type(found) for found in await squares.crowd(1, 2, key="broken")} == {OSError}
        assert await squares.crowd(3) == [9]

    soon(run())


def test_nobody_waits_for_ever_when_answers_are_missing() -> None:
    async def half(_: str, asked: Sequence[int]) -> Sequence[int]:
        return asked[: len(asked) // 2]

    async def run() -> None:
        grouped: Grouped[int, int] = Grouped(10)
        with pytest.raises(RuntimeError, match="1 requests have 0 answers"):
            await grouped.do("key", 1, half)

    soon(run())


def test_one_who_does_not_wait_any_more_keeps_nobody_from_an_answer() -> None:
    async def run() -> None:
        squares = Squares()
        squares.free.clear()
        asked = [asyncio.create_task(squares.do(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        asked[0].cancel()
        asked[1].cancel()
        await asyncio.sleep(0)
        squares.free.set()
        assert await asked[2] == 9
        assert await squares.do(4) == 16

    soon(run())
