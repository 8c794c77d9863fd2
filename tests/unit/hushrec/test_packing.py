"""A packed bundle unpacks to itself, and a zip from elsewhere can do no harm."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.packing import pack, unpack
from hushrec_privacy.errors import BundleError

from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path)


@pytest.fixture
def packed(root: Path, tmp_path: Path) -> Path:
    return pack(root, tmp_path / "shop.zip")


def rezip(packed: Path, change: Callable[[dict[str, bytes]], object], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write the zip again with other entries."""
    with zipfile.ZipFile(packed) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    forged = packed.with_name("forged.zip")
    with zipfile.ZipFile(forged, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return forged


def refused(packed: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        unpack(packed, tmp_path / "deep" / "out.hush")
    assert not (tmp_path / "deep" / "out.hush").exists()
    assert not list((tmp_path / "deep").glob("*"))
    assert not (tmp_path / "escaped").exists()


def test_unpacking_gives_the_bundle_back(root: Path, packed: Path, tmp_path: Path) -> None:
    bundle = unpack(packed, tmp_path / "out.hush")
    assert bundle.sha256 == Bundle.open(root).sha256
    for path in root.iterdir():
        assert (bundle.root / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.hush", "shop.hush", "shop.zip"]


def test_the_same_bundle_gives_the_same_zip(root: Path, packed: Path, tmp_path: Path) -> None:
    before = packed.read_bytes()
    assert pack(root, tmp_path / "other.zip").read_bytes() == before
    assert pack(root, packed).read_bytes() == before


def test_stored_entries_unpack_as_well(packed: Path, tmp_path: Path) -> None:
    unpack(rezip(packed, lambda _: None, zipfile.ZIP_STORED), tmp_path / "out.hush")


def test_a_damaged_bundle_is_not_packed(root: Path, tmp_path: Path) -> None:
    (root / "items.bin").write_bytes(b"\0" * (root / "items.bin").stat().st_size)
    with pytest.raises(BundleError, match=r"items\.bin"):
        pack(root, tmp_path / "shop.zip")
    assert not (tmp_path / "shop.zip").exists()


def test_nothing_is_packed_into_the_bundle_itself(root: Path) -> None:
    with pytest.raises(BundleError, match="inside the bundle"):
        pack(root, root / "shop.zip")
    Bundle.open(root)


def test_a_place_that_cannot_be_written_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        pack(root, tmp_path / "nowhere" / "shop.zip")


def test_unpacking_replaces_a_bundle_but_nothing_else(root: Path, packed: Path, tmp_path: Path) -> None:
    unpack(packed, root)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(BundleError, match="left alone"):
        unpack(packed, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "name", ["../escaped", "a/../../escaped", "..\\escaped", "sub/items.bin", "empty/", "readme.txt"]
)
def test_an_entry_that_the_manifest_does_not_list_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    refused(rezip(packed, lambda entries: entries.update({name: b"x"})), tmp_path, "does not list")


def test_an_absolute_entry_is_refused(packed: Path, tmp_path: Path) -> None:
    absolute = str(tmp_path / "escaped")
    refused(rezip(packed, lambda entries: entries.update({absolute: b"x"})), tmp_path, "does not list")


def test_a_link_is_refused(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            if name == "items.bin":
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    refused(packed, tmp_path, "is a link")


def test_an_entry_named_twice_is_refused(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        content = archive.read("items.bin")
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("items.bin", content)
    refused(packed, tmp_path, "twice")


def test_a_missing_entry_is_refused(packed: Path, tmp_path: Path) -> None:
    refused(rezip(packed, lambda entries: entries.pop("items.bin")), tmp_path, r"lacks items\.bin")
    refused(rezip(packed, lambda entries: entries.pop("manifest.json")), tmp_path, "no manifest")


def test_a_bomb_is_refused_by_the_size_in_its_directory(packed: Path, tmp_path: Path) -> None:
    forged = rezip(packed, lambda entries: entries.update({"items.bin": b"\0" * 50_000_000}))
    assert forged.stat().st_size < 200_000
    refused(forged, tmp_path, "has 50000000 bytes")


def test_a_bomb_that_lies_about_its_size_is_stopped(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        size = archive.getinfo("items.bin").file_size
    forged = rezip(packed, lambda entries: entries.update({"items.bin": b"\0" * 50_000_000}))
    small, large = size.to_bytes(4, "little"), (50_000_000).to_bytes(4, "little")
    forged.write_bytes(forged.read_bytes().replace(large, small))
    refused(forged, tmp_path, "forged")


def test_a_manifest_too_large_is_not_even_read(packed: Path, tmp_path: Path) -> None:
    forged = rezip(packed, lambda entries: entries.update({"manifest.json": b" " * 2_000_000}))
    refused(forged, tmp_path, "sensible size")


@pytest.mark.parametrize("name", ["items.bin", "manifest.json", "encoder.onnx"])
def test_other_content_under_a_listed_name_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    def change(entries: dict[str, bytes]) -> None:
        entries[name] = bytes(byte ^ 1 for byte in entries[name])

    refused(rezip(packed, change), tmp_path, name)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(packed: Path, tmp_path: Path, kind: int) -> None:
    refused(rezip(packed, lambda _: None, kind), tmp_path, "compressed")


def test_an_encrypted_entry_is_refused(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 8] |= 1
    packed.write_bytes(data)
    refused(packed, tmp_path, "not a packed bundle")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + b"\0" * 18, b"x" * 10_000])
def test_what_is_no_zip_of_a_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    (tmp_path / "deep").mkdir()
    refused(tmp_path / "a.zip", tmp_path, r"a\.zip")


def test_a_missing_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    refused(tmp_path / "nothing.zip", tmp_path, r"nothing\.zip")


@pytest.mark.parametrize("place", range(0, 1000, 37))
def test_a_flipped_byte_anywhere_gives_the_same_bundle_or_none(packed: Path, tmp_path: Path, place: int) -> None:
    expected = Bundle.open(tmp_path / "shop.hush").sha256
    data = bytearray(packed.read_bytes())
    data[place * len(data) // 1000] ^= 0x10
    packed.write_bytes(data)
    try:
        assert unpack(packed, tmp_path / "out.hush").sha256 == expected
    except BundleError:
        assert not (tmp_path / "out.hush").exists()
