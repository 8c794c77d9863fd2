"""Wrong messages in every state of a round, most of them rightly signed: refused, and nothing changes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("messages", [700, pytest.param(20_000, marks=pytest.mark.slow)])
def test_no_wrong_message_is_accepted_or_answered_with_a_fault(messages: int) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--messages", str(messages), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["messages"] >= messages
    assert found["signed but for one field"] >= messages / 2
    assert set(found["by state"]) == STATES
    assert found["published"] >= 4
    assert found["aborted"] >= 1
    assert all(int(status) < 500 for status in found["by status"])
    assert found["faults"] == 0
