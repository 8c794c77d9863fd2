"""docs/cli.md is what the program says, and every command is in it."""

from pathlib import Path

import pytest
import typer.main
from hushrec_cli.main import app
from hushrec_cli.reference import command_words, reference_page

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS = [" ".join(words) for words in command_words(typer.main.get_command(app))]
GROUPS = {name for name in COMMANDS if any(other.startswith(name + " ") for other in COMMANDS)}


def test_the_page_is_what_the_program_says() -> None:
    assert reference_page() == PAGE, "the command changed: run `make docs`"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_with_an_example(command: str) -> None:
    section = PAGE.split(f"\n## hushrec {command}\n", 1)[1].split("\n## ", 1)[0]
    assert f"Example: hushrec {command}" in section
    assert "--help" in section


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
def test_every_command_that_reports_offers_json(command: str) -> None:
    section = PAGE.split(f"\n## hushrec {command}\n", 1)[1].split("\n## ", 1)[0]
    assert "--json" in section


def test_the_page_is_the_same_on_a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert reference_page() == PAGE
