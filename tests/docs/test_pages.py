"""The pages exist, their links lead somewhere, and what they tell a reader to type is what the project has."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec_privacy import errors
from hushrec_privacy.errors import HushrecError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
KINDS = [getattr(errors, name) for name in errors.__all__ if name != "HushrecError"]


def _fenced(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_error_has_a_page_with_cause_fix_and_exit_code(kind: type[HushrecError]) -> None:
    page = (ROOT / "docs" / "errors" / f"{kind.code}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {kind.code}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Cause", "Fix"]
    assert f"exit code {kind.exit_code}." in page


def test_no_error_page_is_left_without_an_error() -> None:
    assert {path.stem for path in (ROOT / "docs" / "errors").glob("*.md")} == {kind.code for kind in KINDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    lost = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_table_has_its_head(page: Path) -> None:
    lines = ["", *map(str.strip, page.read_text(encoding="utf-8").splitlines())]
    first = [place for place in range(1, len(lines)) if lines[place][:1] == "|" != lines[place - 1][:1]]
    torn = [lines[place] for place in first if not lines[place + 1].startswith("| --")]
    assert not torn, "a reader sees these rows as text"


def test_the_index_lists_every_page_of_its_folder() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in index for page in (ROOT / "docs").glob("*.md") if page.name != "index.md")


def test_every_make_command_of_the_pages_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    targets |= {"test", "test-all"}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
        assert used <= targets, page.name


def test_the_readme_starts_with_the_demo_and_then_the_tests() -> None:
    commands = [line for block in _fenced(ROOT / "README.md", "console") for line in block.splitlines()]
    assert commands[:2] == ["make demo", "make test"]


def test_the_first_screen_of_the_readme_names_devices_and_the_bundle_format() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    for word in ("desktop", "tills", "kiosks", "edge", "phone", "browser", "docs/bundle-format.md"):
        assert word in first_screen


def test_the_readme_gives_the_attribution_that_the_data_asks_for() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for text in ("Chen, D. (2015)", "10.24432/C5BW33", "CC BY 4.0", "data set 553"):
        assert text in readme


def test_the_changelog_has_our_two_headings() -> None:
    unreleased = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("## [Unreleased]", 1)[1]
    assert {"Privacy", "Wire"} <= set(re.findall(r"^### (\w+)$", unreleased, re.MULTILINE))


def test_every_benchmark_command_is_a_script_that_make_bench_runs() -> None:
    named = set(
        re.findall(r"python benchmarks/(\w+)\.py", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    )
    lists = re.findall(r"for part in ([\w ]+);", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(lists) == 3  # make bench, make bench-privacy, make bench-library
    assert sorted(named) == sorted(" ".join(lists).split())
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in named)
