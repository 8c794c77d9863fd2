"""What the demo tells a reader who has never seen the project: short headings, and a line on what each number means."""

from collections.abc import Iterator
from typing import Any

from hushrec_cli.demo_fleet_text import fleet_blocks
from hushrec_cli.evaluate import quality_rows
from hushrec_cli.output import price_text, table_text

__all__ = ["introduction", "results"]

_NAME_WIDTH = 40
_REASON_WIDTH = 60
_ASKED = {
    "baskets": "The last visit of {questions} customers was hidden from training: what will they buy?",
    "sessions": "{questions} clicks of later sessions were hidden from training: what is clicked next?",
    "temporal": "The later purchases of {questions} customers were hidden from training: what comes first?",
    "leave-one-out": "The last event of {questions} customers was hidden from training: which item is it?",
}
"""What is asked, by protocol."""


def introduction(about: str) -> str:
    """What the demo is going to do.

    Args:
        about: What the log is and where it comes from, one or two sentences.
    """
    return "\n".join(
        [
            "hushrec demo: recommendations computed on the shopper's own device",
            "",
            f"The log: {about}",
            "The plan: train a small Transformer on it, shrink it to int8, pack it with the catalogue into a folder,",
            "the bundle, and open that in a second process that has no PyTorch, as a till or a desktop app would.",
            "Then let six such devices learn together over a server that sees sums, and never what one of them sends.",
        ]
    )


def results(found: dict[str, Any]) -> str:
    """Everything the demo found, as text.

    Args:
        found: What `hushrec demo --json` prints.
    """
    blocks = [_quality(found["quality"]), _device(found), *_customers(found["device"]["customers"])]
    blocks += [*fleet_blocks(found["fleet"]), _next(found)]
    return "\n" + "\n\n".join("\n".join(block) for block in blocks)


def _quality(quality: dict[str, Any]) -> Iterator[str]:
    yield "HOW GOOD ARE THE RECOMMENDATIONS?"
    yield _ASKED[quality["protocol"]].format(questions=f"{quality['users']:,}")
    yield f"Each method ranks all {quality['items']:,} items by what came before. HR@10: the share of questions with a"
    yield "right answer among the first ten. NDCG@10: the same, but a place near the top counts more, and 1 is perfect."
    yield "What matters is the distance between the first line and the simple methods below it."
    yield ""
    yield table_text(["ranked by", "HR@10", "NDCG@10"], quality_rows(quality, "hushrec, int8 bundle"), aligned=True)


def _device(found: dict[str, Any]) -> Iterator[str]:
    device = found["device"]
    libraries = ", ".join(device["training_libraries"]) or "none"
    rows = [
        ["size of the bundle", f"{found['bundle_bytes'] / 1e6:.2f} MB", "the whole download: model, counts, catalogue"],
        ["one list of ten, p50", f"{device['p50_ms']:.2f} ms", "new event in, ten items out; half of all are faster"],
        [
            "one list of ten, p99",
            f"{device['p99_ms']:.2f} ms",
            f"99 of 100 are faster; {device['calls']} calls measured",
        ],
        [
            "start to first list",
            f"{device['first_list_ms']:.0f} ms",
            "a new process, every file of the bundle verified",
        ],
        ["training libraries loaded", libraries, "the device needs no PyTorch"],
    ]
    yield "HOW SMALL AND HOW FAST ON THE DEVICE?"
    yield table_text(["", "", "what it means"], rows, aligned=True)


def _customers(customers: list[dict[str, Any]]) -> Iterator[list[str]]:
    for number, customer in enumerate(customers, start=1):
        had = [[_cut(item["name"], _NAME_WIDTH), price_text(item["price"])] for item in customer["history"]]
        hits = sum(item["came_next"] for item in customer["recommended"])
        yield [
            f"CUSTOMER {number}: {customer['events']} items so far, the latest of them:",
            table_text(["item", "price"], had, aligned=True),
            "",
            f"Recommended; * marks {hits} of the {customer['next']} items that came next in truth:",
            _list(customer["recommended"]),
            "",
            "Recommended, if items that this customer had before are left out:",
            _list(customer["recommended_new"]),
        ]


def _list(items: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(place),
            "*" if item["came_next"] else "",
            _cut(item["name"], _NAME_WIDTH),
            price_text(item["price"]),
            _cut(item["reason"], _REASON_WIDTH),
        ]
        for place, item in enumerate(items, start=1)
    ]
    return table_text(["", "", "item", "price", "why"], rows, aligned=True)


def _cut(text: str, width: int) -> str:
    """Shorten a text.

    >>> _cut("WHITE HANGING HEART", 12)
    'WHITE HANGI…'
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def _next(found: dict[str, Any]) -> Iterator[str]:
    yield f"Training, quantizing and measuring took {found['minutes']:.1f} minutes."
    yield f"The bundle:       {found['bundle']}"
    yield f"How it was made:  {found['page']}"
    yield f"The fleet:        {found['fleet']['folder']}: server, authority, plans and devices of this demo"
    yield f"Next: hushrec inspect {found['bundle']}"
