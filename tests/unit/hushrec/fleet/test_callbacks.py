"""What an app gives a fleet client is checked, and what goes wrong in it is told without anything of its own."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hushrec.fleet.callbacks import CallbackError
from hushrec.fleet.client import FleetClient
from hushrec.fleet.settings import FleetSettings
from hushrec.profile import Profile
from hushrec_privacy.errors import ConfigError

from tests.whole_fleet import GOOD, ROUND_S, WholeFleet


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    return WholeFleet(tmp_path / "fleet")


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"conditions": lambda: True}, "conditions, which the app gave, must give a Conditions, not a bool"),
        ({"token": lambda _: None}, "token, which the app gave, must give a str, not a NoneType"),
        ({"token": lambda plan_id: {}[plan_id]}, "token, which the app gave, raised KeyError"),
    ],
)
def test_what_the_app_s_functions_do_wrong_is_told_without_its_text(
    fleet: WholeFleet, named: dict[str, Any], told: str
) -> None:
    with closing(fleet.device(0, **named)) as device:
        with pytest.raises(CallbackError, match=told):
            fleet.play(device, seconds=ROUND_S)
        refusal = device.status().refusal
        assert refusal is not None
        assert refusal == ("failed", f"{told}; mend it, and start again")
        assert not [path for _, path, _ in device.sent if path.endswith("/certificate")]


def test_a_fault_of_hushrec_is_told_by_its_type_alone(fleet: WholeFleet) -> None:
    def fault() -> float:
        raise ValueError("what is private")

    with closing(fleet.device(0)) as device:
        device._participant.step = fault  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="private"):
            device.step()
        assert device.status().refusal == ("failed", "ValueError in hushrec; please report it")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"url": None}, "url is a NoneType; pass the address"),
        ({"shopper": "ann"}, "shopper is a str; pass a Recommender or a Profile"),
        ({"settings": None}, r"settings is a NoneType; pass FleetSettings\(trust=..., folder=...\)"),
        ({"conditions": True}, "conditions is a bool, which cannot be called; pass a function"),
        ({"token": "abc"}, "token is a str, which cannot be called; pass a function"),
    ],
)
def test_an_argument_of_another_kind_is_named_before_anything_is_opened(
    fleet: WholeFleet, wrong: dict[str, Any], told: str
) -> None:
    settings = FleetSettings(fleet.trust, fleet.folder / "device-x", vault_key=bytes(32))
    good: dict[str, Any] = {"url": "https://learn.shop.example", "shopper": Profile(), "settings": settings}
    with pytest.raises(ConfigError, match=told):
        FleetClient(**good | {"conditions": lambda: GOOD, "token": str} | wrong)
    assert not settings.folder.exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"trust": "fleet.json"}, r"trust is a str; pass FleetFile.read\(Path\(...\)\)"),
        ({"folder": None}, "folder is a NoneType; pass a Path"),
        ({"vault_key": b"short"}, "32 bytes"),
        ({"limits": 1}, "limits is a int; pass a DeviceLimits"),
        ({"require": {}}, "require is a dict; pass a Require"),
        ({"clock": 0}, "clock is a int, which cannot be called"),
    ],
)
def test_a_setting_of_another_kind_is_named(fleet: WholeFleet, wrong: dict[str, Any], told: str) -> None:
    good: dict[str, Any] = {"trust": fleet.trust, "folder": fleet.folder}
    with pytest.raises(ConfigError, match=told):
        FleetSettings(**good | wrong)
