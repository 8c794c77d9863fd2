"""A vault is a dictionary that lasts; a damaged one says so or is the same, and never another."""

import tempfile
from pathlib import Path

import pytest
from hushrec.vault import Vault
from hushrec_privacy.errors import VaultError
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = bytes(32)
NAMES = st.sampled_from(["a", "b", "ab", "ä"])
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.binary(max_size=40)),
    st.tuples(st.just("delete"), NAMES, st.none()),
    st.tuples(st.just("open again"), st.none(), st.none()),
    st.tuples(st.just("rekey"), st.none(), st.binary(min_size=32, max_size=32)),
)


@given(steps=st.lists(STEPS, max_size=12))
@settings(max_examples=25)
def test_a_vault_is_a_dictionary_that_lasts(steps: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, key, expected = Path(folder) / "vault", KEY, dict[str, bytes]()
        vault = Vault.open(path, key)
        for step, name, value in steps:
            if step == "put":
                vault.put(name, value)
                expected[name] = value
            elif step == "delete":
                vault.delete(name)
                expected.pop(name, None)
            elif step == "rekey":
                vault.rekey(value)
                key = value
            else:
                vault.close()
                vault = Vault.open(path, key)
            assert vault.values() == expected
        vault.close()


VALUES = {"one": b"first", "two": b"second"}


def _made(folder: Path) -> bytes:
    with Vault.open(folder / "vault", KEY) as vault:
        vault.put_many(VALUES)
    return (folder / "vault").read_bytes()


def _outcome(path: Path, content: bytes) -> dict[str, bytes] | None:
    """What a file holds; None: refused."""
    path.write_bytes(content)
    try:
        with Vault.open(path, KEY) as vault:
            found = vault.values()
            assert {name: vault.get(name) for name in vault.names()} == found
            return found
    except VaultError:
        return None
    finally:
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)


def _flip(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


def test_a_flipped_bit_in_any_byte_that_is_used_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    content = _made(tmp_path)
    used = [at for at, byte in enumerate(content) if byte]
    outcomes = [_outcome(tmp_path / "vault", _flip(content, at, at % 8)) for at in used]
    assert all(outcome in (None, VALUES) for outcome in outcomes)
    assert len(used) > 500
    assert outcomes.count(None) > 0.8 * len(used), "the others are counters of SQLite and space that nothing uses"


def test_a_flipped_bit_in_any_byte_of_a_sealed_value_is_refused(tmp_path: Path) -> None:
    import sqlite3

    content = _made(tmp_path)
    database = sqlite3.connect(tmp_path / "vault")
    sealed = [blob for row in database.execute("SELECT id, key, summary FROM vault") for blob in row]
    sealed += [blob for row in database.execute("SELECT name, value FROM sealed") for blob in row]
    database.close()
    for blob in sealed:
        start = content.index(blob)
        for at in range(start, start + len(blob)):
            assert _outcome(tmp_path / "vault", _flip(content, at, at % 8)) is None


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_at_all_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    content = _made(tmp_path)
    for at in range(len(content)):
        assert _outcome(tmp_path / "vault", _flip(content, at, at % 8)) in (None, VALUES)


@given(at=st.integers(0), noise=st.binary(min_size=1, max_size=200))
@settings(max_examples=60)
def test_noise_over_any_part_is_refused_or_changes_nothing(at: int, noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = _made(Path(folder))
        start = at % len(content)
        changed = content[:start] + noise + content[start + len(noise) :]
        assert _outcome(Path(folder) / "vault", changed) in (None, VALUES)
