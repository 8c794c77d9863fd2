"""What the demo tells of its fleet: rounds, budget, what the shop learned, and what reached the devices."""

from collections.abc import Iterator
from typing import Any

from hushrec_cli.demo_device import FEATURE
from hushrec_cli.output import table_text

__all__ = ["fleet_blocks"]

_PURPOSES = {"training": "train the model", "counts": "count", "features": "gather features"}


def fleet_blocks(fleet: dict[str, Any]) -> list[Iterator[str]]:
    """Blocks of lines.

    Args:
        fleet: From `demo_fleet.run_fleet`.
    """
    return [_rounds(fleet), _budget(fleet["budget"]), _learned(fleet), _devices(fleet)]


def _rounds(fleet: dict[str, Any]) -> Iterator[str]:
    devices = len(fleet["devices"])
    yield f"LEARNING TOGETHER: {devices} DEVICE PROCESSES, A SERVER, AN AUTHORITY (DEMO)"
    yield "Every message was sealed and signed; the server got masked vectors, and from them one sum a round, which it"
    yield f"noised before anything else. A real round has at least 100 devices: {devices} protect nobody, so plans,"
    yield "ledger, receipts and releases of this demo say DEMO, and an app's device refuses them."
    yield ""
    rows = [
        [_PURPOSES[name], str(found["round"]), found["state"], str(found["expected"]), found["reason"]]
        for name, rounds in fleet["rounds"].items()
        for found in reversed(rounds)
    ]
    yield table_text(["what for", "round", "state", "devices", ""], rows, aligned=True)


def _budget(budget: dict[str, Any]) -> Iterator[str]:
    yield "WHAT IT COST: THE SERVER'S PRIVACY LEDGER (DEMO)"
    rows = [
        [
            plan["plan"][:16],
            str(plan["spent"]["rounds"]),
            _epsilon(plan["spent"]["epsilon"]),
            _epsilon(plan["left"]["epsilon_at_the_end"]),
        ]
        for plan in budget["plans"]
    ]
    rows.append(["all together", "", _epsilon(budget["epsilon"]), ""])
    yield table_text(["plan begins", "rounds spent", "epsilon spent", "epsilon at the end"], rows, aligned=True)
    yield "Epsilon is for one device over everything that was published. Noise of this size drowns six devices."


def _epsilon(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else value


def _learned(fleet: dict[str, Any]) -> Iterator[str]:
    yield "WHAT THE SHOP CAN READ (DEMO)"
    for segments in (found["segments"] for found in fleet["counts"]["rounds"][:1]):
        trending = segments["trending"]
        items, deviation = len(trending["values"]), trending["deviation"]
        shown = _numbers(sorted(trending["values"], reverse=True)[:3])
        yield f"Of {items:,} items that were counted the three largest read {shown}. Noise moves each by"
        yield f"{deviation:.1f}: with so few devices the largest of so many is luck, no signal."
    for segments in (found["segments"] for found in fleet["features"]["rounds"][:1]):
        bands = segments[FEATURE]
        yield f"Price bands as one sum over the devices: {_numbers(bands['values'])}. Noise moves each by"
        yield f"{bands['deviation']:.1f}."
    yield f"Price bands of {fleet['direct']} devices, each sent by itself after a consent of its own, noised there."


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _devices(fleet: dict[str, Any]) -> Iterator[str]:
    yield "WHAT REACHED THE DEVICES"
    rows = []
    for number, device in enumerate(fleet["devices"], start=1):
        before, after = device["version"]
        kept = len(set(device["recommended"][0]) & set(device["recommended"][1]))
        shown = len(device["recommended"][0])
        rows.append([str(number), str(device["rounds"]), f"{before} to {after}", f"{kept} of {shown}"])
    yield table_text(["device", "rounds", "release", "items still recommended"], rows, aligned=True)
    yield f"All of it took {fleet['seconds']:.0f} seconds, most of it waiting: rounds begin at times that a plan signs."
