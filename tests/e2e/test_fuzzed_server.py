"""Wrong messages over sockets to `hushrec serve`, in every state of a round, most of them rightly signed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import DATABASES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_server.py"
STATES = {
    "before",
    "advertise",
    "choose",
    "share",
    "mask",
    "agree",
    "reveal",
    "summed",
    "noised",
    "erased",
    "published",
    "aborted",
}


def check(database: str, messages: int) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--messages", str(messages), "--only", database, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[database]
    assert found["messages"] >= messages
    assert found["signed but for one field"] >= found["messages"] / 2
    assert set(found["by state"]) == STATES
    assert found["published"] >= 3
    assert found["aborted"] >= 1
    assert all(int(status) < 500 for status in found["by status"])
    assert found["faults"] == 0


def test_no_wrong_message_is_accepted_changes_anything_or_is_a_fault_of_the_server() -> None:
    check("sqlite", 150)


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_no_wrong_message_of_thousands_is_accepted_changes_anything_or_is_a_fault_of_the_server(database: str) -> None:
    check(database, 5_000)
