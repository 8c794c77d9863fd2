"""Every damaged, foreign or escaping bundle is refused with file and reason: hundreds of them, each opened fresh."""

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hushrec.bundle import Bundle
from hushrec_privacy.errors import BundleError

from tests.tiny_bundle import tiny_bundle

FILES = (
    "manifest.json",
    "encoder.onnx",
    "encoder.bin",
    "scorer.onnx",
    "blocks.onnx",
    "items.bin",
    "neighbours.bin",
    "catalog.sqlite",
)
FLIPS_A_FILE = 120
links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path)


def forge(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the manifest with a right hash of its own, as somebody would who means harm."""
    manifest = json.loads((root / "manifest.json").read_bytes())
    del manifest["sha256"]
    change(manifest)
    body = json.dumps(manifest, separators=(",", ":")).encode()[:-1]
    (root / "manifest.json").write_bytes(body + b',"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode())


def test_the_forger_of_these_tests_can_write_a_manifest_that_opens(root: Path) -> None:
    forge(root, lambda manifest: manifest.update(model_version=9))
    assert Bundle.open(root).manifest.model_version == 9


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_found(root: Path, name: str) -> None:
    path = root / name
    whole = path.read_bytes()
    rng = random.Random(name)
    ends = {0, 1, len(whole) - 2, len(whole) - 1}
    for place in sorted(ends | set(rng.sample(range(len(whole)), min(FLIPS_A_FILE, len(whole))))):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(BundleError, match=name):
            Bundle.open(root)
    path.write_bytes(whole)
    Bundle.open(root)


def test_every_byte_of_the_manifest_counts(root: Path) -> None:
    path = root / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x20  # the bit between upper and lower case
        path.write_bytes(flipped)
        with pytest.raises(BundleError):
            Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_every_truncation_is_found(root: Path, name: str, share: float) -> None:
    whole = (root / name).read_bytes()
    (root / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("more", [b"\0", b"\n", b"x" * 5000])
def test_every_longer_file_is_found(root: Path, name: str, more: bytes) -> None:
    with (root / name).open("ab") as file:
        file.write(more)
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
def test_every_missing_file_is_found(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
def test_two_files_of_equal_size_cannot_be_swapped_nor_one_renamed(root: Path, name: str) -> None:
    (root / name).rename(root / f"{name}.bak")
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("name", ["extra.bin", ".DS_Store", "catalog.sqlite-wal", "manifest.json.new", "ITEMS.BIN2"])
def test_every_file_that_is_not_listed_is_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"")
    with pytest.raises(BundleError, match="does not list"):
        Bundle.open(root)


def test_a_folder_inside_is_refused(root: Path) -> None:
    (root / "more").mkdir()
    with pytest.raises(BundleError, match="does not list"):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_refused(root: Path, name: str) -> None:
    (root / name).unlink()
    (root / name).mkdir()
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@links
@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link_is_refused_wherever_it_leads(root: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.copy(root / name, outside)
    inside = root / "copy"
    for target in (outside, Path("../outside"), inside, tmp_path / "nothing"):
        (root / name).unlink()
        (root / name).symlink_to(target)
        with pytest.raises(BundleError, match=r"plain file|link"):
            Bundle.open(root)


@links
def test_a_link_that_is_not_listed_is_refused(root: Path) -> None:
    (root / "loop").symlink_to(root)
    with pytest.raises(BundleError, match="does not list"):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_change_through_another_name_of_the_same_file_is_found(root: Path, tmp_path: Path, name: str) -> None:
    """Blob stores and installers hard-link files: allowed; writing through the other name is damage."""
    os.link(root / name, tmp_path / "outside")
    Bundle.open(root)
    content = bytearray((tmp_path / "outside").read_bytes())
    content[-1] ^= 1
    (tmp_path / "outside").write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_refused_without_waiting_for_it(root: Path, name: str) -> None:
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("place", ["nothing", "a file", "an empty folder", "a folder of other things"])
def test_what_is_not_a_bundle_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    if place == "a file":
        path.write_bytes(b"PK\x03\x04")
    elif "folder" in place:
        path.mkdir()
    if place == "a folder of other things":
        (path / "readme.txt").write_text("hello")
    with pytest.raises(BundleError, match=place):
        Bundle.open(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format":"3.0"',
        b"\xff\xfe\x00{",
        b" " * 2_000_000,
        b"null",
        b'"' + b"x" * 900_000 + b'"',
    ],
    ids=lambda text: f"{len(text)} bytes of {text[:8]!r}",
)
@pytest.mark.parametrize("hashed", [False, True], ids=["without hash", "with a right hash"])
def test_garbage_in_place_of_the_manifest_is_refused(root: Path, text: bytes, hashed: bool) -> None:
    suffix = b',"sha256":"%s"}\n' % hashlib.sha256(text).hexdigest().encode() if hashed else b""
    (root / "manifest.json").write_bytes(text + suffix)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(root)


@pytest.mark.parametrize("version", ["4.0", "2.0", "0.9", "10.0", "", "one", "1e1.0"])
def test_another_major_version_is_refused_by_name(root: Path, version: str) -> None:
    forge(root, lambda manifest: manifest.update(format=version))
    with pytest.raises(BundleError, match="update hushrec"):
        Bundle.open(root)


def test_a_bundle_of_the_first_format_is_to_be_made_anew(root: Path) -> None:
    forge(root, lambda manifest: manifest.update(format="1.0"))
    with pytest.raises(BundleError, match=r"format .1\.0.*hushrec quantize"):
        Bundle.open(root)


def test_a_newer_major_version_is_named_even_if_nothing_else_is_known_of_it(root: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest.clear()
        manifest.update(format="4.0", parts=[1, 2, 3])

    forge(root, change)
    with pytest.raises(BundleError, match=r"format .4\.0."):
        Bundle.open(root)


def test_a_newer_minor_version_opens_and_its_unknown_fields_are_ignored(root: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["format"] = "3.7"
        manifest["campaigns"] = {"spring": [1, 2]}
        manifest["model"]["temperature"] = 0.5
        manifest["files"]["items.bin"]["blake3"] = "00"
        manifest["arrays"]["items.codes"]["block"] = 64
        manifest["blend"][0]["cap"] = 3

    forge(root, change)
    assert Bundle.open(root).manifest.format == "3.7"


ESCAPES = [
    "../outside",
    "..",
    ".",
    "",
    "/etc/hostname",
    "a/../../outside",
    "sub/items.bin",
    "..\\outside",
    "C:\\outside",
    "c:outside",
    "//server/share",
    "items.bin/",
    "items.bin\0",
    "Items.bin",
    "ïtems.bin",
    "manifest.json",
    "-rf",
    "x" * 300,
]


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
def test_a_listed_name_that_leaves_the_bundle_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"x")

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest(), "origin": "public"}

    forge(root, change)
    with pytest.raises(BundleError, match="leave the bundle"):
        Bundle.open(root)


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
def test_an_array_in_a_file_outside_the_bundle_is_refused(root: Path, name: str) -> None:
    forge(root, lambda manifest: manifest["arrays"]["popularity"].update(file=name))
    with pytest.raises(BundleError, match="not a file of the bundle"):
        Bundle.open(root)


@pytest.mark.parametrize(
    ("array", "fields"),
    [
        ("popularity", {"offset": 1 << 40}),
        ("popularity", {"offset": 4096}),
        ("popularity", {"shape": [1 << 30]}),
        ("popularity", {"shape": [2**31 - 1] * 8}),
        ("popularity", {"shape": [60]}),
        ("popularity", {"shape": []}),
        ("popularity", {"offset": 4}),
        ("popularity", {"offset": -64}),
        ("popularity", {"shape": [-1]}),
        ("popularity", {"shape": [61.5]}),
        ("popularity", {"shape": [2**70]}),
        ("popularity", {"dtype": "|O"}),
        ("popularity", {"dtype": ">f4"}),
        ("items.codes", {"shape": [64, 64, 1]}),
        ("items.codes", {"shape": [61, 64]}),
        ("items.scale", {"offset": 4160}),
        ("items.scale", {"shape": [64]}),
        ("items.scale", {"file": "neighbours.bin"}),
    ],
    ids=str,
)
def test_an_array_that_leaves_its_file_or_contradicts_the_model_is_refused(
    root: Path, array: str, fields: dict[str, Any]
) -> None:
    forge(root, lambda manifest: manifest["arrays"][array].update(fields))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(root)


@pytest.mark.parametrize(
    "fields",
    [
        {"items": 0},
        {"items": -1},
        {"items": 10**9},
        {"items": 64},
        {"items": 59},
        {"capacity": 60},
        {"width": 0},
        {"width": 32},
        {"max_history": 0},
        {"layers": 1.5},
        {"behaviors": []},
        {"behaviors": ["view", "view"]},
        {"behaviors": "view"},
        {"filter_seen": 1},
        {"times": None},
        {"architecture": ""},
        {"architecture": "0" * 64},
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_refused(root: Path, fields: dict[str, Any]) -> None:
    forge(root, lambda manifest: manifest["model"].update(fields))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(root)


@pytest.mark.parametrize(
    "fields", [{"epsilon": 0}, {"epsilon": -1}, {"weight": "much"}, {"window": -1}, {"decay": None}], ids=str
)
def test_a_blend_that_cannot_be_is_refused(root: Path, fields: dict[str, Any]) -> None:
    forge(root, lambda manifest: manifest["blend"][0].update(fields))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(root)


@pytest.mark.parametrize("field", ["format", "model", "arrays"])
def test_a_manifest_without_a_needed_field_is_refused(root: Path, field: str) -> None:
    forge(root, lambda manifest: manifest.pop(field))
    with pytest.raises(BundleError, match=field):
        Bundle.open(root)


@pytest.mark.parametrize("card", [{}, {"headline": "epsilon 1 for this bundle"}, {"headline": 7}], ids=str)
def test_a_card_that_claims_more_than_the_origins_allow_is_refused(root: Path, card: dict[str, Any]) -> None:
    forge(root, lambda manifest: manifest.update(card=card))
    with pytest.raises(BundleError, match="headline"):
        Bundle.open(root)


def test_a_card_that_claims_one_guarantee_for_two_runs_is_refused(root: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["card"] = {"headline": "epsilon 1"}
        for number, info in enumerate(manifest["files"].values()):
            info["origin"] = f"dp(run-{number % 2})"

    forge(root, change)
    with pytest.raises(BundleError, match="several runs"):
        Bundle.open(root)


@pytest.mark.parametrize("name", ["encoder.onnx", "scorer.onnx", "blocks.onnx", "items.bin", "catalog.sqlite"])
def test_a_manifest_that_lists_not_all_that_is_needed_is_refused(root: Path, name: str) -> None:
    forge(root, lambda manifest: manifest["files"].pop(name))
    (root / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "g" * 64, "0" * 64])
def test_a_hash_of_the_wrong_form_or_value_is_refused(root: Path, digest: str) -> None:
    forge(root, lambda manifest: manifest["files"]["items.bin"].update(sha256=digest))
    with pytest.raises(BundleError, match=r"items\.bin"):
        Bundle.open(root)


def test_a_self_hash_in_upper_case_or_with_blanks_is_refused(root: Path) -> None:
    whole = (root / "manifest.json").read_bytes()
    body, digest = whole[:-78], whole[-67:-3]
    assert whole == body + b',"sha256":"' + digest + b'"}\n'
    for last in (
        b',"sha256":"' + digest.upper() + b'"}\n',
        b',"sha256": "' + digest + b'"}\n',
        b',"sha256":"' + digest + b'"}',
        b',"sha256":"' + digest + b'"}\r\n',
        b',"SHA256":"' + digest + b'"}\n',
    ):
        if last != whole[-78:]:
            (root / "manifest.json").write_bytes(body + last)
            with pytest.raises(BundleError, match="its own hash"):
                Bundle.open(root)
