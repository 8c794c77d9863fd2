"""Modules and functions stay small enough to be read at once, and say what they are."""

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, code_lines, functions, package_modules, python_files

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_COMMAND_LINES = 300


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files(), ids=_name)
def test_no_module_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_MODULE_LINES


@pytest.mark.parametrize("path", python_files(), ids=_name)
def test_no_function_is_longer_than_60_lines(path: Path) -> None:
    long = {
        f.name: code_lines(f)
        for f in functions(ast.parse(path.read_text(encoding="utf-8")))
        if code_lines(f) > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize("path", [path for path in package_modules() if "hushrec_cli" in path.parts], ids=_name)
def test_no_file_of_the_command_is_longer_than_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_COMMAND_LINES


@pytest.mark.parametrize("path", package_modules(), ids=_name)
def test_every_module_class_and_public_function_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not sorted(_undocumented(tree))


def _undocumented(tree: ast.Module | ast.ClassDef, prefix: str = "") -> list[str]:
    missing = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and not _is_overload(node):
                missing.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                missing += _undocumented(node, f"{prefix}{node.name}.")
    return missing


def _is_overload(node: ast.AST) -> bool:
    return any(
        "overload" in ast.unparse(decorator) or "setter" in ast.unparse(decorator)
        for decorator in getattr(node, "decorator_list", [])
    )


@pytest.mark.parametrize("path", package_modules(), ids=_name)
def test_every_module_lists_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = {
        n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and not n.name.startswith("_")
    }
    listed: list[str] = next(
        (
            ast.literal_eval(n.value)
            for n in tree.body
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
        ),
        [],
    )
    assert public <= set(listed)
