"""The repository holds no trace of a machine, every test runs somewhere, and the tools cover every folder."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, committed_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Written in pieces, so that this file does not find itself.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.~$}])/" + r"(work|tmp|root|opt)/",
            "/ho" + r"me/\w",
            "pypi" + r"\.org",
            "files\\.python" + "hosted",
            "--(extra-)?index" + "-url",
        ]
    )
)
TEXT = {".py", ".md", ".toml", ".txt", ".html", ".cfg", ".json", ".yml", ".yaml", ""}


def test_no_committed_text_names_a_machine_or_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in committed_files()
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_committed_text_leaves_work_for_later() -> None:
    marks = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b")
    found = [
        str(path.relative_to(ROOT))
        for path in committed_files()
        if path.suffix in {".py", ".md", ".toml"} and marks.search(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_every_test_file_lies_where_pytest_looks_and_has_a_name_it_collects() -> None:
    roots = [ROOT / name for name in PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]]
    for path in committed_files():
        holds_tests = path.suffix == ".py" and re.search(
            r"^(async )?def test_", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        if holds_tests:
            assert path.name.startswith("test_"), f"{path}: pytest collects only test_*.py"
            assert any(root in path.parents for root in roots), f"{path}: outside testpaths"


@pytest.mark.parametrize("target", ["test", "test-all"])
def test_the_targets_leave_out_no_tests_but_the_slow_and_the_wheel_ones(target: str) -> None:
    recipe = MAKEFILE.split(f"\n{target}: check", 1)[1].split("\n\n", 1)[0]
    left_out = {"test": "not slow and not wheel", "test-all": "not wheel"}[target]
    assert f'-m "{left_out}"' in recipe
    assert "$(MAKE) wheel" in recipe
    assert not re.search(r"--ignore|--deselect| -k ", recipe)


def test_every_marker_is_known_to_a_target() -> None:
    names = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    assert names == {"slow", "wheel"}


def test_doctests_of_every_package_are_collected() -> None:
    options = PROJECT["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"]
    assert {folder.parent.name for folder in PACKAGES.values()} <= set(options["testpaths"])


def test_types_are_checked_strictly_everywhere_without_exceptions() -> None:
    mypy = PROJECT["tool"]["mypy"]
    assert mypy["strict"] is True
    assert set(mypy["packages"]) == set(PACKAGES)
    assert not {"disable_error_code", "ignore_errors", "exclude"} & set(mypy)


def test_every_package_is_in_the_wheel() -> None:
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {ROOT / name for name in shipped} == set(PACKAGES.values())


def test_the_constraints_pin_every_dependency_to_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(requirement for extra in extras.values() for requirement in extra)]
    names = {re.split(r"[\s\[<>=]", requirement, maxsplit=1)[0].lower() for requirement in wanted} - {"hushrec"}
    assert names <= pinned


def test_the_continuous_integration_entry_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert "make test" in script.read_text(encoding="utf-8")


def test_licence_and_pages_are_there() -> None:
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/index.md",
        "docs/design.md",
    ):
        assert Path(ROOT / name).stat().st_size > 0
