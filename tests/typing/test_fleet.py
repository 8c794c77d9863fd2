"""The fleet's public surface has the types that an app's own checker will see; mypy reads this file, pytest runs it."""

from pathlib import Path
from typing import assert_type

from hushrec import Recommender
from hushrec.fleet import Conditions, FleetClient, FleetFile, FleetSettings, FleetStatus, Refusal, Require
from hushrec_privacy.plans.limits import DeviceLimits

from tests.tiny_bundle import tiny_bundle


def test_the_types_of_the_fleet_s_surface(tmp_path: Path) -> None:
    trust = FleetFile("shop", "ab" * 32, "https://login.shop.example", '{"signed":{}}')
    settings = FleetSettings(trust, tmp_path / "fleet", bytes(32), limits=DeviceLimits(), require=Require(idle=False))

    def conditions() -> Conditions:
        return Conditions(idle=True, charging=True, unmetered=True)

    def token(plan_id: str) -> str:
        return plan_id

    with (
        Recommender.open(tiny_bundle(tmp_path)) as shopper,
        FleetClient("https://learn.shop.example", shopper, settings, conditions=conditions, token=token) as fleet,
    ):
        assert_type(fleet, FleetClient)
        assert_type(fleet.consent, bool)
        assert_type(fleet.step(), float)
        assert_type(fleet.status(), FleetStatus)
        assert_type(fleet.status().refusal, Refusal | None)
        assert_type(fleet.status().rho_left, str | None)
        assert_type(fleet.receipt(), str)
        assert_type(fleet.allow_direct("user-vector", False), None)
        assert_type(fleet.start(), None)
        assert_type(fleet.stop(), bool)
        assert_type(fleet.leave(), str)
    assert_type(trust.encode(), bytes)
    assert_type(FleetFile.decode(trust.encode()), FleetFile)
