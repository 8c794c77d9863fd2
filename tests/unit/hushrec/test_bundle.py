"""Bundles open when whole, hash only what changed, and are written whole or not at all."""

import hashlib
import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hushrec import manifest
from hushrec.bundle import Bundle, FileStamp, write_bundle
from hushrec.manifest import NO_GUARANTEE, Manifest
from hushrec_privacy.errors import BundleError, ConfigError

from tests.tiny_bundle import ITEMS, tiny_bundle, write_tiny_bundle


class MemoryRecord:
    """A hash record that counts what it was asked for."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[FileStamp, ...]] = {}
        self.writes = 0

    def get_stamps(self, bundle: str) -> tuple[FileStamp, ...]:
        return self.kept.get(bundle, ())

    def put_stamps(self, bundle: str, stamps: tuple[FileStamp, ...]) -> None:
        self.kept[bundle] = stamps
        self.writes += 1


def contents(bundle: Bundle) -> tuple[Manifest, dict[str, bytes | Path], dict[str, str]]:
    """What `write_bundle` takes to make the same bundle again."""
    files = bundle.manifest.files
    return (
        msgspec.structs.replace(bundle.manifest, files={}),
        {name: bundle.path(name).read_bytes() for name in files},
        {name: info.origin for name, info in files.items()},
    )


def test_arrays_are_read_only_views_of_the_mapped_files(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    codes, popularity = bundle.array("items.codes"), bundle.array("popularity")
    assert codes.shape == (bundle.manifest.model.capacity, 64)
    assert codes.dtype == np.uint8
    assert popularity[1:].tolist() == list(range(len(ITEMS), 0, -1))
    assert not codes.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        popularity[0] = 1


def test_what_the_bundle_does_not_have_is_named(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with pytest.raises(BundleError, match="no array 'colours'"):
        bundle.array("colours")
    with pytest.raises(BundleError, match=r"no file '\.\./profile'"):
        bundle.path("../profile")


def test_size_counts_every_listed_byte(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    on_disk = sum(path.stat().st_size for path in root.iterdir() if path.name != "manifest.json")
    assert Bundle.open(root).size == on_disk


def test_the_first_opening_hashes_every_file_and_the_second_none(tmp_path: Path) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    assert set(Bundle.open(root, record=record).hashed) == {path.name for path in root.iterdir()} - {"manifest.json"}
    assert Bundle.open(root, record=record).hashed == ()
    assert record.writes == 1


def test_without_a_record_or_with_verify_every_file_is_hashed(tmp_path: Path) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    count = len(Bundle.open(root, record=record).manifest.files)
    assert len(Bundle.open(root).hashed) == count
    assert len(Bundle.open(root, record=record, verify=True).hashed) == count


@pytest.mark.parametrize("change", ["mtime", "inode"])
def test_a_file_whose_time_or_inode_changed_is_hashed_again(tmp_path: Path, change: str) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    Bundle.open(root, record=record)
    path = root / "items.bin"
    seen = path.stat()
    if change == "inode":
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        other.replace(path)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    else:
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1_000_000))
    assert Bundle.open(root, record=record).hashed == ("items.bin",)
    assert Bundle.open(root, record=record).hashed == ()


def test_a_changed_byte_is_found_although_the_record_knows_the_file(tmp_path: Path) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    Bundle.open(root, record=record)
    data = bytearray((root / "items.bin").read_bytes())
    data[1000] ^= 1
    (root / "items.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"items\.bin: is damaged"):
        Bundle.open(root, record=record)


def test_a_record_of_another_content_does_not_count(tmp_path: Path) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    Bundle.open(root, record=record)
    known = record.kept[str(root)]
    record.kept[str(root)] = tuple(stamp._replace(sha256="0" * 64) for stamp in known)
    opened = Bundle.open(root, record=record)
    assert set(opened.hashed) == set(opened.manifest.files)
    assert record.kept[str(root)] == known


def test_a_manifest_on_record_is_not_hashed_again_unless_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    Bundle.open(root, record=record)
    path = root / "manifest.json"
    seen, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b"no guarantee", b"NO guarantee"))  # still JSON, but not what the hash is of
    with pytest.raises(BundleError, match="its own hash does not match"):
        Bundle.open(root, record=record)  # another modification time
    path.write_bytes(data)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    hashed: list[bytes] = []
    exact = manifest._sha256

    def spy(data: bytes) -> str:
        hashed.append(data)
        return exact(data)

    monkeypatch.setattr(manifest, "_sha256", spy)
    Bundle.open(root, record=record)
    assert not hashed
    Bundle.open(root, record=record, verify=True)
    assert hashed


@pytest.mark.parametrize("train", [True, False])
def test_every_graph_belongs_to_the_architecture(tmp_path: Path, train: bool) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "shop.hush", train=train))
    graphs = ("encoder.onnx", "scorer.onnx", "blocks.onnx", *(["train_step.onnx"] if train else []))
    whole = b"".join(bundle.path(name).read_bytes() for name in graphs)
    assert bundle.manifest.model.architecture == hashlib.sha256(whole).hexdigest()


def test_a_changed_train_step_is_another_architecture(tmp_path: Path) -> None:
    parts, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    other = write_bundle(tmp_path / "other.hush", parts, {**files, "train_step.onnx": b"another"}, origins)
    assert other.manifest.model.architecture != parts.model.architecture


def test_a_manifest_that_is_new_to_the_record_is_held_against_the_graphs(tmp_path: Path) -> None:
    root, record = tiny_bundle(tmp_path), MemoryRecord()
    kept = Bundle.open(root, record=record).manifest
    other = msgspec.structs.replace(kept, model=msgspec.structs.replace(kept.model, architecture="0" * 64))
    (root / "manifest.json").write_bytes(manifest.encode_manifest(other))
    with pytest.raises(BundleError, match="another architecture"):
        Bundle.open(root, record=record)


def test_opening_writes_nothing_into_the_bundle(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.iterdir()}
    bundle = Bundle.open(root, record=MemoryRecord(), verify=True)
    bundle.array("items.scale").sum()
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_the_directory_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    (tmp_path / "current").symlink_to(root)
    assert Bundle.open(tmp_path / "current").root == root


def test_writing_the_same_content_twice_gives_the_same_bundle(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    again = write_bundle(tmp_path / "again.hush", *contents(bundle))
    assert again.sha256 == bundle.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.hush", "shop.hush"]


def test_an_earlier_bundle_is_replaced_whole_even_a_damaged_one(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    bundle = Bundle.open(root)
    manifest, files, origins = contents(bundle)
    (root / "items.bin").write_bytes(b"damaged")
    (root / "left-over").write_bytes(b"of another release")
    new = write_bundle(root, msgspec.structs.replace(manifest, model_version=2), files, origins)
    assert new.root == root
    assert Bundle.open(root, verify=True).manifest.model_version == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shop.hush"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    parts = contents(Bundle.open(tiny_bundle(tmp_path)))
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", *parts)


def test_a_private_part_puts_no_guarantee_first_on_the_card(tmp_path: Path) -> None:
    manifest, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    boast = msgspec.structs.replace(manifest, card={"name": "shop", "headline": "epsilon 1"})
    card = write_bundle(tmp_path / "b", boast, files, origins).manifest.card
    assert next(iter(card.items())) == ("headline", NO_GUARANTEE)
    public = write_bundle(tmp_path / "c", boast, files, dict.fromkeys(origins, "dp(run-1)")).manifest.card
    assert next(iter(public.items())) == ("headline", "epsilon 1")
    runs = {name: f"dp(run-{number % 2})" for number, name in enumerate(origins)}
    mixed = write_bundle(tmp_path / "d", boast, files, runs).manifest.card
    assert next(iter(mixed.items())) == ("headline", NO_GUARANTEE), "a card counts one run"


@pytest.mark.parametrize("make", ["file", "folder", "foreign manifest"])
def test_what_is_not_a_bundle_is_left_alone(tmp_path: Path, make: str) -> None:
    parts = contents(Bundle.open(tiny_bundle(tmp_path)))
    place = tmp_path / "place"
    kept = place if make == "file" else place / ("manifest.json" if make == "foreign manifest" else "thesis.txt")
    kept.parent.mkdir(exist_ok=True)
    kept.write_text('["three years of work"]')
    with pytest.raises(BundleError, match="left alone"):
        write_bundle(place, *parts)
    assert kept.read_text() == '["three years of work"]'


def test_a_failed_writing_leaves_the_old_bundle_and_nothing_else(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    bundle = Bundle.open(root)
    manifest, files, origins = contents(bundle)
    short = {**files, "items.bin": b"short"}
    with pytest.raises(BundleError, match="leaves its file"):
        write_bundle(root, manifest, short, origins)
    assert Bundle.open(root, verify=True).sha256 == bundle.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["shop.hush"]


def test_a_file_without_origin_and_an_origin_without_file_are_refused(tmp_path: Path) -> None:
    manifest, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    with pytest.raises(ConfigError, match=r"items\.bin"):
        write_bundle(tmp_path / "b", manifest, files, {name: "public" for name in origins if name != "items.bin"})


@pytest.mark.parametrize("name", ["../escape", "a/b", "manifest.json", ".hidden", "Upper.bin", "", "a b", "x" * 200])
def test_names_that_could_leave_the_bundle_are_not_written(tmp_path: Path, name: str) -> None:
    manifest, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "b", manifest, {**files, name: b"x"}, {**origins, name: "public"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.hush"]


@pytest.mark.parametrize("origin", ["secret", "dp()", "dp(a b)", ""])
def test_an_origin_that_means_nothing_is_refused(tmp_path: Path, origin: str) -> None:
    manifest, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    with pytest.raises(BundleError, match="origin"):
        write_bundle(tmp_path / "b", manifest, files, {**origins, "items.bin": origin})


@pytest.mark.parametrize("name", ["encoder.onnx", "scorer.onnx", "blocks.onnx", "catalog.sqlite"])
def test_a_bundle_without_a_needed_part_is_not_written(tmp_path: Path, name: str) -> None:
    manifest, files, origins = contents(Bundle.open(tiny_bundle(tmp_path)))
    del files[name], origins[name]
    with pytest.raises(BundleError, match=name):
        write_bundle(tmp_path / "b", manifest, files, origins)
