"""The demo from end to end: on a small stand-in for its log here, on the real one where slow tests run."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hushrec_cli import demo
from hushrec_cli.main import EXIT_INTERRUPTED, run
from hushrec_model import boxed
from hushrec_privacy.errors import FleetError

from tests.demo_fleet import check_whole_fleet
from tests.e2e.commands import hushrec, write_shop

ROUND = {"round": 1, "state": "published", "expected": 6, "reason": ""}
FLEET: dict[str, Any] = {
    "folder": "hushrec-demo/fleet",
    "devices": [{"rounds": 4, "version": [1, 3], "recommended": [["a", "b"], ["b", "a"]], "receipt": "", "refusal": ""}]
    * 6,
    "rounds": {"training": [{**ROUND, "round": 2}, ROUND], "counts": [ROUND], "features": [ROUND]},
    "counts": {"rounds": [{"segments": {"trending": {"values": [1.0, 9.5, -2.0, 3.0], "deviation": 4.25}}}]},
    "features": {"rounds": [{"segments": {"interests": {"values": [0.5, -1.5], "deviation": 2.5}}}]},
    "direct": 6,
    "budget": {
        "epsilon": 11.78,
        "plans": [{"plan": "ab" * 32, "spent": {"rounds": 4, "epsilon": 7.98}, "left": {"epsilon_at_the_end": 7.98}}],
    },
    "seconds": 90.0,
}


def test_the_demo_explains_itself_to_somebody_who_has_never_seen_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events, items = write_shop(tmp_path)
    monkeypatch.setattr(boxed, "boxed_events", lambda _: events)
    monkeypatch.setattr(boxed, "boxed_items", lambda _: items)
    given: list[list[str]] = []

    def fleet(_bundle: Path, histories: list[list[str]], *_: object) -> dict[str, object]:
        given.extend(histories)
        return FLEET

    monkeypatch.setattr(demo, "run_fleet", fleet)
    demo.demo(demo.Shop.ONLINE_RETAIL, tmp_path / "out")
    told = capsys.readouterr()
    for words in (
        "without PyTorch",
        "HOW GOOD ARE THE RECOMMENDATIONS?",
        "hushrec, int8 bundle",
        "decayed transitions",
        "HOW SMALL AND HOW FAST ON THE DEVICE?",
        "one list of ten, p99",
        "training libraries loaded  none",
        "CUSTOMER 3",
        "6 DEVICE PROCESSES, A SERVER, AN AUTHORITY (DEMO)",
        "Of 4 items that were counted the three largest read 9.5, 3.0, 1.0.",
        "Price bands as one sum over the devices: 0.5, -1.5.",
        "Price bands of 6 devices, each sent by itself",
        "1 to 3",
        "The fleet:        hushrec-demo/fleet: server, authority, plans and devices",
        "Next: hushrec inspect",
    ):
        assert words in told.out + told.err
    assert all(len(line) <= 120 for line in told.out.splitlines() if str(tmp_path) not in line)
    assert (tmp_path / "out" / "online_retail.hush.html").is_file()
    assert all(given), "each device has a shopper's history"


def test_a_demo_whose_fleet_came_to_nothing_prints_what_there_is_and_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aborted = {**ROUND, "state": "aborted", "reason": "too few devices"}
    nothing = {**FLEET, "rounds": {**FLEET["rounds"], "training": [aborted]}}
    monkeypatch.setattr(demo, "_make", lambda *_: {})
    monkeypatch.setattr(demo, "_customers", lambda *_: [])
    monkeypatch.setattr(demo, "_on_a_device", lambda *_: {})
    monkeypatch.setattr(demo, "run_fleet", lambda *_: nothing)
    monkeypatch.setattr("hushrec_cli.demo_text.results", lambda _: "all that was found")
    monkeypatch.setattr(sys, "argv", ["hushrec", "demo", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == FleetError.exit_code
    told = capsys.readouterr()
    assert "all that was found" in told.out
    assert told.err.splitlines()[-1] == (
        "hushrec: the demo's fleet did not do what it must: "
        "no round that trains was published (round 1 is aborted: too few devices)"
    )


def test_a_demo_that_is_stopped_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_make", stopped)
    monkeypatch.setattr(sys, "argv", ["hushrec", "demo", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == EXIT_INTERRUPTED
    assert "stopped; the same command goes on with the training that was done" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("data", [shop.value for shop in demo.Shop])
def test_the_real_demo_beats_every_baseline_that_ships_with_it(data: str, tmp_path: Path) -> None:
    shown = hushrec("demo", "--data", data, "--out", tmp_path, "--json", timeout_s=1200)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    quality = found["quality"]
    assert all(quality["ndcg@10"] > scores["ndcg@10"] for scores in quality["baselines"].values() if scores)
    assert found["device"]["training_libraries"] == []
    assert all(len(customer["recommended"]) == 10 for customer in found["device"]["customers"])
    check_whole_fleet(found["fleet"])
