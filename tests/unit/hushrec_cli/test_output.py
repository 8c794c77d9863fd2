"""Tables, plain lines and JSON."""

import json
import math
from pathlib import Path

import pytest
from hushrec_cli.output import as_json_text, person_cell, print_table, table_text, write_file
from hushrec_privacy.errors import ConfigError


def test_json_never_holds_nan_or_infinity() -> None:
    text = as_json_text({"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": (math.nan,)}})
    assert json.loads(text) == {"a": None, "b": [None, None, 1.5], "c": {"d": [None]}}


def test_json_refuses_what_it_cannot_express() -> None:
    with pytest.raises(TypeError):
        as_json_text({"a": object()})


def test_json_is_one_line_and_keeps_letters() -> None:
    assert as_json_text({"title": "Töpfe\nund mehr"}) == '{"title": "Töpfe\\nund mehr"}'


def test_a_table_for_a_person_lines_up_numbers_on_the_right() -> None:
    text = table_text(["step", "bytes"], [["float", 1000], ["int8", None]], aligned=True)
    assert text.splitlines() == ["step   bytes", "float  1,000", "int8       –"]


def test_a_table_for_a_program_is_tab_separated_with_plain_numbers() -> None:
    text = table_text(["step", "bytes", "share"], [["two\twords", 1000, 0.25], ["none", None, math.nan]], aligned=False)
    assert text.splitlines() == ["step\tbytes\tshare", "two words\t1000\t0.25", "none\t\t"]


def test_a_table_without_rows_is_its_head() -> None:
    assert table_text(["a", "b"], [], aligned=True) == "a  b"


def test_output_that_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["x", 1]])
    assert capsys.readouterr() == ("a\tb\nx\t1\n", "")


@pytest.mark.parametrize(
    ("cell", "shown"), [(0, "0"), (-3, "-3"), (1e6, "1,000,000"), (0.00004, "0.0000"), (12.34, "12.3")]
)
def test_numbers_are_shown_short(cell: float, shown: str) -> None:
    assert person_cell(cell) == shown


def test_a_file_in_a_folder_that_is_missing_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing: this folder does not exist; make it"):
        write_file(tmp_path / "missing" / "keys.json", "{}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file: is no folder"):
        write_file(tmp_path / "file" / "keys.json", "{}")
