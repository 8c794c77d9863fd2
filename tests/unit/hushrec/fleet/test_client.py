"""Devices of a whole fleet: they learn together, and each keeps to its consent, its conditions and its limits."""

from pathlib import Path

import numpy as np
import pytest

from tests.whole_fleet import TestClient, WholeFleet


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    return WholeFleet(tmp_path / "fleet")


def devices_of(fleet: WholeFleet, count: int = 6) -> list[TestClient]:
    return [fleet.device(number) for number in range(count)]


def test_a_round_sums_exactly_what_its_devices_made(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) == 2, seconds=1_300)
    for round_number in (1, 2):
        total, survivors = fleet.sum_of(round_number)
        assert survivors == 6
        np.testing.assert_array_equal(total, sum(device.given.made[round_number] for device in devices))
    for device in devices:
        assert device.status().rounds == 2
        device.close()
