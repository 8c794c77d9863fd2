"""What the second half of the demo must come to when nothing goes wrong: every round, release, payload and mark."""

from typing import Any

from hushrec_cli.demo_check import check_fleet
from hushrec_cli.demo_fleet import DEVICES, ROUNDS
from hushrec_cli.demo_fleet_text import fleet_blocks

__all__ = ["check_whole_fleet"]


def check_whole_fleet(fleet: dict[str, Any]) -> None:
    """Hold what `run_fleet` gave against what the demo tells its reader."""
    check_fleet(fleet)
    states = {name: [found["state"] for found in rounds] for name, rounds in fleet["rounds"].items()}
    assert states == {"training": ["published"] * ROUNDS, "counts": ["published"], "features": ["published"]}
    assert [device["version"] for device in fleet["devices"]] == [[1, 1 + ROUNDS]] * DEVICES
    assert [device["rounds"] for device in fleet["devices"]] == [ROUNDS + 2] * DEVICES
    (counted,), (gathered,) = fleet["counts"]["rounds"], fleet["features"]["rounds"]
    assert counted["devices"] == gathered["devices"] == fleet["direct"] == DEVICES
    assert {name: len(values["values"]) > 0 for name, values in counted["segments"].items()} == {
        "trending": True,
        "evaluation": True,
    }
    assert len(gathered["segments"]["interests"]["values"]) == 8
    plans = fleet["budget"]["plans"]
    assert sorted(plan["spent"]["rounds"] for plan in plans) == [1, 1, ROUNDS]
    assert all(0 < plan["spent"]["epsilon"] <= 8 for plan in plans)
    assert fleet["budget"]["epsilon"] > max(plan["spent"]["epsilon"] for plan in plans)
    assert all(plan["demo"] for plan in (*plans, *fleet["status"]["plans"])), "ledger and plans say DEMO"
    assert all(device["receipt"].count("DEMO") > len(plans) for device in fleet["devices"]), "and so do receipts"
    told = "\n".join("\n".join(block) for block in fleet_blocks(fleet))
    for words in ("(DEMO)", "THE SERVER'S PRIVACY LEDGER", f"1 to {1 + ROUNDS}", f"Price bands of {DEVICES} devices"):
        assert words in told
