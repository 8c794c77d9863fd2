"""The manifest's bytes are canonical, and its last field is the hash of what comes before."""

import hashlib
import json

import msgspec
import pytest
from hushrec.manifest import (
    MAX_MANIFEST_BYTES,
    NO_GUARANTEE,
    ArrayInfo,
    FileInfo,
    Manifest,
    ModelInfo,
    array_bytes,
    decode_manifest,
    encode_manifest,
)
from hushrec_privacy.errors import BundleError


def manifest(**changes: object) -> Manifest:
    sha256 = "0" * 64
    names = ("scorer.onnx", "items.bin", "encoder.onnx", "blocks.onnx", "catalog.sqlite")
    whole = Manifest(
        card={"name": "shop", "headline": NO_GUARANTEE, "users": 7},
        model=ModelInfo(
            width=4, layers=1, max_history=8, items=3, capacity=8, filter_seen=True, times=False, architecture=sha256
        ),
        arrays={
            "popularity": ArrayInfo("items.bin", 128, "<f4", (4,)),
            "items.scale": ArrayInfo("items.bin", 64, "<f4", (1,)),
            "items.codes": ArrayInfo("items.bin", 0, "|u1", (8, 4)),
        },
        files={name: FileInfo(256, sha256, "private") for name in names},
    )
    return msgspec.structs.replace(whole, **changes)


def test_what_is_written_is_read_back_with_the_hash_that_it_ends_with() -> None:
    data = encode_manifest(manifest())
    read, digest = decode_manifest(data)
    assert read == manifest()
    assert json.loads(data)["sha256"] == digest
    assert hashlib.sha256(data[: data.rindex(b',"sha256"')]).hexdigest() == digest


def test_the_bytes_do_not_depend_on_the_order_in_which_things_were_added() -> None:
    other = manifest(arrays=dict(reversed(manifest().arrays.items())), files=dict(reversed(manifest().files.items())))
    assert encode_manifest(other) == encode_manifest(manifest())


def test_the_headline_is_the_first_line_of_the_card() -> None:
    assert next(iter(json.loads(encode_manifest(manifest()))["card"])) == "headline"


def test_a_card_that_is_too_long_is_not_written() -> None:
    with pytest.raises(BundleError, match="shorten the card"):
        encode_manifest(manifest(card={"headline": NO_GUARANTEE, "text": "x" * MAX_MANIFEST_BYTES}))


def test_what_would_not_be_read_back_is_not_written() -> None:
    with pytest.raises(BundleError, match="popularity"):
        encode_manifest(manifest(arrays={}))


@pytest.mark.parametrize(
    ("shape", "dtype", "size"), [((), "<f4", 4), ((3,), "|u1", 3), ((2, 3), "<u4", 24), ((0, 9), "<f4", 0)]
)
def test_array_bytes_are_the_product_of_the_lengths_and_the_width(
    shape: tuple[int, ...], dtype: str, size: int
) -> None:
    assert array_bytes(ArrayInfo("a.bin", 0, dtype, shape)) == size  # type: ignore[arg-type]
