"""The lock of a file: one holder at a time, among threads too."""

import threading
from pathlib import Path

from hushrec.file_lock import file_lock


def test_a_second_holder_waits_and_is_told_if_it_was_in_vain(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock", 0) as held:
        assert held
        with file_lock(tmp_path / "lock", 0.05) as again:
            assert not again
        with file_lock(tmp_path / "other", 0) as other:
            assert other
    with file_lock(tmp_path / "lock", 0) as held:
        assert held, "given back"


def test_it_is_given_back_when_the_body_fails(tmp_path: Path) -> None:
    try:
        with file_lock(tmp_path / "lock", 0):
            raise KeyError
    except KeyError:
        pass
    with file_lock(tmp_path / "lock", 0) as held:
        assert held


def test_threads_take_turns(tmp_path: Path) -> None:
    inside, most, held = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, held
        with file_lock(tmp_path / "lock", 30) as mine:
            inside, held = inside + 1, held + mine
            most = max(most, inside)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, held) == (1, 8)
