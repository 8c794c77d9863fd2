"""ONNX Runtime is quiet: no telemetry, socket or file, nothing running while nothing is asked; each in a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_bundle import tiny_bundle

IDLE = """
import json, os, sys, time
import numpy as np
from hushrec.bundle import Bundle
from hushrec.engine import Engine
engine = Engine(Bundle.open(sys.argv[1]))
engine.scores(np.array([1, 2]))
before = time.process_time()
time.sleep(1.0)
links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
print(json.dumps({
    "cpu_s": time.process_time() - before,
    "threads": len(os.listdir("/proc/self/task")),
    "open": [os.readlink(link) for link in links if os.path.islink(link)],
    "set": os.environ["ORT_DISABLE_TELEMETRY"],
}))
"""


def run(code: str, *arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own whose home, cache and temporary folders are `home`."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(home))
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(
        command, cwd=home, env={**kept, **places, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_an_idle_engine_holds_no_socket_writes_no_file_and_spins_no_thread(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    root = tiny_bundle(tmp_path)
    # NumPy's own pool of threads sleeps, but would be counted
    done = run(IDLE, str(root), home=home, OPENBLAS_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["threads"] == 1
    assert found["cpu_s"] < 0.05
    assert not [name for name in found["open"] if name.startswith("socket:")]
    assert not [name for name in found["open"] if "/" in name and not name.startswith(("/dev/", "/proc/", str(root)))]
    assert found["set"] == "1"
    assert list(home.rglob("*")) == []


def test_importing_the_runtime_does_not_load_onnx_runtime(tmp_path: Path) -> None:
    code = "import sys, hushrec.ort, hushrec.engine; print('onnxruntime' in sys.modules)"
    assert run(code, home=tmp_path).stdout == "False\n"


EARLY = """
import warnings, onnxruntime
from hushrec import ort
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ort.load()
    ort.load()
print([str(warning.message)[:51] for warning in caught])
"""


def test_a_host_that_loaded_onnx_runtime_with_telemetry_is_told_once(tmp_path: Path) -> None:
    # CI=1 keeps ONNX Runtime's telemetry quiet in this one process, which cannot switch it off in time
    told = run(EARLY, home=tmp_path, CI="1").stdout
    assert told == "['onnxruntime was imported before hushrec without ORT']\n"


def test_a_host_that_switched_telemetry_off_itself_is_not_told(tmp_path: Path) -> None:
    assert run(EARLY, home=tmp_path, ORT_DISABLE_TELEMETRY="1").stdout == "[]\n"


SPINNING = """
import os, sys, hushrec
assert "numpy" not in sys.modules
hushrec.Bundle
assert "numpy" in sys.modules
print(os.environ.get("OPENBLAS_THREAD_TIMEOUT"))
"""


def test_loading_numpy_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    assert run(SPINNING, home=tmp_path).stdout == "None\n"
    assert run(SPINNING, home=tmp_path, OPENBLAS_THREAD_TIMEOUT="20").stdout == "20\n"
