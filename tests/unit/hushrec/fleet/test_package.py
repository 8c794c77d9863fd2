"""The package offers what its list says, and importing it loads nothing heavy."""

import subprocess
import sys

import hushrec.fleet
import pytest

HEAVY = {"urllib3", "tuf", "cryptography", "onnxruntime", "sqlite3", "keyring"}


def test_every_name_is_there_and_no_other() -> None:
    for name in hushrec.fleet.__all__:
        assert getattr(hushrec.fleet, name).__name__ == name
        assert name in dir(hushrec.fleet)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = hushrec.fleet.Nothing


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import hushrec.fleet", {"numpy", "urllib3", "tuf", "cryptography", "onnxruntime", "sqlite3", "msgspec"}),
        (
            "from hushrec.fleet import FleetClient",
            {"urllib3", "tuf", "cryptography", "onnxruntime", "sqlite3", "keyring"},
        ),
    ],
)
def test_what_is_heavy_is_loaded_when_it_is_needed(statement: str, heavy: set[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert not loaded & heavy
