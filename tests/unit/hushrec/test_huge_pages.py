"""Huge pages are asked for where they help, and nothing breaks where there are none."""

import mmap
import re
import sys
from pathlib import Path

import pytest
from hushrec import huge_pages as module
from hushrec.huge_pages import huge_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GIVEN = SETTING.exists() and "[never]" not in SETTING.read_text()
SIZE = 32 << 20


def huge_kb() -> int:
    """Anonymous memory of this process that lies in huge pages."""
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(not GIVEN, reason="this system gives no huge pages on request")
def test_what_is_allocated_inside_lies_in_huge_pages() -> None:
    before = huge_kb()
    with huge_pages():
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for place in range(0, SIZE, 4096):
            memory[place] = 7
    assert huge_kb() - before >= (SIZE - (4 << 20)) // 1024
    assert memory[4096] == memory[SIZE - 4096] == 7
    memory.close()


def test_elsewhere_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(module, "_anonymous", lambda: pytest.fail("the mappings were read"))
    with huge_pages():
        pass


def test_mappings_that_cannot_be_read_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MAPS", tmp_path / "none")
    with huge_pages():
        pass


def test_an_error_inside_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError), huge_pages():
        raise ZeroDivisionError
