"""Devices of a whole fleet: they learn together, and each keeps to its consent, its conditions and its limits."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.fleet.client import LEFT
from hushrec.fleet.conditions import Conditions
from hushrec.fleet.joining import Accepted, accepted_plan
from hushrec.fleet.settings import FleetSettings
from hushrec.profile import Profile
from hushrec.recommender import Recommender
from hushrec_privacy.envelope import KeySet
from hushrec_privacy.errors import ConfigError, FleetError, ReleaseError, VaultError
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.service import FleetService

from tests.tiny_bundle import write_tiny_bundle
from tests.whole_fleet import GOOD, ROUND_S, START, TestClient, WholeFleet, devices_of, made, nothing

BUSY = Conditions(idle=False, charging=True, unmetered=True)
PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    return WholeFleet(tmp_path / "fleet")


def rounds_of(device: TestClient) -> int:
    """Participations on the device's own record."""
    return sum(plan.rounds for plan in device._store.record().totals().plans.values())


def test_a_round_sums_exactly_what_its_devices_made(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) == 2, seconds=1_300)
    assert len(fleet.sums.outcomes) == 2
    for round_number, outcome in enumerate(fleet.sums.outcomes, start=1):
        assert len(outcome.survivors) == 6
        np.testing.assert_array_equal(outcome.sum, made(devices, round_number))
    for device in devices:
        status = device.status()
        assert (status.state, status.phase, status.rounds, status.refusal) == ("waiting", 0, 2, None)
        assert rounds_of(device) == 2
        assert "| 1, 2 |" in device.receipt()
        assert "DEMO" in device.receipt()


def test_every_message_of_a_phase_has_one_length_whatever_is_in_it(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    for phase in PHASES:
        lengths = {
            length
            for device in devices
            for method, path, length in device.sent
            if method == "POST" and path.endswith(f"/{phase}")
        }
        assert len(lengths) == 1, phase


@pytest.mark.slow
def test_a_device_that_is_killed_in_any_phase_never_takes_part_twice_and_the_sum_is_that_of_the_others(
    fleet: WholeFleet,
) -> None:
    devices = devices_of(fleet)
    for round_number, phase in enumerate(PHASES, start=1):
        victim = devices[round_number % 6]

        def killed(method: str, path: str, phase: str = phase) -> None:
            if method == "POST" and path.endswith(f"/{phase}"):
                raise KeyboardInterrupt

        victim.connections["https://learn.shop.example"].before = killed
        fleet.clock.now = max(fleet.clock.now, START + (round_number - 1) * ROUND_S)
        alive = [device for device in devices if device is not victim]
        with pytest.raises(KeyboardInterrupt):
            fleet.play(*devices, seconds=ROUND_S)
        victim._closing.close()  # what the death of a process does: the lock is let go
        again = fleet.device(victim.number)
        devices[victim.number] = again
        fleet.play(*devices, seconds=START + round_number * ROUND_S - fleet.clock.now - 1)
        outcome = fleet.sums.outcomes[-1]
        assert len(fleet.sums.outcomes) == round_number
        counted = [*alive]
        if PHASES.index(phase) > PHASES.index("mask"):
            counted.append(victim)
        elif phase == "advertise":
            counted.append(again)  # nobody had heard of it: it comes again, with new keys
        np.testing.assert_array_equal(outcome.sum, made(counted, round_number))
        spent = again._store.record().totals().plans[fleet.plan.plan_id]
        assert (spent.last == round_number) == (phase not in ("choose", "share"))
        masked = [sent for sent in (*victim.sent, *again.sent) if sent[1].endswith(f"/rounds/{round_number}/mask")]
        assert sum(method == "POST" for method, _, _ in masked) == (again in counted) + (victim in counted)


@pytest.mark.slow
def test_consent_that_is_withdrawn_in_any_phase_takes_effect_at_the_next_message(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    for round_number, phase in enumerate(PHASES, start=1):
        device = devices[round_number % 6]
        for each in devices:
            each.consent = True

        def withdrawn(method: str, path: str, phase: str = phase, device: TestClient = device) -> None:
            if method == "POST" and path.endswith(f"/{phase}"):
                device.consent = False

        device.connections["https://learn.shop.example"].before = withdrawn
        fleet.clock.now = max(fleet.clock.now, START + (round_number - 1) * ROUND_S)
        fleet.play(*devices, until=lambda device=device: not device.consent)  # type: ignore[misc]
        assert device.sent[-1][1].endswith(f"/{phase}"), "the message on its way when it was withdrawn"
        before = len(device.sent)
        assert device.status().state == "off"
        fleet.play(*devices, seconds=START + round_number * ROUND_S - fleet.clock.now - 1)
        assert len(device.sent) == before
        assert device.status().refusal is not None
        device.connections["https://learn.shop.example"].before = nothing


def test_nothing_is_sent_while_a_needed_condition_does_not_hold(fleet: WholeFleet) -> None:
    device = fleet.device(0)
    device.now = BUSY
    fleet.play(device, seconds=3 * ROUND_S)
    assert not device.sent
    refusal = device.status().refusal
    assert refusal is not None
    assert refusal.reason == "conditions"


def test_conditions_that_end_in_training_end_the_round_within_a_batch(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    asked = []

    def conditions() -> Conditions:
        asked.append(len(devices[0].given.made))
        in_work = bool(devices[0]._participant.run) and devices[0]._participant.run.stage == "work"  # type: ignore[union-attr]
        return BUSY if in_work else GOOD

    devices[0].close()
    devices[0] = fleet.device(0, conditions=conditions)
    devices[0].given.batches = 10**9
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert not devices[0].given.made
    assert rounds_of(devices[0]) == 0
    np.testing.assert_array_equal(fleet.sums.outcomes[0].sum, made(devices[1:], 1))


def test_a_network_that_costs_holds_up_only_what_is_large(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    metered = Conditions(idle=True, charging=True, unmetered=False)

    def masked(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/mask"):
            devices[0].now = metered

    devices[0].connections["https://learn.shop.example"].before = masked
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert devices[0].status().rounds == 1
    assert devices[0].sent[-1][1].endswith("/reveal")
    before = len(devices[0].sent)
    fleet.play(devices[0], seconds=3 * ROUND_S)
    assert len(devices[0].sent) == before


def test_a_device_that_is_in_use_after_masking_waits_and_comes_back_while_the_round_lasts(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)

    def masked(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/mask"):
            devices[0].now = BUSY

    devices[0].connections["https://learn.shop.example"].before = masked
    fleet.play(*devices, until=lambda: devices[0].now == BUSY)
    fleet.play(*devices, seconds=20)
    assert devices[0].status().state == "round"
    devices[0].now = GOOD
    devices[0].connections["https://learn.shop.example"].before = nothing
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert devices[0].status().rounds == 1


def test_a_server_that_is_killed_and_comes_back_goes_on_with_the_round(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    for phase in (2, 4, 6):
        fleet.play(*devices, until=lambda phase=phase: devices[0].status().phase == phase)  # type: ignore[misc]
        fleet.service.database.close()
        fleet.open()
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    np.testing.assert_array_equal(fleet.sums.outcomes[0].sum, made(devices, 1))


def test_a_plan_that_the_shop_did_not_sign_and_keys_that_are_old_are_refused(fleet: WholeFleet) -> None:
    fleet.plan_key = PlanKey(b"q" * 32)  # the server's idea of the shop; devices keep the fleet file's
    fleet.service.database.close()
    device = fleet.device(0)
    (fleet.folder / "fleet.sqlite").unlink()
    fleet.open()
    fleet.play(device, seconds=100)
    assert device.status().refusal is not None
    assert device.status().refusal.reason == "keys"  # type: ignore[union-attr]
    assert {path for _, path, _ in device.sent} == {"/v1/fleet"}


def test_a_plan_that_is_offered_a_thousand_times_is_checked_once(
    fleet: WholeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, checked = fleet.service.info(), []
    monkeypatch.setattr(FleetService, "info", lambda _: replace(info, plans=info.plans * 1_000))

    def noted(data: bytes, *more: bytes, **named: Any) -> Accepted:
        checked.append(data)
        return accepted_plan(data, *more, **named)

    monkeypatch.setattr("hushrec.fleet.participant.accepted_plan", noted)
    fleet.device(0).step()
    assert checked == [fleet.plan.encode()]


def test_keys_that_are_older_than_those_seen_before_are_refused_even_by_a_new_process(fleet: WholeFleet) -> None:
    device = fleet.device(0)
    device.step()
    device.close()
    fleet.key_set = KeySet(2, "shop", fleet.key_set.keys)
    fleet.open()
    device = fleet.device(0)
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "keys"  # type: ignore[union-attr]
    assert {path for _, path, _ in device.sent} == {"/v1/fleet"}


def test_a_demonstration_is_no_plan_for_a_normal_device(fleet: WholeFleet) -> None:
    device = fleet.device(0, limits=DeviceLimits())
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "demo"  # type: ignore[union-attr]
    assert {path for _, path, _ in device.sent} == {"/v1/fleet"}


def test_a_round_that_starts_from_another_model_is_not_joined(fleet: WholeFleet) -> None:
    fleet.publisher.bundle = Bundle.open(write_tiny_bundle(fleet.folder / "other.hush", seed=8))
    device = fleet.device(0)
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "release"  # type: ignore[union-attr]
    assert not any("/advertise" in path for _, path, _ in device.sent)


class FakeUpdater:
    """Has no bundle until it is let."""

    def __init__(self, path: Path, failures: int) -> None:
        self.path, self.failures, self.tries, self.here = path, failures, 0, False

    def current(self) -> Path:
        if not self.here:
            raise ReleaseError("there is no release on this device yet")
        return self.path

    def fetch(self, stop: Callable[[], bool]) -> Path | None:
        self.tries += 1
        if stop():
            return None
        if self.tries <= self.failures:
            raise FleetError("the server cannot be reached", reason="unreachable", retry_after_s=0)
        self.here = True
        return self.path


def test_a_device_without_a_model_fetches_it_before_it_takes_part(
    fleet: WholeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater = FakeUpdater(fleet.bundle.root, failures=2)
    monkeypatch.setattr(TestClient, "_updater", lambda _: updater)
    device = fleet.device(0, Profile())
    assert device.bundle is None
    fleet.play(device, until=lambda: updater.tries == 2)
    assert {path for _, path, _ in device.sent} == {"/v1/fleet"}
    assert device.status().refusal.reason == "unreachable"  # type: ignore[union-attr]
    fleet.play(device, until=lambda: device.status().state == "round", seconds=200)
    assert device.bundle == fleet.bundle.root
    assert device.status().model_version == fleet.bundle.manifest.model_version
    assert updater.tries == 3


def test_a_download_stops_when_the_conditions_end(fleet: WholeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    updater = FakeUpdater(fleet.bundle.root, failures=0)
    monkeypatch.setattr(TestClient, "_updater", lambda _: updater)
    device = fleet.device(0, Profile())
    device.step()
    fetch = updater.fetch

    def interrupted(stop: Callable[[], bool]) -> Path | None:
        device.now = BUSY
        return fetch(stop)

    monkeypatch.setattr(updater, "fetch", interrupted)
    fleet.play(device, seconds=100)
    assert not updater.here
    assert updater.tries == 1


def test_a_plan_that_does_not_fit_the_model_is_not_even_enrolled_in(fleet: WholeFleet) -> None:
    device = fleet.device(0)
    device.given.fitting = False
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "parts"  # type: ignore[union-attr]
    assert {path for _, path, _ in device.sent} == {"/v1/fleet"}


def test_a_login_that_is_not_the_shop_s_gets_no_certificate(fleet: WholeFleet) -> None:
    device = fleet.device(0, token=lambda plan_id: "made up " + plan_id)
    fleet.play(device, seconds=100)
    assert device.status().refusal.reason == "enrolment"  # type: ignore[union-attr]


def test_a_device_that_leaves_forgets_its_keys_and_keeps_its_record(fleet: WholeFleet) -> None:
    devices = devices_of(fleet)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    device = devices[0]
    text, before = device.leave(), len(device.sent)
    assert text == LEFT
    assert not [name for name in device._store.vault().names() if name.startswith("plan/")]
    assert rounds_of(device) == 1
    fleet.play(device, seconds=3 * ROUND_S)
    assert len(device.sent) == before
    device.consent = True
    fleet.play(device, seconds=3 * ROUND_S)
    assert device.status().refusal.reason == "enrolment", "one certificate an account and plan"  # type: ignore[union-attr]


def test_one_folder_is_for_one_process_and_its_vault_for_one_key(fleet: WholeFleet) -> None:
    device = fleet.device(0)
    with pytest.raises(ConfigError, match="another client, of this process or another, takes part with this folder"):
        fleet.device(0)
    device.close()
    device.close()
    with pytest.raises(ConfigError, match="closed"):
        device.step()
    with pytest.raises(ConfigError, match="closed"):
        device.start()
    assert device.status().state == "closed"
    settings = FleetSettings(fleet.trust, fleet.folder / "device-0", vault_key=bytes(32), limits=fleet.limits)
    with pytest.raises(VaultError):
        TestClient(fleet, 0, Profile(), settings=settings)
    fleet.device(0).close()  # the lock of the failed try was let go


def test_a_thread_of_lowest_priority_takes_part_and_stops_when_told(fleet: WholeFleet) -> None:
    nice: list[int] = []
    device = fleet.device(0)
    step = device._participant.step

    def watched() -> float:
        if sys.platform == "linux":
            nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return step()

    device._participant.step = watched  # type: ignore[method-assign]
    device.start()
    device.start()
    until = time.monotonic() + 20
    while device.status().state != "round" and time.monotonic() < until:
        time.sleep(0.01)
    assert device.status().state == "round"
    assert device.stop()
    assert device.status().state == "waiting"
    assert "hushrec-fleet" not in {thread.name for thread in threading.enumerate()}
    assert set(nice) <= {19}
    if sys.platform == "linux":
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) != 19, "the app's own thread keeps its own"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_app_ends_the_thread_sends_nothing_and_shows(fleet: WholeFleet) -> None:
    def broken() -> Conditions:
        raise RuntimeError("the app's own")

    device = fleet.device(0, conditions=broken)
    device.start()
    until = time.monotonic() + 20
    while device.status().state != "failed" and time.monotonic() < until:
        time.sleep(0.01)
    assert device.status().state == "failed"
    assert device.status().refusal == (
        "failed",
        "conditions, which the app gave, raised RuntimeError; mend it, and start again",
    )
    assert not device.sent
    device.close()


def test_recommending_never_waits_for_a_step(fleet: WholeFleet) -> None:
    shopper = Recommender.open(fleet.bundle.root)
    device = fleet.device(0, shopper)
    inside, over = threading.Event(), threading.Event()

    def held_up(_method: str, _path: str) -> None:
        inside.set()
        over.wait(20)

    for connection in device.connections.values():
        connection.before = held_up
    device.start()
    assert inside.wait(20)
    shopper.observe("item-1")
    assert shopper.recommend(k=3)
    device.status()
    over.set()
    device.close()


def test_the_app_may_close_its_recommender_and_open_another_one(fleet: WholeFleet) -> None:
    path = fleet.folder / "shopper.profile"
    shopper = Recommender.open(fleet.bundle.root, profile=path)
    fleet.real = True
    device = fleet.device(0, shopper)
    assert device.bundle == fleet.bundle.root
    shopper.close()
    with Recommender.open(fleet.bundle.root, profile=path) as again:
        again.observe("item-1")
        again.observe("item-2")
        assert device._profile.counts() == {"item-1": 1, "item-2": 1}
        device.step()
    device.close()
