"""How the text of options is read."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer
from hushrec_cli.options import Protocol, column_roles, comma_list, parse_time
from hushrec_model.protocols import PROTOCOLS


def test_the_command_offers_exactly_the_protocols_of_the_library() -> None:
    assert {protocol.value for protocol in Protocol} == set(PROTOCOLS)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2008-08-01", datetime(2008, 8, 1, tzinfo=UTC)),
        ("2008-08-01T12:30", datetime(2008, 8, 1, 12, 30, tzinfo=UTC)),
        ("2008-08-01T12:30Z", datetime(2008, 8, 1, 12, 30, tzinfo=UTC)),
        ("2008-08-01 12:30+02:00", datetime(2008, 8, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_times_without_a_zone_are_utc(text: str, time: datetime) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize("text", ["", "yesterday", "01.08.2008", "2008-13-01"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 2008-08-01"):
        parse_time(text)


def test_no_time_is_none() -> None:
    assert parse_time(None) is None


def test_lists_drop_blanks_and_empty_values() -> None:
    assert comma_list(" a, b ,,c") == ("a", "b", "c")
    assert comma_list("") == comma_list(None) == ()


@pytest.mark.parametrize("given", [["user"], ["=x"], ["user="], ["user=a", "user=b"]])
def test_column_roles_that_say_nothing_or_twice_are_refused(given: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="--column user=NAME"):
        column_roles(given)


def test_a_column_name_may_hold_an_equals_sign() -> None:
    assert column_roles(["user=a=b"]) == {"user": "a=b"}
