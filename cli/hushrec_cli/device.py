"""The second process of the demo: a shopper's device, which knows the bundle and the runtime and no training library.

`python -m hushrec_cli.device BUNDLE CUSTOMERS.json STARTED` prints one JSON object. CUSTOMERS.json is a list of
{"history": [item, ...], "next": [item, ...]}, the oldest event first; STARTED is the time at which the process was
started, in seconds since 1970.
"""

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

__all__ = ["device_report"]

TRAINING_LIBRARIES = ("torch", "onnx", "polars", "scipy")
_SHOWN_HISTORY = 5
_SHOWN, _SHOWN_NEW = 10, 5
_CALLS = 300


def device_report(bundle: Path, customers: list[dict[str, Any]], started: float) -> dict[str, Any]:
    """Open a bundle, recommend for each customer, and measure.

    Args:
        bundle: Folder of the bundle.
        customers: See the module's docstring; at least one.
        started: When this process was started, seconds since 1970.

    Returns:
        "customers": what each had last, what is recommended, and what is when items they had are left out;
        "first_list_ms": from the
        start of the process to the first list; "p50_ms" and "p99_ms" of one new event and one list of ten;
        "training_libraries": names of those that are loaded, which is none.

    Raises:
        BundleError: The bundle cannot be used.
    """
    from hushrec import Recommender

    from hushrec_cli.shown import item_row, recommendation_row

    shown, first = [], None
    for customer in customers:
        with Recommender.open(bundle) as shop:
            for item in customer["history"]:
                shop.observe(item)
            lists = [shop.recommend(_SHOWN)]
            first = time.time() if first is None else first
            lists.append(shop.recommend(_SHOWN_NEW, exclude_seen=True))
            rows = [
                [{**recommendation_row(shop, each), "came_next": each.item in customer["next"]} for each in found]
                for found in lists
            ]
            shown.append(
                {
                    "history": [item_row(shop, item) for item in _latest(customer["history"])],
                    "events": len(customer["history"]),
                    "recommended": rows[0],
                    "recommended_new": rows[1],
                    "next": len(customer["next"]),
                }
            )
    milliseconds = _latencies(bundle, [item for customer in customers for item in customer["history"]])
    return {
        "customers": shown,
        "first_list_ms": ((first or time.time()) - started) * 1e3,
        "p50_ms": milliseconds[len(milliseconds) // 2],
        "p99_ms": milliseconds[len(milliseconds) * 99 // 100],
        "calls": len(milliseconds),
        "training_libraries": [name for name in TRAINING_LIBRARIES if name in sys.modules],
    }


def _latest(history: list[str]) -> list[str]:
    """The last few different items, the newest first."""
    return list(dict.fromkeys(reversed(history)))[:_SHOWN_HISTORY]


def _latencies(bundle: Path, items: list[str]) -> list[float]:
    """Milliseconds of one new event and one list, sorted; the history grows with every call."""
    from hushrec import Recommender

    taken = []
    with Recommender.open(bundle) as shop:
        shop.recommend(_SHOWN)
        for item in islice(cycle(items), _CALLS):
            began = time.perf_counter()
            shop.observe(item)
            shop.recommend(_SHOWN)
            taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken)


if __name__ == "__main__":
    _bundle, _customers, _started = sys.argv[1:]
    _chosen = json.loads(Path(_customers).read_text(encoding="utf-8"))
    print(json.dumps(device_report(Path(_bundle), _chosen, float(_started))))
