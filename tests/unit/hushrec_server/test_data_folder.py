"""The data folder: made once, by one process, and every file in it checked before it is used."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hushrec_privacy.envelope import KeySet, ServerKey, verified_key_set
from hushrec_privacy.errors import ConfigError, NoiseStateError
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.data_folder import (
    EnvelopeKeys,
    check_signed,
    new_envelope_key,
    prepare_folder,
    read_public_key,
    read_text,
    seal_key,
)
from hushrec_server.key_sets import next_key_set, signed_key_set

NOW, DAY = 1_000_000, 86_400


def quietly(folder: Path) -> object:
    made = prepare_folder(folder, lambda _: None)
    seal_key(folder, lambda _: None, lambda: None)
    return made


@pytest.fixture
def key(tmp_path: Path) -> PlanKey:
    return PlanKey.create(tmp_path / "plan.key")


def opened(folder: Path, key: PlanKey, *, server: str = "shop", at_s: int = NOW) -> EnvelopeKeys:
    keys = prepare_folder(folder, lambda _: None).envelopes
    return EnvelopeKeys.read(folder, keys, key.public(), server=server, at_s=at_s)


def sign(
    folder: Path, key: PlanKey, number: int = 1, *, server: str = "shop", before: bool = False, at_s: int = NOW
) -> KeySet:
    public = read_public_key(folder / f"envelope-{number}.pub", "key", 1_216)
    earlier = (folder / "keys.json", key.public()) if before else None
    key_set = next_key_set(public, server=server, at_s=at_s, lifetime_s=DAY, before=earlier, overlap_s=DAY // 2)
    (folder / "keys.json").write_bytes(signed_key_set(key, key_set))
    return key_set


def test_the_first_start_makes_the_secrets_and_tells_of_each(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = tmp_path / "new" / "data"
    made = prepare_folder(folder, lines.append)
    sealed = seal_key(folder, lines.append, lambda: None)
    assert len(lines) == 4
    assert sealed.reveal() == (folder / "seal.key").read_bytes()
    for name in ("seal.key", "admin.token", "envelope-1.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made.envelopes[0].public() == read_public_key(folder / "envelope-1.pub", "key", 1_216)
    assert len(made.admin_token) >= 43


def test_later_starts_change_nothing(tmp_path: Path) -> None:
    quietly(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lines: list[str] = []
    prepare_folder(tmp_path, lines.append)
    seal_key(tmp_path, lines.append, lambda: pytest.fail("nothing new is made"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not lines


def test_processes_that_start_at_once_make_one_set_of_secrets(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: prepare_folder(tmp_path / "data", lambda _: None), range(8)))
        sealed = list(pool.map(lambda _: seal_key(tmp_path / "data", lambda _: None, lambda: None), range(8)))
    assert len({key.reveal() for key in sealed}) == 1
    assert len({keys.admin_token for keys in made}) == 1
    assert len({keys.envelopes[0].key_id for keys in made}) == 1


def test_no_seal_key_is_made_where_something_was_sealed_with_another(tmp_path: Path) -> None:
    def refuse() -> None:
        raise NoiseStateError("sealed with another one")

    with pytest.raises(NoiseStateError):
        seal_key(tmp_path, lambda _: None, refuse)
    assert not (tmp_path / "seal.key").exists()


def test_neither_plan_key_nor_authority_is_made(tmp_path: Path) -> None:
    quietly(tmp_path)
    assert not [path for path in tmp_path.iterdir() if "plan" in path.name or "authority" in path.name]
    with pytest.raises(ConfigError, match=r"plan\.pub: is missing\. Take .*envelope-1\.pub.*--server shop"):
        check_signed(tmp_path, tmp_path / "plan.pub", "shop")


@pytest.mark.parametrize("name", ["seal.key", "envelope-1.key"])
@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_named_and_not_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    quietly(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        quietly(tmp_path)
    assert (tmp_path / name).read_bytes() == content


def test_a_short_token_and_one_that_others_may_read_are_refused(tmp_path: Path) -> None:
    quietly(tmp_path)
    token = tmp_path / "admin.token"
    token.write_text("admin")
    with pytest.raises(ConfigError, match="less than 32 characters"):
        quietly(tmp_path)
    token.write_text("x" * 43)
    token.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        quietly(tmp_path)


@pytest.mark.parametrize(("mode", "lines"), [(0o700, 0), (0o755, 1), (0o770, 1), (0o701, 1)])
def test_a_folder_in_which_others_have_rights_is_told_of_in_one_line(tmp_path: Path, mode: int, lines: int) -> None:
    quietly(tmp_path)
    tmp_path.chmod(mode)
    told: list[str] = []
    prepare_folder(tmp_path, told.append)
    tmp_path.chmod(0o700)
    assert len(told) == lines
    assert all(line.endswith(f"take them away: chmod 700 {tmp_path}") for line in told)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used as data folder"):
        quietly(tmp_path / "data")


def test_signed_keys_open_and_are_as_devices_get_them(tmp_path: Path, key: PlanKey) -> None:
    quietly(tmp_path / "data")
    sign(tmp_path / "data", key)
    found = opened(tmp_path / "data", key)
    assert [each.key_id for each in found.in_force(NOW)] == [found.keys[0].key_id]
    assert found.in_force(NOW + DAY) == ()
    data, signature = found.document
    verified_key_set(data, signature, key.public(), server="shop", least_serial=1, at_s=NOW)
    with pytest.raises(ConfigError, match="the signed keys are over"):
        found.check(NOW + DAY)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}", b"null", b'{"data":"","signature":""}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_signed_key_set_is_refused(tmp_path: Path, key: PlanKey, content: bytes) -> None:
    quietly(tmp_path / "data")
    (tmp_path / "data" / "keys.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"keys\.json: .*(hushrec envelope sign|is no text)"):
        opened(tmp_path / "data", key)
    sign(tmp_path / "data", key)
    (tmp_path / "data" / "keys.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        sign(tmp_path / "data", key, before=True)


def test_keys_of_another_signer_server_time_or_folder_are_refused(tmp_path: Path, key: PlanKey) -> None:
    data = tmp_path / "data"
    quietly(data)
    sign(data, PlanKey.create(tmp_path / "other.key"))
    with pytest.raises(ConfigError, match="not signed by the shop"):
        opened(data, key)
    sign(data, key, server="other")
    with pytest.raises(ConfigError, match="another server"):
        opened(data, key)
    sign(data, key)
    with pytest.raises(ConfigError, match="no key of this server is in force"):
        opened(data, key, at_s=NOW + DAY)
    new_envelope_key(data)
    (data / "envelope-1.key").unlink()
    with pytest.raises(ConfigError, match="not in the data folder"):
        opened(data, key)


def test_a_signed_key_whose_secret_is_lost_is_named_and_not_replaced(tmp_path: Path, key: PlanKey) -> None:
    quietly(tmp_path)
    sign(tmp_path, key)
    (tmp_path / "envelope-1.key").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"envelope-1\.key: is missing, .*Put it back.*hushrec envelope new"):
        quietly(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert new_envelope_key(tmp_path).name == "envelope-2.pub", "what devices seal to is not overwritten"
    assert (tmp_path / "envelope-1.pub").read_bytes() == before["envelope-1.pub"]


def test_of_two_files_that_do_not_fit_each_other_both_are_named(tmp_path: Path, key: PlanKey) -> None:
    quietly(tmp_path)
    sign(tmp_path, key)
    public = tmp_path / "plan.pub"
    public.write_text(key.public().hex())
    check_signed(tmp_path, public, "shop")
    with pytest.raises(ConfigError, match=r"keys of another server, 'shop', and the configuration's name is 'other'"):
        check_signed(tmp_path, public, "other")
    public.write_text(PlanKey.create(tmp_path / "other.key").public().hex())
    with pytest.raises(ConfigError, match=r"keys\.json was not signed by .*plan\.pub: one of the two files"):
        check_signed(tmp_path, public, "shop")


@pytest.mark.parametrize("name", ["", "A B", "shöp", "Shop", "-shop", "shop\n", "s" * 64])
def test_no_keys_are_signed_for_a_name_that_no_server_may_have(name: str) -> None:
    with pytest.raises(ConfigError, match="the server's name is"):
        next_key_set(bytes(1_216), server=name, at_s=NOW, lifetime_s=DAY)


def test_a_new_key_opens_beside_the_earlier_one_until_the_overlap_is_over(tmp_path: Path, key: PlanKey) -> None:
    data = tmp_path / "data"
    quietly(data)
    sign(data, key)
    assert new_envelope_key(data).name == "envelope-2.pub"
    later = NOW + 1_000
    assert sign(data, key, 2, before=True, at_s=later).serial == 2
    found = opened(data, key, at_s=later)
    assert len(found.in_force(later)) == 2
    assert found.key_set.newest(later) == found.keys[1].public()
    assert found.in_force(later + DAY // 2) == (found.keys[1],)


def test_a_set_whose_keys_are_over_is_followed_all_the_same(tmp_path: Path, key: PlanKey) -> None:
    data = tmp_path / "data"
    quietly(data)
    sign(data, key)
    new_envelope_key(data)
    followed = sign(data, key, 2, before=True, at_s=NOW + 10 * DAY)
    assert (followed.serial, len(followed.keys)) == (2, 1)


def test_only_the_shops_own_set_is_followed(tmp_path: Path, key: PlanKey) -> None:
    data = tmp_path / "data"
    quietly(data)
    sign(data, PlanKey.create(tmp_path / "other.key"))
    new_envelope_key(data)
    with pytest.raises(ConfigError, match="was not signed by this plan key"):
        sign(data, key, 2, before=True)
    with pytest.raises(ConfigError, match="of another server, 'shop' and not 'other'"):
        sign(data, key, 2, before=True, server="other")
    (data / "keys.json").write_bytes(b"{}")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        sign(data, key, 2, before=True)


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "AB" * 32, "xy" * 32])
def test_a_public_key_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.pub"
    path.write_text(content)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        read_public_key(path, "plan key")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no text"):
        read_text(path, "plan key")


def test_a_key_set_can_be_as_old_as_its_first_key() -> None:
    made = next_key_set(bytes(1_216), server="shop", at_s=NOW, lifetime_s=DAY)
    assert made == KeySet(1, "shop", (ServerKey(bytes(1_216), NOW, NOW + DAY),))
