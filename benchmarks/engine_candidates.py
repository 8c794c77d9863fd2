"""The candidates of the engine benchmark that run in hushrec's own environment.

Run as a script this is the process of one of them (`engine_process.serve`). What costs memory is imported in its
process only. Peers have a table without spare rows; what only hushrec needs, they need not do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from engine_process import K, Kind, serve, shop_size
from memory_floor import WAYS, reader
from numpy.typing import NDArray

__all__ = ["KINDS", "REFERENCES"]

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]

ENCODER_LEVEL = "basic"  # hushrec's graph is written as it should run; other levels are no faster
TABLE = "rearranged/items.bin"


class Hushrec:
    """hushrec itself: the one place that calls the product."""

    imports: tuple[str, ...] = ("onnxruntime", "hushrec.profile", "hushrec.ranking")

    def __init__(self, *, blend: bool) -> None:
        self._blend = blend

    def write(self, root: Path) -> None:
        """The bundle is the shop's; what a device has on record after its first start is made here."""
        self.open(root, "")

    def open(self, root: Path, variant: str) -> Sequence[Path]:  # noqa: ARG002
        from hushrec.bundle import Bundle
        from hushrec.engine import Engine
        from hushrec.profile import Profile
        from hushrec.ranking import bundle_ranking

        self._profile = Profile(root / f"{'blend' if self._blend else 'plain'}.profile")
        bundle = Bundle.open(root / "shop.hush", record=self._profile.hash_record)
        self._engine, self._items = Engine(bundle, self._profile), bundle.manifest.model.items
        self._ranking = bundle_ranking(bundle, self._engine) if self._blend else None
        unread = {"catalog.sqlite", *(() if self._blend else ("neighbours.bin",))}
        return [bundle.path(name) for name in bundle.manifest.files if name not in unread]

    def answer(self, history: Indexes) -> Indexes:
        from hushrec.ranking import Request
        from hushrec.topk import top_k

        if self._ranking is not None:
            return self._ranking.rank(Request(history, np.zeros(len(history), np.int64), K)).items
        scores = self._engine.scores(history)
        scores[0] = -np.inf
        scores[self._items + 1 :] = -np.inf
        return top_k(scores, K)[0]


class Graphs:
    """An export in ONNX Runtime, its ten best by hushrec's own top-k, which is faster than NumPy's or a TopK node.

    Args:
        folder: Where its files are in the shop's folder.
    """

    imports: tuple[str, ...] = ("onnxruntime", "graph_peer", "hushrec.topk")

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def write(self, root: Path) -> None:
        import float_peers
        from engine_shop import open_shop
        from hushrec.weights.encoder import EncoderWeights

        shop = open_shop(root)
        make = {"torch.onnx": float_peers.torch_file, "by hand": float_peers.plain_files}
        write = make.get(self._folder, float_peers.rearranged_files)
        write(root / self._folder, EncoderWeights.of(shop.weights), shop.rows)

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        return self._open(root, self._folder, variant)

    def _open(self, root: Path, folder: str, level: str) -> list[Path]:
        from graph_peer import GraphPeer

        (items, longest), found = shop_size(root), root / folder
        names = ["model.onnx"] if (found / "model.onnx").exists() else ["encoder.onnx", "scorer.onnx"]
        if folder == "rearranged":  # one graph from history to scores; its encoder serves the other peers
            names = ["scorer.onnx"]
        self._peer = GraphPeer([found / name for name in names], items + 1, longest, level)
        return sorted(found.iterdir())

    def answer(self, history: Indexes) -> Indexes:
        from hushrec.topk import top_k

        scores = self._peer.run(history)
        scores[0] = -np.inf
        return top_k(scores, K)[0]


class QuantizedGraphs(Graphs):
    """ONNX Runtime's quantize_dynamic over an export, as a whole; a variant is the export."""

    def __init__(self) -> None:
        super().__init__("quantized")

    def write(self, root: Path) -> None:
        from float_peers import quantized_files

        for source in QUANTIZED:
            names = ["model.onnx"] if source == "torch.onnx" else ["encoder.onnx", "scorer.onnx"]
            quantized_files([root / source / name for name in names], root / f"{self._folder} {source}")

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        return self._open(root, f"{self._folder} {variant}", "all")  # only then are its operators joined


class Torch:
    """torch eager."""

    imports: tuple[str, ...] = ("torch", "torch_network")

    def write(self, root: Path) -> None:
        import torch
        from engine_shop import open_shop

        shop = open_shop(root)
        arrays = {**shop.weights, "rows": shop.rows}
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, root / "torch.pt")

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        import torch
        from torch_network import Network

        torch.set_num_threads(1)
        attention, reading = variant.split(", ")
        saved = torch.load(root / "torch.pt", mmap=reading == "mapped", weights_only=True)
        arrays = {name: tensor.numpy() for name, tensor in saved.items()}
        self._network = Network(arrays, arrays.pop("rows"), fused=attention == "fused attention").eval()
        self._longest, self._mode = int(arrays["0.bias"].shape[1]), torch.inference_mode
        return [root / "torch.pt"]

    def answer(self, history: Indexes) -> Indexes:
        import torch

        with self._mode():
            scores = self._network(torch.from_numpy(history[-self._longest :])[None])[0]
            scores[0] = -torch.inf
            found: Indexes = torch.topk(scores, K).indices.numpy()
            return found


class BehindEncoder:
    """The float32 encoder in ONNX Runtime, and something else that looks for the nearest rows."""

    imports: tuple[str, ...] = ("onnxruntime", "graph_peer")

    def write(self, root: Path) -> None:
        """Reads the files of hushrec's graph in float32."""

    def _open_encoder(self, root: Path) -> list[Path]:
        from graph_peer import GraphPeer
        from hushrec.tables import WIDTH

        self._items, longest = shop_size(root)
        encoder = root / "rearranged" / "encoder.onnx"
        self._encoder = GraphPeer([encoder], WIDTH, longest, ENCODER_LEVEL)
        return [encoder, root / "rearranged" / "encoder.bin", root / TABLE]


class NumPy(BehindEncoder):
    """A float32 product in NumPy; the table is the file that the encoder gathers from."""

    imports: tuple[str, ...] = ("onnxruntime", "graph_peer", "hushrec.topk")

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        from hushrec.tables import WIDTH

        best, reading = variant.split(", ")
        files = self._open_encoder(root)
        shape = (self._items + 1, WIDTH)
        table = np.asarray(np.memmap(root / TABLE, np.float32, "r", shape=shape))
        self._table: Floats = table if reading == "mapped" else np.fromfile(root / TABLE, np.float32).reshape(shape)
        self._scores = np.empty(self._items + 1, np.float32)
        self._strips = best == "strips"
        return files

    def answer(self, history: Indexes) -> Indexes:
        from hushrec.topk import top_k

        scores = np.dot(self._table, self._encoder.run(history), out=self._scores)
        scores[0] = -np.inf
        if self._strips:
            return top_k(scores, K)[0]
        found = np.argpartition(scores, -K)[-K:]
        order: Indexes = found[np.argsort(-scores[found])]
        return order


class Reference(NumPy):
    """float32 scores and the blend's counts: what the lists of hushrec with its blend are compared with."""

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        from hushrec.bundle import Bundle
        from hushrec.counts import Blend
        from hushrec.ranking import ranking_arrays

        bundle = Bundle.open(root / "shop.hush")
        self._blend = Blend(bundle.manifest.blend, ranking_arrays(bundle))
        return super().open(root, variant)

    def answer(self, history: Indexes) -> Indexes:
        from hushrec.topk import top_k

        scores = np.dot(self._table, self._encoder.run(history), out=self._scores)
        self._blend.add_to(scores, history)
        scores[0] = -np.inf
        return top_k(scores, K)[0]


class Faiss(BehindEncoder):
    """faiss: every row is looked at, in float32 ("flat") or rounded by its scalar quantizer.

    Args:
        kinds: Names of the indexes to write.
    """

    imports: tuple[str, ...] = ("onnxruntime", "graph_peer", "faiss")

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds

    def write(self, root: Path) -> None:
        import faiss
        from engine_shop import open_shop
        from hushrec.tables import WIDTH

        rows = open_shop(root).rows[1:]
        for kind in self._kinds:
            index = faiss.IndexFlatIP(WIDTH)
            if kind != "flat":
                rounding = getattr(faiss.ScalarQuantizer, kind)
                index = faiss.IndexScalarQuantizer(WIDTH, rounding, faiss.METRIC_INNER_PRODUCT)
            index.train(rows)
            index.add(rows)
            faiss.write_index(index, str(root / f"faiss.{kind}"))

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        import faiss

        faiss.omp_set_num_threads(1)
        kind, _, reading = variant.partition(", ")
        path = root / f"faiss.{kind}"
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if reading == "mapped" else 0)
        return [*self._open_encoder(root), path]

    def answer(self, history: Indexes) -> Indexes:
        _, found = self._index.search(self._encoder.run(history)[None], K)
        items: Indexes = found[0] + 1
        return items


class USearch(BehindEncoder):
    """usearch: its exact search, over an index (whose graph, as small as it can be, is not used) or over a matrix.

    Args:
        kinds: How an index stores values.
    """

    # in this order: ONNX Runtime crashes if it is imported after usearch
    imports: tuple[str, ...] = ("onnxruntime", "graph_peer", "usearch.index")

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds

    def write(self, root: Path) -> None:
        from engine_shop import open_shop
        from hushrec.tables import WIDTH
        from usearch.index import Index

        rows = open_shop(root).rows[1:]
        for kind in self._kinds:
            index = Index(ndim=WIDTH, metric="ip", dtype=kind, connectivity=2, expansion_add=2)
            index.add(np.arange(1, len(rows) + 1), rows)
            index.save(str(root / f"usearch.{kind}"))

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        from hushrec.tables import WIDTH
        from usearch.index import Index, MetricKind, search

        kind, over, _ = variant.split(", ")
        files = self._open_encoder(root)
        if over == "matrix":
            table: Floats = np.memmap(root / TABLE, np.float32, "r", shape=(self._items + 1, WIDTH))[1:]
            self._search: Callable[[Floats], Any] = lambda user: (
                search(table, user, K, MetricKind.IP, exact=True, threads=1).keys + 1
            )
            return files
        path = root / f"usearch.{kind}"
        index = Index.restore(str(path), view=variant.endswith("mapped"))
        self._search = lambda user: index.search(user, K, exact=True, threads=1).keys
        return [*files, path]

    def answer(self, history: Indexes) -> Indexes:
        found: Indexes = self._search(self._encoder.run(history)).astype(np.int64)
        return found


class Floor:
    """Reading the int8 table's 64 bytes an item once, and nothing else."""

    imports: tuple[str, ...] = ("hushrec.bundle",)

    def write(self, root: Path) -> None:
        """Reads the bundle."""

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        from hushrec.bundle import Bundle

        bundle = Bundle.open(root / "shop.hush")
        codes = np.maximum(bundle.array("items.codes").ravel()[: 64 * bundle.manifest.model.items], 1)
        self._read = reader(codes, variant)
        return [bundle.path("items.bin")]

    def answer(self, history: Indexes) -> Indexes:
        self._read()
        return history


def _products(*settings: Sequence[str]) -> tuple[str, ...]:
    found = [""]
    for values in settings:
        found = [f"{before}, {value}" if before else value for before in found for value in values]
    return tuple(found)


READING = ("mapped", "read")
LEVELS = ("basic", "extended", "all")
QUANTIZED = ("torch.onnx", "by hand")
FAISS_ROUNDED = ("QT_8bit", "QT_8bit_uniform", "QT_fp16", "QT_bf16")
USEARCH_ROUNDED = ("f16", "bf16", "i8")
USEARCH = ("f32, matrix, mapped", *_products(("f32",), ("index",), READING))

KINDS: dict[str, Kind] = {
    "hushrec, blend off": Kind(lambda: Hushrec(blend=False), "ours"),
    "hushrec, blend on": Kind(lambda: Hushrec(blend=True), "ours"),
    "ONNX Runtime fp32, hushrec's graph": Kind(lambda: Graphs("rearranged"), "exact", LEVELS, family="ONNX Runtime"),
    "ONNX Runtime fp32, by hand": Kind(lambda: Graphs("by hand"), "exact", LEVELS, family="ONNX Runtime"),
    "ONNX Runtime fp32, torch.onnx": Kind(lambda: Graphs("torch.onnx"), "exact", LEVELS, family="ONNX Runtime"),
    "ONNX Runtime quantize_dynamic": Kind(QuantizedGraphs, "rounded", QUANTIZED),
    "torch eager": Kind(
        Torch, "exact", _products(("fused attention", "attention written out"), READING), family="torch"
    ),
    "NumPy": Kind(NumPy, "exact", _products(("argpartition", "strips"), READING), family="NumPy"),
    "faiss exact": Kind(lambda: Faiss(["flat"]), "exact", _products(("flat",), READING), "faiss", "faiss"),
    "faiss scalar quantizer": Kind(lambda: Faiss(FAISS_ROUNDED), "rounded", FAISS_ROUNDED, "faiss"),
    "usearch exact": Kind(lambda: USearch(["f32"]), "exact", USEARCH, "usearch", "usearch"),
    "usearch exact, fewer bits": Kind(
        lambda: USearch(USEARCH_ROUNDED), "rounded", _products(USEARCH_ROUNDED, ("index",), READING), "usearch"
    ),
    **{f"floor: {way}": Kind(Floor, "floor", (way,)) for way in WAYS},
}

REFERENCES = {"float32 and counts": Kind(Reference, "reference", ("strips, mapped",))}


if __name__ == "__main__":
    serve({**KINDS, **REFERENCES})
