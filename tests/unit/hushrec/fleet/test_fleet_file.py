"""An app trusts exactly what its fleet file says, and a file that is not as it must be says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hushrec.fleet.fleet_file import MAX_FLEET_FILE_BYTES, FleetFile
from hushrec_privacy.errors import ConfigError

FIELDS: dict[str, Any] = {
    "server": "shop-1",
    "plan_key": "ab" * 32,
    "authority": "https://login.shop.example",
    "root": '{"signed":{"_type":"root"}}',
}
GOOD = FleetFile(**FIELDS)


def test_a_fleet_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(GOOD.encode())
    assert FleetFile.read(path) == GOOD
    assert GOOD.plan_public == bytes.fromhex("ab" * 32)


def test_its_bytes_are_the_documented_ones() -> None:
    assert GOOD.encode() == (
        b'{"authority":"https://login.shop.example","format":1,"kind":"hushrec-fleet","plan_key":"'
        + b"ab" * 32
        + b'","root":"{\\"signed\\":{\\"_type\\":\\"root\\"}}","server":"shop-1"}'
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": ""},
        {"server": "shöp"},
        {"server": "a\nb"},
        {"server": "s" * 64},
        {"server": "A B"},
        {"server": "shop\n"},
        {"server": 7},
        {"plan_key": "ab" * 31},
        {"plan_key": "AB" * 32},
        {"plan_key": "ab" * 32 + "\n"},
        {"authority": "http://login.shop.example"},
        {"authority": "ftp://login.shop.example"},
        {"authority": "login.shop.example"},
        {"authority": "https://user@login.shop.example"},
        {"authority": "https://login.shop.example/?a=1"},
        {"authority": "https://login.shop.example:port"},
        {"root": ""},
        {"root": "{}"},
    ],
)
def test_a_field_that_nobody_could_have_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fleet file"):
        FleetFile(**FIELDS | wrong)
    with pytest.raises(ConfigError):
        FleetFile.decode(_encoded(FIELDS | wrong))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "update hushrec"),
        ({"format": True}, "update hushrec"),
        ({"kind": "hushrec-plan"}, "no fleet file"),
        ({"more": "x"}, "more"),
    ],
)
def test_another_format_kind_or_field_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FleetFile.decode(_encoded(FIELDS | changed))


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="root"):
        FleetFile.decode(_encoded({name: value for name, value in FIELDS.items() if name != "root"}))


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_truncated_file_is_refused(cut: int) -> None:
    with pytest.raises(ConfigError):
        FleetFile.decode(GOOD.encode()[:cut])


@pytest.mark.parametrize("data", [b" " + GOOD.encode(), GOOD.encode() + b"\n", b"[]", b"\xff", b"null", b"{}"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        FleetFile.decode(data)


def test_a_file_that_is_too_long_is_neither_read_nor_written() -> None:
    with pytest.raises(ConfigError, match="at most"):
        FleetFile.decode(b"x" * (MAX_FLEET_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="at most"):
        FleetFile(**FIELDS | {"root": '{"signed":' + "1" * MAX_FLEET_FILE_BYTES}).encode()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.json"):
        FleetFile.read(tmp_path / "fleet.json")
    (tmp_path / "fleet.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"fleet\.json: the fleet file is not canonical"):
        FleetFile.read(tmp_path / "fleet.json")


def _encoded(fields: dict[str, Any]) -> bytes:
    whole = {"format": 1, "kind": "hushrec-fleet"} | fields
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
