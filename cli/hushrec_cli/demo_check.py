"""Whether the demo's fleet did what it is there to show; what it printed does not count.

A fleet of processes can end without an error and without a result: every round given up, nothing published. The demo
must not pass for a success then.
"""

from collections.abc import Iterator
from typing import Any

from hushrec_privacy.errors import FleetError

from hushrec_cli.demo_device import FEATURE

__all__ = ["check_fleet"]


def check_fleet(fleet: dict[str, Any]) -> None:
    """Require a round that trained, a new release on a device, counts, both payloads, and the budget.

    Args:
        fleet: From `demo_fleet.run_fleet`.

    Raises:
        FleetError: Something of it is missing; all of that is named.
    """
    missing = list(_missing(fleet))
    if missing:
        raise FleetError(f"the demo's fleet did not do what it must: {'; '.join(missing)}", reason="demo")


def _missing(fleet: dict[str, Any]) -> Iterator[str]:
    rounds = {name: [found["state"] for found in rounds] for name, rounds in fleet["rounds"].items()}
    if "published" not in rounds["training"]:
        yield f"no round that trains was published ({_ends(fleet['rounds']['training'])})"
    if not any(after > before for before, after in (device["version"] for device in fleet["devices"])):
        yield "no new release reached a device"
    if not _arrived(fleet["counts"], "trending"):
        yield f"nothing was counted ({_ends(fleet['rounds']['counts'])})"
    if not _arrived(fleet["features"], FEATURE):
        yield f"no feature vector arrived in a sum ({_ends(fleet['rounds']['features'])})"
    if not fleet["direct"]:
        yield "no feature vector that a device sends by itself arrived"
    spent = sum(plan["spent"]["rounds"] for plan in fleet["budget"]["plans"])
    published = sum(states.count("published") for states in rounds.values())
    if not spent or spent < published:
        yield f"the budget report lacks rounds: {spent} spent, {published} published"
    if not isinstance(epsilon := fleet["budget"]["epsilon"], int | float) or epsilon <= 0:
        yield f"the budget report's epsilon is {epsilon}"


def _arrived(counts: dict[str, Any], name: str) -> bool:
    """Whether a published round has numbers in a segment."""
    return any(found["segments"].get(name, {}).get("values") for found in counts["rounds"])


def _ends(rounds: list[dict[str, Any]]) -> str:
    """How rounds ended; they come newest first.

    >>> _ends([{"round": 2, "state": "mask", "reason": ""}, {"round": 1, "state": "aborted", "reason": "too few"}])
    'round 1 is aborted: too few, round 2 is mask'
    """
    told = [f"round {found['round']} is {found['state']}: {found['reason']}".rstrip(": ") for found in rounds[::-1]]
    return ", ".join(told) or "nobody came"
