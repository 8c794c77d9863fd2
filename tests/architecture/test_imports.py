"""Imports point downwards, the device runtime stays light, and every dependency that is declared is used."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, package_modules, python_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOP_FOLDERS = {"sdk", "privacy", "model", "quantize", "server", "cli"}


_USED_BY_NAME = {"psycopg"}  # SQLAlchemy loads it for the address of a PostgreSQL


def _imported(path: Path) -> set[str]:
    """Top names of all imports of a module, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _third_party(packages: set[str]) -> set[str]:
    paths = [path for name in packages for path in PACKAGES[name].rglob("*.py")]
    found = set().union(*(_imported(path) for path in paths)) if paths else set()
    return found - set(sys.stdlib_module_names) - set(PACKAGES)


def _declared(*extras: str) -> set[str]:
    """Names of what a plain install brings, and some extras."""
    project = PROJECT["project"]
    requirements = [*project["dependencies"], *(r for name in extras for r in project["optional-dependencies"][name])]
    names = {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {name.replace("-", "_") for name in names} - {"hushrec"}


def test_each_package_imports_only_what_its_extra_brings() -> None:
    assert _third_party({"hushrec_privacy"}) <= _declared()
    assert _third_party({"hushrec"}) <= _declared("fleet")
    assert _third_party({"hushrec_server"}) <= _declared("server")
    assert _third_party({"hushrec_cli"}) <= _declared("train", "server", "fleet")


def test_every_declared_dependency_is_imported() -> None:
    assert _declared("train", "server", "fleet") <= _third_party(set(PACKAGES)) | _USED_BY_NAME


def test_the_extra_train_is_not_imported_by_the_runtime() -> None:
    assert not _third_party({"hushrec", "hushrec_privacy"}) & (_declared("train") - _declared())


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_imports_a_top_folder_as_a_package(path: Path) -> None:
    assert not _imported(path) & TOP_FOLDERS


def test_every_package_ships_its_types() -> None:
    assert all((folder / "py.typed").is_file() for folder in PACKAGES.values())


def _loaded_after(statement: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in shown.stdout.split()}


def test_importing_hushrec_loads_at_most_its_light_libraries() -> None:
    third_party = _loaded_after("import hushrec") & {
        "onnxruntime",
        "typer",
        "torch",
        "onnx",
        "polars",
        "scipy",
        "cryptography",
        "sqlite3",
        "dp_accounting",
    }
    assert not third_party


def test_opening_the_bundle_reader_loads_no_inference_library() -> None:
    assert not _loaded_after("import hushrec.bundle") & {"onnxruntime", "torch", "onnx", "polars", "scipy"}


def test_starting_the_command_loads_no_heavy_library() -> None:
    heavy = {
        "onnxruntime",
        "torch",
        "onnx",
        "polars",
        "scipy",
        "numpy",
        "hushrec_model",
        "hushrec_quantize",
        "sqlite3",
        "cryptography",
        "dp_accounting",
        "litestar",
        "uvicorn",
        "sqlalchemy",
        "tuf",
        "rich",
    }
    assert not _loaded_after("import hushrec_cli.main") & heavy


def test_no_package_module_is_forgotten_by_the_rules() -> None:
    assert {path.parts[len(ROOT.parts)] for path in package_modules()} == TOP_FOLDERS
