"""Pseudonyms repeat under a key, differ under another, and the key shows itself nowhere."""

import hashlib
import hmac
import logging
import os
import pickle
import stat
from pathlib import Path

import pytest
from hushrec_model.pseudonyms import PseudonymKey, load_or_create_key, pseudonym
from hushrec_privacy.errors import ConfigError


def test_a_pseudonym_is_the_first_half_of_the_hmac() -> None:
    assert pseudonym("anna", b"key") == hmac.new(b"key", b"anna", hashlib.sha256).hexdigest()[:32]


def test_rfc_4231_test_case_2() -> None:
    assert pseudonym("what do ya want for nothing?", b"Jefe") == "5bdcc146bf60754e6a042426089575c7"


def test_another_key_gives_another_pseudonym() -> None:
    assert pseudonym("anna", b"one") != pseudonym("anna", b"two")


def test_a_new_key_is_for_its_owner_only_and_comes_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "users.key"
    loose = os.umask(0)
    try:
        key = load_or_create_key(path)
    finally:
        os.umask(loose)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 32
    assert load_or_create_key(path) == key
    assert load_or_create_key(tmp_path / "other.key") != key


def test_the_key_is_hidden_from_whoever_prints_it(caplog: pytest.LogCaptureFixture) -> None:
    key = PseudonymKey(b"\x01secret-secret-secret")
    with caplog.at_level(logging.INFO):
        logging.getLogger("shop").info("key %s, %r, %s", key, key, [key])
    shown = f"{key} {key!r} {[key]} {caplog.text}"
    assert "secret" not in shown
    assert pickle.loads(pickle.dumps(key)) == key  # noqa: S301


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "00" * 31, "00" * 33])
def test_a_file_that_holds_no_key_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "users.key"
    path.write_text(content)
    with pytest.raises(ConfigError, match="does not hold a key of 32 bytes") as refused:
        load_or_create_key(path)
    assert not content or content not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written to .*No such file or directory"):
        load_or_create_key(tmp_path / "missing" / "users.key")
