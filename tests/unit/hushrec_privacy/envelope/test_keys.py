"""The server's secret key: one file of its owner alone, one id, and nothing to see."""

import copy
import hashlib
import pickle
import stat
from pathlib import Path

import pytest
from hushrec_privacy.envelope import KEY_ID_BYTES, PUBLIC_KEY_BYTES, EnvelopeKey, key_id
from hushrec_privacy.errors import ConfigError

from tests import envelope_reference as slow


def test_a_key_comes_back_from_its_file_and_a_new_one_is_another(tmp_path: Path) -> None:
    created, read = EnvelopeKey.create(tmp_path / "key"), EnvelopeKey.read(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert created.public() == read.public() == slow.public_key((tmp_path / "key").read_bytes())
    assert EnvelopeKey.create(tmp_path / "other").key_id != created.key_id


def test_the_id_is_a_hash_of_the_public_key() -> None:
    key = EnvelopeKey(bytes(32))
    assert len(key.public()) == PUBLIC_KEY_BYTES
    assert len(key.key_id) == KEY_ID_BYTES
    assert key.key_id == key_id(key.public())
    assert key.key_id == hashlib.sha256(b"hushrec envelope key v1\0" + key.public()).digest()[:8]


def test_a_key_hides_in_text_and_cannot_be_copied() -> None:
    key = EnvelopeKey(bytes(32))
    assert repr(key) == str(key) == f"{key}" == "EnvelopeKey(hidden)"
    assert not hasattr(key, "__dict__")
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="copied"):
            copied(key)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(96), "x" * 32, None])
def test_a_secret_has_32_bytes(secret: bytes) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        EnvelopeKey(secret)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    EnvelopeKey.create(tmp_path / "key")
    with pytest.raises(ConfigError, match="never overwritten"):
        EnvelopeKey.create(tmp_path / "key")
    (tmp_path / "short").write_bytes(bytes(31))
    (tmp_path / "link").symlink_to(tmp_path / "key")
    for name in ("short", "link", "missing"):
        with pytest.raises(ConfigError, match="envelope key"):
            EnvelopeKey.read(tmp_path / name)
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        EnvelopeKey.read(tmp_path / "key")
