"""Where the project's own files lie: what the rules in this folder are held against."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "hushrec_privacy": ROOT / "privacy" / "hushrec_privacy",
    "hushrec": ROOT / "sdk" / "hushrec",
    "hushrec_model": ROOT / "model" / "hushrec_model",
    "hushrec_quantize": ROOT / "quantize" / "hushrec_quantize",
    "hushrec_server": ROOT / "server" / "hushrec_server",
    "hushrec_cli": ROOT / "cli" / "hushrec_cli",
}


@cache
def package_modules() -> tuple[Path, ...]:
    """Every module of every package."""
    return tuple(sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py")))


@cache
def python_files() -> tuple[Path, ...]:
    """Every module, test, benchmark and example."""
    beside = (path for top in ("tests", "benchmarks", "examples") for path in (ROOT / top).rglob("*.py"))
    return (*package_modules(), *sorted(beside))


def committed_files() -> list[Path]:
    """Every file that git keeps or would keep; all files of an exported tree without git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Length of a function in lines, its docstring not counted."""
    start, end = function.lineno, function.end_lineno or function.lineno
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        return end - start + 1 - ((first.end_lineno or first.lineno) - first.lineno + 1)
    return end - start + 1
