"""The demo's second half by itself: real processes over loopback, on a bundle that nobody had to train."""

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hushrec.recommender import Recommender
from hushrec_cli.demo_device import FEATURE
from hushrec_cli.demo_fleet import DEVICES, ROUNDS, _vectors, run_fleet
from hushrec_privacy.encoding import decode_sum, split_segments, to_lattice
from hushrec_privacy.plans.schema import Vector
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.demo_fleet import check_whole_fleet
from tests.tiny_bundle import ITEMS, write_tiny_bundle
from tests.whole_fleet import START, WholeFleet


@pytest.mark.slow
def test_the_demos_fleet_trains_counts_sends_both_payloads_and_takes_the_new_release(tmp_path: Path) -> None:
    bundle, told = write_tiny_bundle(tmp_path / "shop.hush"), list[str]()
    histories = [list(ITEMS[number : number + 12]) for number in range(DEVICES)]
    fleet = run_fleet(bundle, histories, tmp_path / "fleet", told.append)
    check_whole_fleet(fleet)
    assert len(told) == 3
    releases = ReleaseRepository(tmp_path / "fleet" / "server" / "releases", ReleaseKeys(), clock=time.time).list()
    assert [(release.model_version, release.demo) for release in releases] == [
        (version, True) for version in range(1, ROUNDS + 2)
    ]
    assert all(release.ledger_head for release in releases[1:])


@pytest.mark.parametrize("which", [0, 1], ids=["counts", "features"])
def test_devices_fill_every_segment_of_the_demos_plans(which: int, tmp_path: Path) -> None:
    vector: Vector = _vectors(len(ITEMS))[which]
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=vector)
    devices = []
    for number in range(6):
        shopper = Recommender.open(fleet.bundle.root)
        for item in ITEMS[:12]:
            shopper.observe(item, at=datetime.fromtimestamp(START - 60, UTC))
        devices.append(fleet.device(number, shopper))
        devices[-1].step()
        if vector.purpose == "features":
            devices[-1].send_features(FEATURE, np.full(vector.schema[0].length, 0.25))
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=1_300)
    (outcome,) = fleet.sums.outcomes
    mean = split_segments(fleet.plan, decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)))
    assert set(mean) == {segment.name for segment in vector.schema}
    assert all(np.abs(values).max() > 0.1 for values in mean.values())
