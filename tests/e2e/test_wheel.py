"""The built wheel, installed in an empty environment without extras: what an editable install would hide.

Needs the package index for the runtime's few dependencies. Runs once a `make test`, and prints what it did.
"""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.tiny_bundle import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"hushrec": "sdk", "hushrec_privacy": "privacy", "hushrec_model": "model", "hushrec_quantize": "quantize"}
PACKAGES |= {"hushrec_server": "server", "hushrec_cli": "cli"}

pytestmark = pytest.mark.wheel


def _run(*command: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    print("$", *command, flush=True)
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"{command}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel once, with the build backend of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    _run(*pip, "--wheel-dir", out, ROOT, cwd=out)
    (built,) = out.glob("hushrec-*.whl")
    print(f"built {built.name}, {built.stat().st_size:,} bytes")
    return built


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that has the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    print(_run(programs / "python", "-m", "pip", "list", "--format=freeze", cwd=folder).stdout.replace("\n", " "))
    return programs


def test_the_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT / top))
        for name, top in PACKAGES.items()
        for path in (ROOT / top / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert names == expected


def test_the_empty_environment_has_no_training_library(empty: Path) -> None:
    listed = _run(empty / "python", "-m", "pip", "list", "--format=freeze", cwd=empty).stdout.lower()
    assert not {"torch", "onnx", "polars", "scipy"} & {line.partition("==")[0] for line in listed.splitlines()}


def test_everything_that_hushrec_offers_can_be_imported(empty: Path) -> None:
    code = "import hushrec; [getattr(hushrec, name) for name in hushrec.__all__]; print(hushrec.__file__)"
    assert str(empty.parent) in _run(empty / "python", "-I", "-c", code, cwd=empty).stdout


def test_the_command_shows_its_help(empty: Path) -> None:
    shown = _run(empty / "hushrec", "--help", cwd=empty).stdout
    assert "recommend" in shown
    print(shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo",),
        ("train", "events.csv", "--out", "run"),
        ("evaluate", "shop.hush", "events.csv"),
        ("quantize", "run", "--out", "shop.hush"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_command_that_needs_an_extra_says_which(empty: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = _run(empty / "hushrec", *arguments, cwd=tmp_path, check=False)
    print(refused.stderr.strip())
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("pip install 'hushrec[train]'")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_opens_and_recommends_without_extras(empty: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    shown = _run(empty / "hushrec", "recommend", bundle, "--history", "item-3,item-5", cwd=tmp_path).stdout
    print(shown)
    assert len(shown.splitlines()) == 11
    assert "verified" in _run(empty / "hushrec", "inspect", bundle, cwd=tmp_path).stderr
