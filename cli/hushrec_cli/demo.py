"""The command `demo`: a real shop's log from training to a device's recommendations and a fleet that learns, in one go.

Everything up to the bundle runs in this process; the bundle is then opened by a second one, `hushrec_cli.device`, which
has no training library. The fleet is `demo_fleet`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from hushrec_cli import demo_text
from hushrec_cli.demo_check import check_fleet
from hushrec_cli.demo_fleet import DEVICES, run_fleet
from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, say, say_heading
from hushrec_cli.progress import ProgressLine
from hushrec_cli.quantize import write_page

__all__ = ["Shop", "demo"]

_SHOWN_CUSTOMERS = 3
_SHORT_HISTORY, _LONG_HISTORY = 3, 40


class Shop(StrEnum):
    """The logs that ship with hushrec; see `hushrec_model.boxed`."""

    ONLINE_RETAIL = "online_retail"
    ESHOP = "eshop_clothing_2008"


class _Facts(NamedTuple):
    about: str
    protocol: str
    test_from: datetime | None = None
    attributes: tuple[str, ...] = ()


_FACTS = {
    Shop.ONLINE_RETAIL: _Facts(
        "a year of a British online gift shop, visit by visit (Chen, D. 2015, UCI Online Retail, CC BY 4.0).", "baskets"
    ),
    Shop.ESHOP: _Facts(
        "clicks in an online shop for clothing, summer 2008 (UCI Clickstream data for online shopping, CC BY 4.0).",
        "sessions",
        datetime(2008, 8, 1, tzinfo=UTC),
        ("colour", "location", "photo", "page"),
    ),
}


def demo(
    data: Annotated[Shop, typer.Option(help="Which of the logs that ship with hushrec.")] = Shop.ONLINE_RETAIL,
    out: Annotated[Path, typer.Option(help="Where the run and the bundle go.")] = Path("hushrec-demo"),
    as_json: Json = False,
) -> None:
    """Try everything on a real shop's log.

    Takes about ten minutes on two cores. Reads a log that ships with hushrec, trains, quantizes, packs a
    bundle, measures it beside simple baselines, and opens it in a second process without PyTorch, as a shopper's device
    would. Then a server and six device processes learn together on this machine, and a new release reaches them. Fails
    if no round is published, or if no release, feature or budget comes of it.

    Example: hushrec demo --data eshop_clothing_2008
    """
    if not as_json:
        print_data(demo_text.introduction(_FACTS[data].about))
    try:
        found = _everything(data, out)
    except KeyboardInterrupt:
        say()
        say("stopped; the same command goes on with the training that was done, and begins the fleet anew")
        raise
    if as_json:
        print_json(found)
    else:
        print_data(demo_text.results(found))
    check_fleet(found["fleet"])


def _everything(shop: Shop, out: Path) -> dict[str, Any]:
    """From the log to the fleet's last round; gives plain results."""
    run_folder, bundle = out / shop.value, out / f"{shop.value}.hush"
    found = _make(shop, run_folder, bundle)
    say_heading("Opening the bundle in a second process, without PyTorch")
    customers = _customers(run_folder)
    found["device"] = _on_a_device(bundle, customers[:_SHOWN_CUSTOMERS], out)
    say_heading("Learning together: a server, its authority and device processes on this machine (DEMO)")
    found["fleet"] = _fleet(bundle, [customer["history"] for customer in customers], out / "fleet")
    return found


def _make(shop: Shop, run_folder: Path, bundle: Path) -> dict[str, Any]:
    """Train, quantize and evaluate; gives plain results."""
    from hushrec_model.boxed import boxed_events, boxed_items
    from hushrec_model.pipeline import TrainOptions, train
    from hushrec_quantize.evaluation import evaluate_any
    from hushrec_quantize.pipeline import QuantizeOptions, quantize

    began = time.monotonic()
    events, items = boxed_events(shop.value), boxed_items(shop.value)
    _, protocol, test_from, attributes = _FACTS[shop]
    options = TrainOptions(protocol=protocol, test_from=test_from, attributes=attributes)
    with ProgressLine() as progress:

        def in_short(stage: str, done: float, total: float, note: str = "") -> None:
            progress(stage, done, total, note.replace(f"{events.parent}{os.sep}", ""))  # nobody chose that folder

        say_heading("Training on the shop's log")
        trained = train(events, items, run_folder, options, in_short)
        progress.close()
        say_heading("Quantizing to int8")
        quantized = quantize(run_folder, bundle, QuantizeOptions(), progress)
        progress.close()
        progress.remarks = False  # they are those of training
        say_heading("Measuring the bundle and simple baselines on events that training never saw")
        quality = evaluate_any(bundle, events, protocol=protocol, test_from=test_from, progress=progress)
    return {
        "data": shop.value,
        "bundle": str(bundle),
        "bundle_bytes": sum(file.stat().st_size for file in bundle.iterdir()),
        "page": str(write_page(quantized, bundle)),
        "minutes": (time.monotonic() - began) / 60,
        "train": trained.to_dict(),
        "quantize": quantized.to_dict(),
        "quality": quality,
    }


def _customers(run_folder: Path) -> list[dict[str, Any]]:
    """The first customers of the test whose history is neither very short nor very long; success plays no part."""
    from hushrec_model.run_folder import load_run

    split = load_run(run_folder).split
    test, chosen = split.test, {}
    for query, (start, stop) in enumerate(zip(test.start.tolist(), test.stop.tolist(), strict=True)):
        if _SHORT_HISTORY <= stop - start <= _LONG_HISTORY and start not in chosen:  # several ask about one customer
            targets = test.target[test.target_offsets[query] : test.target_offsets[query + 1]]
            history = test.events.item[start:stop]
            chosen[start] = {"history": _ids(split.items, history), "next": _ids(split.items, targets)}
        if len(chosen) == DEVICES:
            break
    return list(chosen.values())


def _ids(items: list[str], indexes: Any) -> list[str]:
    return [items[index - 1] for index in indexes.tolist() if index > 0]


def _on_a_device(bundle: Path, customers: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Run `hushrec_cli.device` and read what it prints."""
    chosen = out / "customers.json"
    chosen.write_text(json.dumps(customers), encoding="utf-8")
    command = [sys.executable, "-m", "hushrec_cli.device", str(bundle), str(chosen), repr(time.time())]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8").stdout
    report: dict[str, Any] = json.loads(printed)
    return report


def _fleet(bundle: Path, histories: list[list[str]], folder: Path) -> dict[str, Any]:
    if folder.exists():
        shutil.rmtree(folder)  # of an earlier demo: keys and budgets are never gone on with
    return run_fleet(bundle, histories, folder, say)
