"""The page on rounds names every state, table, reason and share of time as the code has them."""

import re
from pathlib import Path

from hushrec_server.features import NONCE_S
from hushrec_server.refusals import Reason
from hushrec_server.rounds import State, schedule
from hushrec_server.schema import METADATA

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rounds.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_reason_is_listed_once() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", section("Refusals"), re.MULTILINE)
    assert sorted(listed) == sorted(reason.value for reason in Reason)


def test_the_states_are_drawn_in_their_order() -> None:
    drawn = "".join(re.findall(r"^    .*$", section("States"), re.MULTILINE))
    names = [name for name in re.findall(r"[a-z]+", drawn) if name in set(State)]
    assert names == [state.value for state in State]


def test_every_table_is_listed() -> None:
    listed = set(re.findall(r"`((?:fleet|noise|ledger)_[a-z_]+)`", section("What is stored")))
    assert listed == set(METADATA.tables) - {"hushrec_schema"}


def test_shares_of_time_are_those_of_the_code() -> None:
    states = section("States")
    assert schedule.ADMISSION == 0.5
    assert f"{schedule.ANSWER:.0%}".replace("%", " %") in states
    assert f"{schedule.UPLOAD:.0%}".replace("%", " %") in states
    assert f"{schedule.LEASE:.0%}".replace("%", " %") in states
    assert f"{NONCE_S // 60} minutes" in section("What is stored")
