"""A sealed row opens only where it was sealed, under its own key; the key stays hidden."""

import copy
import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError, NoiseStateError
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row, seal_row

KEY = SealKey(bytes(range(32)))
PLACE = RowPlace("0f" * 32, 7, 6, 3)
ROW = np.array([1, -2, 2**60])


def test_a_row_comes_back_as_it_was() -> None:
    np.testing.assert_array_equal(open_row(KEY, seal_row(KEY, ROW, PLACE), PLACE), ROW)


def test_a_row_is_nonce_ciphertext_and_tag_and_shows_nothing() -> None:
    one, other = seal_row(KEY, ROW, PLACE), seal_row(KEY, ROW, PLACE)
    assert len(one) == 12 + 8 * 3 + 16
    assert one[:12] != other[:12]
    assert one[12:] != other[12:]


def test_the_seal_is_plain_aes_256_gcm() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = seal_row(KEY, ROW, PLACE)
    bound = b"hushrec noise row 1\0" + bytes([15] * 32) + bytes(7) + b"\7" + bytes(7) + b"\6" + bytes(7) + b"\3"
    plain = AESGCM(bytes(range(32))).decrypt(sealed[:12], sealed[12:], bound)
    assert plain == b"".join(int(v).to_bytes(8, "little", signed=True) for v in ROW)


@pytest.mark.parametrize(
    "change",
    [{"plan_id": "0e" * 32}, {"round_number": 8}, {"previous": 5}, {"dimension": 4}],
    ids=lambda c: next(iter(c)),
)
def test_a_row_opens_nowhere_else(change: dict[str, object]) -> None:
    with pytest.raises(NoiseStateError, match="cannot be used"):
        open_row(KEY, seal_row(KEY, ROW, PLACE), dataclasses.replace(PLACE, **change))  # type: ignore[arg-type]


def test_another_key_opens_nothing_and_the_error_is_the_same() -> None:
    with pytest.raises(NoiseStateError, match="cannot be used") as refused:
        open_row(SealKey(bytes(32)), seal_row(KEY, ROW, PLACE), PLACE)
    with pytest.raises(NoiseStateError) as other:
        open_row(KEY, b"", PLACE)
    assert str(refused.value) == str(other.value)


def test_every_changed_byte_and_every_truncation_is_refused() -> None:
    sealed = seal_row(KEY, ROW, PLACE)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        for bad in (bytes(changed), sealed[:at]):
            with pytest.raises(NoiseStateError):
                open_row(KEY, bad, PLACE)
    with pytest.raises(NoiseStateError):
        open_row(KEY, sealed + b"\0", PLACE)


def test_a_key_hides_in_text_and_cannot_be_copied() -> None:
    assert repr(KEY) == str(KEY) == f"{KEY}" == "SealKey(hidden)"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="copied"):
            copied(KEY)


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), "x" * 32, None])
def test_a_key_has_32_bytes(bad: bytes) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        SealKey(bad)


def test_a_new_key_file_is_its_owners_alone_and_reads_back(tmp_path: Path) -> None:
    created, read = SealKey.create(tmp_path / "key"), SealKey.read(tmp_path / "key")
    assert created.reveal() == read.reveal() == (tmp_path / "key").read_bytes()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert SealKey.create(tmp_path / "other").reveal() != created.reveal()


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    SealKey.create(tmp_path / "key")
    with pytest.raises(ConfigError, match="never overwritten"):
        SealKey.create(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot be written"):
        SealKey.create(tmp_path / "nowhere" / "key")


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700 | 0o001])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    SealKey.create(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        SealKey.read(tmp_path / "key")


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(31))
    (tmp_path / "long").write_bytes(bytes(33))
    SealKey.create(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    for name in ("short", "long", "link", "missing", "."):
        with pytest.raises(ConfigError):
            SealKey.read(tmp_path / name)
