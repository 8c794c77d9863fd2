"""What a device keeps of a fleet stays its own, comes back, and never goes down."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec.fleet_secrets import FleetSecrets
from hushrec.vault import Vault
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import EnrolmentError

PLAN, OTHER_PLAN = "ab" * 32, "cd" * 32
AUTHORITY = AuthorityKey(bytes(32))


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    with Vault.open(tmp_path / "vault", bytes(32)) as opened:
        yield opened


def test_a_plan_has_one_identity_and_another_plan_another(vault: Vault, tmp_path: Path) -> None:
    public = FleetSecrets(vault).identity(PLAN).public()
    assert FleetSecrets(vault).identity(PLAN).public() == public
    assert FleetSecrets(vault).identity(OTHER_PLAN).public() != public
    with Vault.open(tmp_path / "vault", bytes(32)) as again:
        assert FleetSecrets(again).identity(PLAN).public() == public


def test_a_certificate_for_this_device_is_kept(vault: Vault) -> None:
    secrets = FleetSecrets(vault)
    assert secrets.certificate(PLAN) is None
    given = AUTHORITY.certify(PLAN, "ef" * 16, secrets.identity(PLAN).public())
    assert secrets.keep_certificate(PLAN, given, AUTHORITY.public()).pseudonym == "ef" * 16
    assert secrets.certificate(PLAN) == given
    assert secrets.certificate(OTHER_PLAN) is None


def test_a_certificate_for_another_device_plan_or_authority_is_not_kept(vault: Vault) -> None:
    secrets = FleetSecrets(vault)
    mine = secrets.identity(PLAN).public()
    for given in (
        AUTHORITY.certify(PLAN, "ef" * 16, Identity.create().public()),
        AUTHORITY.certify(OTHER_PLAN, "ef" * 16, mine),
        AuthorityKey(bytes([1] * 32)).certify(PLAN, "ef" * 16, mine),
        b"",
    ):
        with pytest.raises(EnrolmentError):
            secrets.keep_certificate(PLAN, given, AUTHORITY.public())
    assert secrets.certificate(PLAN) is None


def test_the_least_serial_of_a_server_never_goes_down(vault: Vault) -> None:
    secrets = FleetSecrets(vault)
    assert secrets.least_serial("shop") == 1
    for serial, least in ((3, 3), (2, 3), (300, 300), (3, 300)):
        secrets.saw_serial("shop", serial)
        assert secrets.least_serial("shop") == least
    assert secrets.least_serial("x" * 256) == 1
    secrets.saw_serial("x" * 256, 2**63 - 1)
    assert secrets.least_serial("x" * 256) == 2**63 - 1


def test_a_plan_that_is_forgotten_leaves_nothing_and_others_stay(vault: Vault) -> None:
    secrets = FleetSecrets(vault)
    old, other = secrets.identity(PLAN).public(), secrets.identity(OTHER_PLAN).public()
    secrets.keep_certificate(PLAN, AUTHORITY.certify(PLAN, "ef" * 16, old), AUTHORITY.public())
    secrets.saw_serial("shop", 7)
    secrets.forget_plan(PLAN)
    secrets.forget_plan(PLAN)
    assert not [name for name in vault.names() if PLAN in name]
    assert secrets.identity(OTHER_PLAN).public() == other
    assert secrets.least_serial("shop") == 7
    assert secrets.identity(PLAN).public() != old
