"""What devices send for each purpose of a plan: an update, counts, features, and what goes by itself."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hushrec.recommender import Recommender
from hushrec_privacy.encoding import decode_sum, split_segments, to_lattice
from hushrec_privacy.envelope import EnvelopeKey, KeySet, ServerKey
from hushrec_privacy.errors import FleetError

from tests.fleet_plans import COUNTS, FEATURES
from tests.whole_fleet import ROUND_S, START, TestClient, WholeFleet, devices_of, made


def shoppers(fleet: WholeFleet) -> list[TestClient]:
    """Devices of six shoppers who looked at things."""
    devices = []
    for number in range(6):
        shopper = Recommender.open(fleet.bundle.root)
        for item in range(number, 30):
            shopper.observe(f"item-{item + 1}", at=datetime.fromtimestamp(START - 60, UTC))
        devices.append(fleet.device(number, shopper))
    return devices


def test_what_shoppers_did_is_trained_on_clipped_and_summed(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, parameters=2048)
    devices = shoppers(fleet)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    (outcome,) = fleet.sums.outcomes
    np.testing.assert_array_equal(outcome.sum, made(devices, 1))
    for device in devices:
        vector = device.given.made[1]
        assert np.any(vector)
        assert int(np.sum(vector**2)) <= fleet.plan.rounded_norm_squared


def test_a_plan_for_another_model_is_not_joined(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, parameters=2047)
    device = fleet.device(0)
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "parts"  # type: ignore[union-attr]


def test_items_guesses_and_counters_of_the_app_are_counted_in_a_sum(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=COUNTS)
    devices = shoppers(fleet)
    for device in devices:
        device.step()
        assert device.send_features("visits", np.array([3.0])) == "aggregate"
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    (outcome,) = fleet.sums.outcomes
    np.testing.assert_array_equal(outcome.sum, made(devices, 1))
    mean = split_segments(fleet.plan, decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)))
    assert mean["visits"] == pytest.approx([3.0], abs=0.05)
    looked = mean["trending"]  # item 1 by one shopper, item 6 by all, each shopper's 25 to 30 items cut to a norm of 3
    assert looked[:6] == pytest.approx(looked[5] * np.arange(1, 7) / 6, abs=0.05)
    assert np.abs(looked[30:]).max() < 0.05 < looked[5] / 2
    assert mean["evaluation"][2] == pytest.approx(1.0, abs=0.05)


def test_a_round_of_features_is_joined_only_for_a_vector_that_waits(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    devices = devices_of(fleet)
    with pytest.raises(FleetError, match="not known yet"):
        devices[0].send_features("interests", np.ones(16))
    fleet.play(*devices, seconds=ROUND_S)
    assert {path for device in devices for _, path, _ in device.sent} == {"/v1/fleet"}
    for device in devices:
        device.send_features("interests", np.ones(16))
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=2 * ROUND_S)
    (outcome,) = fleet.sums.outcomes
    (number,) = devices[0].given.made
    np.testing.assert_array_equal(outcome.sum, made(devices, number))
    checked_in = len([path for _, path, _ in devices[0].sent if "check-in" in path])
    fleet.play(*devices, seconds=2 * ROUND_S)
    assert len([path for _, path, _ in devices[0].sent if "check-in" in path]) == checked_in


def test_a_vector_that_the_app_gives_while_a_round_is_running_goes_into_the_next_one(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    devices = devices_of(fleet)
    for device in devices:
        device.step()
        device.send_features("interests", np.full(16, 0.25))

        def newer(method: str, path: str, device: TestClient = device) -> None:
            if method == "GET" and path.endswith("/1/share"):  # the vector of round 1 is made, and not sent yet
                device.send_features("interests", np.full(16, -0.125))

        device.connections["https://learn.shop.example"].before = newer
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) == 2, seconds=3 * ROUND_S)
    means = [
        split_segments(fleet.plan, decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)))["interests"].mean()
        for outcome in fleet.sums.outcomes
    ]
    assert means == pytest.approx([0.25, -0.125], abs=0.02)
    assert not any(device._features.waiting(fleet.plan) for device in devices)


def a_device_with_a_direct_payload(fleet: WholeFleet) -> TestClient:
    device = fleet.device(0)
    device.step()
    device.allow_direct("user-vector", True)
    device.send_features("user-vector", np.ones(8))
    return device


def spent(device: TestClient) -> int:
    """Participations and releases on a device's record."""
    return sum(plan.rounds for plan in device._store.record().totals().plans.values())


def test_a_direct_payload_that_a_halted_plan_refuses_arrives_once_the_plan_goes_on(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    device = a_device_with_a_direct_payload(fleet)
    fleet.service.halt(fleet.plan.plan_id)
    fleet.play(device, seconds=2 * ROUND_S)
    assert device.status().refusal.reason == "plan-halted"  # type: ignore[union-attr]
    assert not fleet.service.features(fleet.plan.plan_id, "user-vector")
    fleet.service.resume(fleet.plan.plan_id)
    fleet.play(device, seconds=3 * ROUND_S)
    assert len(fleet.service.features(fleet.plan.plan_id, "user-vector")) == 1
    assert spent(device) == 1


def test_a_direct_payload_that_was_sealed_to_old_keys_is_sealed_anew_once_the_fleet_was_looked_at(
    tmp_path: Path,
) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    device = a_device_with_a_direct_payload(fleet)
    fleet.envelope_key = EnvelopeKey(b"n" * 32)
    fleet.key_set = KeySet(4, "shop", (ServerKey(fleet.envelope_key.public(), START - 10**6, START + 10**7),))
    fleet.open()
    fleet.play(device, seconds=200)
    sent = [path for _, path, _ in device.sent]
    assert sent.count("/v1/fleet") == 2
    assert sum("features/user-vector" in path for path in sent) >= 2
    assert len(fleet.service.features(fleet.plan.plan_id, "user-vector")) == 1
    assert spent(device) == 1


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("plan-ended", False), ("unknown-plan", False), ("unknown-feature", False), ("bad-message", False)]
    + [(reason, True) for reason in ("envelope", "keys", "http-502", "not-found", "refused")],
)
def test_a_direct_payload_is_dropped_only_when_it_is_refused_for_good(tmp_path: Path, reason: str, kept: bool) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    device = a_device_with_a_direct_payload(fleet)
    tried: list[str] = []

    def refused(_method: str, path: str) -> None:
        if "features" in path:
            tried.append(path)
            raise FleetError("refused", reason=reason)

    device.connections["https://learn.shop.example"].before = refused
    fleet.play(device, until=lambda: bool(tried), seconds=200)
    assert (device._features.next_plan() is not None) is kept
    fleet.play(device, seconds=ROUND_S)
    assert (len(tried) > 1) is kept
    assert spent(device) == 1


def test_a_direct_payload_goes_by_itself_once_and_its_epsilon_is_on_the_receipt(tmp_path: Path) -> None:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=FEATURES)
    device = fleet.device(0)
    device.step()
    with pytest.raises(FleetError, match="did not agree"):
        device.send_features("user-vector", np.ones(8))
    device.allow_direct("user-vector", True)
    assert device.send_features("user-vector", np.ones(8)) == "direct"
    failed: list[str] = []

    def away(_method: str, path: str) -> None:
        if "features" in path and len(failed) < 2:
            failed.append(path)
            raise FleetError("away", reason="unreachable", retry_after_s=0)

    device.connections["https://learn.shop.example"].before = away
    fleet.play(device, seconds=200)
    (kept,) = fleet.service.features(fleet.plan.plan_id, "user-vector")
    assert np.frombuffer(kept, "<f4").shape == (8,)
    assert len(failed) == 2
    assert sum("features/user-vector" in path for _, path, _ in device.sent) == 1
    assert spent(device) == 1, "tried three times, spent once"
    page = device.receipt()
    assert "the server sees them" in page
    assert "user-vector" in page
