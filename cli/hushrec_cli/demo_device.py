"""A device process of the demo's fleet: one shopper's app, which trains, counts and sends with the real client.

`python -m hushrec_cli.demo_device TASK.json` reads what the demo wrote for it and prints one JSON object. It accepts
plans marked as demonstrations, which no command, configuration or environment variable can make a device do.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hushrec import Recommender
    from hushrec.fleet import FleetClient, FleetSettings

__all__ = ["FEATURE", "FEATURE_LENGTH", "device_task"]

FEATURE, FEATURE_LENGTH = "interests", 8
"""The feature payload of the demo: shares of eight price bands in what the shopper looked at."""

_SLEEP_S = 0.25
_SHOWN = 5


def device_task(task: dict[str, Any]) -> dict[str, Any]:
    """Take part in every round that is asked for, then take the newest release.

    Args:
        task: "url", "fleet", "bundle", "folder", "vault_key" (hex), "history" (item ids, oldest first), "tokens" (by
            plan), "rounds" (to take part in), "release" (to wait for) and "until" (seconds since 1970: give up then).

    Returns:
        "rounds" taken part in, "version" of the model before and after, what is recommended before and after, the
        "receipt", and the "refusal" that was met last, if any.
    """
    from hushrec import Recommender
    from hushrec.fleet import FleetFile, FleetSettings
    from hushrec_privacy.plans.limits import UnsafeDemoLimits

    folder = Path(task["folder"])
    settings = FleetSettings(
        trust=FleetFile.read(Path(task["fleet"])),
        folder=folder / "fleet",
        vault_key=bytes.fromhex(task["vault_key"]),
        limits=UnsafeDemoLimits(lifetime_rho=1e6),
    )
    with Recommender.open(task["bundle"], profile=folder / "profile.db") as shop:
        now = datetime.now(UTC)
        for place, item in enumerate(task["history"]):
            shop.observe(item, at=now - timedelta(hours=len(task["history"]) - place))
        before = [each.item for each in shop.recommend(_SHOWN)]
        rounds, refusal, receipt = _take_part(task, shop, settings)
        version = shop.bundle.manifest.model_version
    newest = _newest_release(task, settings)
    with Recommender.open(newest, profile=folder / "profile.db") as shop:
        after = [each.item for each in shop.recommend(_SHOWN)]
        return {
            "rounds": rounds,
            "version": [version, shop.bundle.manifest.model_version],
            "recommended": [before, after],
            "receipt": receipt,
            "refusal": refusal,
        }


def _take_part(task: dict[str, Any], shop: "Recommender", settings: "FleetSettings") -> tuple[int, str, str]:
    from hushrec.fleet import Conditions, FleetClient

    with FleetClient(
        task["url"],
        shop,
        settings,
        conditions=lambda: Conditions(idle=True, charging=True, unmetered=True),
        token=lambda plan: str(task["tokens"][plan]),
        consent=True,
    ) as client:
        client.allow_direct(f"{FEATURE}-direct", True)
        given = False
        while time.time() < task["until"] and client.status().rounds < task["rounds"]:
            wait = client.step()
            given = given or _give(client, _price_bands(shop, task["history"]))
            time.sleep(min(wait, _SLEEP_S))
        status = client.status()
        return status.rounds, status.refusal.text if status.refusal else "", client.receipt()


def _give(client: "FleetClient", bands: list[float]) -> bool:
    """Give the feature both ways, once the plans are known."""
    import numpy as np
    from hushrec_privacy.errors import ConfigError, FleetError

    try:
        for name in (FEATURE, f"{FEATURE}-direct"):
            client.send_features(name, np.array(bands))
    except (FleetError, ConfigError):
        return False
    return True


def _price_bands(shop: "Recommender", history: list[str]) -> list[float]:
    """Share of the shopper's items in each of eight price bands, a factor of two wide each."""
    bands = [0.0] * FEATURE_LENGTH
    known = [found for item in history if (found := shop.catalog.get(item)) is not None]
    prices = [item.price for item in known if item.price is not None]
    for price in prices:
        bands[min(FEATURE_LENGTH - 1, max(0, int(price).bit_length()))] += 1.0 / len(prices)
    return bands


def _newest_release(task: dict[str, Any], settings: "FleetSettings") -> Path:
    """What the app would open at its next start."""
    from hushrec.updates import Updater

    updater = Updater(
        f"{task['url']}/releases", settings.folder / "releases", settings.trust.root.encode(), limits=settings.limits
    )
    while True:
        updater.fetch(lambda: False)
        release = updater.release()
        if (release is not None and release.model_version >= task["release"]) or time.time() >= task["until"]:
            return updater.current()
        time.sleep(_SLEEP_S)


if __name__ == "__main__":
    print(json.dumps(device_task(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
