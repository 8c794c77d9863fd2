"""The release text: one byte string, read back as it was, and refused if anything in it is not as it must be."""

from typing import Any

import msgspec
import pytest
from hushrec.releases import MAX_RELEASE_BYTES, Release, ReleaseFile
from hushrec_privacy import canonical
from hushrec_privacy.errors import ReleaseError

HEAD = "41:" + "5f" * 32
RELEASE = Release(
    model_version=7,
    bundle="ab" * 32,
    files=(ReleaseFile("items.bin", "cd" * 32, 5), ReleaseFile("manifest.json", "ef" * 32, 2000)),
    demo=False,
    ledger_head=HEAD,
)
TEXT = (
    b'{"bundle":"'
    + b"ab" * 32
    + b'","demo":false,"files":[{"name":"items.bin","sha256":"'
    + b"cd" * 32
    + b'","size":5}'
    b',{"name":"manifest.json","sha256":"'
    + b"ef" * 32
    + b'","size":2000}],"format":1,"ledger_head":"41:'
    + b"5f" * 32
    + b'","model_version":7}'
)


def test_its_bytes_are_the_documented_ones() -> None:
    assert RELEASE.encode() == TEXT
    assert Release.decode(TEXT) == RELEASE
    assert RELEASE.size == 2005


def test_without_a_ledger_there_is_no_head() -> None:
    bare = msgspec.structs.replace(RELEASE, ledger_head="")
    assert b"ledger_head" not in bare.encode()
    assert Release.decode(bare.encode()) == bare


def changed(**values: Any) -> bytes:
    return canonical.encode({**canonical.decode(TEXT), **values})


def test_fields_that_are_not_known_yet_are_ignored() -> None:
    assert Release.decode(changed(later="x")) == RELEASE


@pytest.mark.parametrize("cut", range(0, len(TEXT), 7))
def test_every_truncation_is_refused(cut: int) -> None:
    with pytest.raises(ReleaseError):
        Release.decode(TEXT[:cut])


FILE, MANIFEST = ({"name": one.name, "sha256": one.sha256, "size": one.size} for one in RELEASE.files)


@pytest.mark.parametrize(
    "data",
    [
        changed(format=2),
        changed(format="1"),
        changed(model_version=0),
        changed(model_version=2**31),
        changed(model_version="7"),
        changed(bundle="AB" * 32),
        changed(bundle="ab"),
        changed(demo=0),
        changed(ledger_head="41"),
        changed(ledger_head=" " + HEAD),
        changed(files=[]),
        changed(files=[FILE]),
        changed(files=[MANIFEST, FILE]),
        changed(files=[FILE, FILE, MANIFEST]),
        changed(files=[{**FILE, "name": "../items.bin"}, MANIFEST]),
        changed(files=[{**FILE, "name": "a/b"}, MANIFEST]),
        changed(files=[{**FILE, "name": ".."}, MANIFEST]),
        changed(files=[{**FILE, "name": ""}, MANIFEST]),
        changed(files=[{**FILE, "sha256": "../../x"}, MANIFEST]),
        changed(files=[{**FILE, "size": -1}, MANIFEST]),
        changed(files=[FILE, {**MANIFEST, "size": 2**20 + 1}]),
        changed(files=[{**FILE, "name": f"a{number:04}"} for number in range(1000)] + [MANIFEST]),
        b"[]",
        b"null",
        b"7",
        TEXT + b"\n",
        TEXT.replace(b",", b", ", 1),
        b"[" * 100_000,
        b" " * (MAX_RELEASE_BYTES + 1),
    ],
)
def test_what_is_not_as_it_must_be_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        Release.decode(data)


@pytest.mark.parametrize("change", [{"bundle": ""}, {"files": ()}, {"ledger_head": "x"}])
def test_what_would_be_refused_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ReleaseError):
        msgspec.structs.replace(RELEASE, **change).encode()
