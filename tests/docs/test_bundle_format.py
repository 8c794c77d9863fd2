"""The example of docs/bundle-format.md is a bundle: rebuilt from the page, it opens and holds what the page says."""

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec.catalog import SCHEMA
from hushrec.counts import Blend
from hushrec.federated.candidates import draw_candidates
from hushrec.federated.layout import ParameterLayout
from hushrec.manifest import FORMAT
from hushrec.tables import dequantize_rows
from hushrec_quantize.train_graph import build_train_step

from tests.encoder_reference import random_encoder
from tests.learning_bundle import learning_bundle

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bundle-format.md").read_text(encoding="utf-8")


def blocks(kind: str) -> dict[str, str]:
    """The fenced blocks of one kind, by what stands behind the kind."""
    return dict(re.findall(rf"^```{kind} (\S[^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def from_dump(dump: str, size: int) -> bytes:
    data = bytearray(size)
    for line in dump.splitlines():
        offset, _, row = line.partition("  ")
        place = int(offset, 16)
        data[place : place + len(bytes.fromhex(row))] = bytes.fromhex(row)
    assert len(data) == size
    return bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "example.hush"
    root.mkdir()
    for title, dump in blocks("hexdump").items():
        name, size = title.split()
        (root / name).write_bytes(from_dump(dump, int(size)))
    for kind in ("text", "json"):
        for name, text in blocks(kind).items():
            (root / name).write_bytes(text.encode())
    return root


def test_the_example_opens_and_its_arrays_are_those_of_the_page(root: Path) -> None:
    bundle = Bundle.open(root)
    vectors = dequantize_rows(bundle.array("items.codes"), float(bundle.array("items.scale")[0]))
    assert vectors[1].tolist() == [0.9921875, 0, 0, 0]
    assert vectors[2].tolist() == [0.59375, 0.796875, 0, 0]
    assert bundle.array("transitions.items").tolist() == [[0, 0], [2, 0], [1, 2]]
    steps = bundle.array("transitions.weights") * bundle.array("transitions.scales")[:, None]
    assert steps.tolist() == [[0, 0], [127.5, 0], [50, 25]]
    assert bundle.array("popularity").tolist() == [0, 7, 3]


def test_the_example_adds_what_the_page_says(root: Path) -> None:
    bundle = Bundle.open(root)
    scores = np.zeros(3, np.float32)
    Blend(bundle.manifest.blend, {n: bundle.array(n) for n in bundle.manifest.arrays}).add_to(scores, np.array([1]))
    assert f"{scores[2]:.4f}" == f"{0.5 * math.log(1 + 127.5 / 0.25):.4f}" == "3.1182"
    assert "= 3.1182" in PAGE


def test_the_last_78_bytes_are_as_the_page_says() -> None:
    manifest = blocks("json")["manifest.json"].encode()
    digest = hashlib.sha256(manifest[:-78]).hexdigest()
    assert manifest[-78:] == b',"sha256":"' + digest.encode() + b'"}\n'
    assert f',"sha256":"{digest[:4]}…' in PAGE


def test_our_writer_gives_the_bytes_of_the_page(root: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(root)
    files = bundle.manifest.files
    again = write_bundle(
        tmp_path / "again.hush",
        bundle.manifest,
        {name: bundle.path(name).read_bytes() for name in files},
        {name: info.origin for name, info in files.items()},
    )
    assert (again.root / "manifest.json").read_bytes() == (root / "manifest.json").read_bytes()


def test_the_page_is_of_the_version_that_is_written_and_shows_the_schema() -> None:
    assert PAGE.startswith(f"# The bundle format, version {FORMAT}\n")
    assert f"| {FORMAT} | " in PAGE
    for table in ("items", "columns", "terms", "item_terms"):
        shown = re.search(rf"^{table}\((.*)\)$", PAGE, re.MULTILINE)
        assert shown is not None
        assert f"CREATE TABLE {table}({shown[1]}" in SCHEMA


def test_the_train_step_is_the_page_s() -> None:
    section = PAGE.partition("## Training")[2].partition("## The catalogue")[0]
    weights = random_encoder(behaviors=3)
    graph = onnx.load_from_string(build_train_step(weights)).graph
    told = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    kinds = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}
    given = [(value.name, kinds[value.type.tensor_type.elem_type]) for value in graph.input]
    assert given == [*told, *((name, "float32") for name in weights.arrays())]
    outputs = [value.name for value in graph.output]
    assert outputs == ["loss", "d.rows", *(f"d.{name}" for name in weights.arrays())]
    for name in weights.arrays():
        assert f"`{re.sub('^[0-9]+', 'n', name)}`" in section, name


def test_the_candidates_are_the_page_s() -> None:
    told = re.search(r"four for the seed `(.*)` are (\d+), (\d+), (\d+) and (\d+)", PAGE)
    assert told is not None
    assert draw_candidates(10, 4, told[1]).tolist() == [int(number) for number in told.groups()[1:]]


def test_parts_are_laid_out_as_on_the_page(tmp_path: Path) -> None:
    shapes = list(ParameterLayout.of(learning_bundle(tmp_path / "shop.hush")[0].manifest, "full").shapes)
    group = re.search(r"in this order: (.*?); the other.*?name as bytes; (.*?); the V", PAGE, re.DOTALL)
    assert group is not None
    first, third = (re.findall(r"`([\w.]+)`", text) for text in group.groups())
    short = [name.removeprefix("params.") for name in shapes]
    assert short[: len(first)] == first
    assert short[-1 - len(third) : -1] == third
    middle = short[len(first) : -1 - len(third)]
    assert middle == sorted(middle)


def test_every_array_of_training_is_on_the_page(tmp_path: Path) -> None:
    manifest = learning_bundle(tmp_path / "shop.hush")[0].manifest
    named = set(re.findall(r"`((?:features|params)\.[\w.]+)`", PAGE))
    assert {name for name in manifest.arrays if name.startswith("features.")} <= named
    assert {"params.rotation", "params.lengths"} <= named
