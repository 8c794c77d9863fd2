"""The manifest of a bundle: what it holds, and the bytes it is written as.

One line of JSON whose last field is the sha256 of the bytes before it, so that hashing finds any flipped byte, in the
manifest or through its hashes in any other file. This is integrity against damage; who made a bundle is the release
repository's business. The rule of the last field holds for every format version. Reads and writes no file: see
`hushrec.bundle`. docs/bundle-format.md is the same for other languages.
"""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from hushrec_privacy.errors import BundleError

__all__ = [
    "ALIGNMENT",
    "FORMAT",
    "MANIFEST_NAME",
    "MAX_MANIFEST_BYTES",
    "NO_GUARANTEE",
    "ArrayInfo",
    "BlendPart",
    "FileInfo",
    "Manifest",
    "ModelInfo",
    "architecture_sha256",
    "array_bytes",
    "check_manifest",
    "decode_manifest",
    "encode_manifest",
    "unguaranteed",
]

FORMAT = "3.0"
"""Written format version, "major.minor": a reader refuses another major and ignores fields of a newer minor."""

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
NO_GUARANTEE = "no guarantee for this bundle"
"""The card's headline while any part comes from the log without differential privacy, or parts are of several runs."""

ALIGNMENT = 64
REQUIRED_GRAPHS = ("encoder.onnx", "scorer.onnx", "blocks.onnx")
REQUIRED_FILES = (*REQUIRED_GRAPHS, "items.bin", "catalog.sqlite")
REQUIRED_ARRAYS = ("items.codes", "items.scale", "popularity")
GRAPHS = (*REQUIRED_GRAPHS, "train_step.onnx")
"""The last one may be missing: then a device recommends and does not train."""


_ITEM_BYTES = {"<f4": 4, "|u1": 1, "<u4": 4}
_FILE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_ORIGIN = re.compile(r"public|private|dp\([A-Za-z0-9._-]{1,100}\)")
_HEX = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ',"sha256":"{}"}}\n'
_SUFFIX_BYTES = len(_SUFFIX.format("0" * 64))

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class FileInfo(msgspec.Struct, frozen=True):
    """One file of the bundle.

    Attributes:
        size: Bytes.
        sha256: Of the whole file, lower-case hex.
        origin: "public", "dp(run)" or "private": what its content may say about the shoppers in the log.
    """

    size: Count
    sha256: str
    origin: str


class ArrayInfo(msgspec.Struct, frozen=True):
    """One array inside a file, C order, little endian.

    Attributes:
        file: Name of the file.
        offset: Bytes from its start, a multiple of 64.
        dtype: "<f4" float32, "|u1" uint8, "<u4" uint32.
        shape: Lengths, outermost first.
    """

    file: str
    offset: Count
    dtype: Literal["<f4", "|u1", "<u4"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)], ...]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime has to know of the network.

    Attributes:
        width: D, of the item and user vectors.
        layers: Transformer layers left after pruning.
        max_history: L, the most recent events the encoder takes.
        items: V; the indexes 1..V are items, 0 is "outside the catalogue".
        capacity: Rows of the item table and length of the scores; rows above V are spare.
        behaviors: Names of the kinds of event, by index; the encoder has a second input if there is more than one.
        filter_seen: Whether `recommend` leaves out seen items unless told otherwise.
        times: Whether training had times; if not, no score may depend on the age of an event.
        architecture: sha256 over the graphs; `write_bundle` fills it in.
    """

    width: Positive
    layers: Positive
    max_history: Positive
    items: Positive
    capacity: Positive
    behaviors: tuple[str, ...] = ("view",)
    filter_seen: bool
    times: bool
    architecture: str = ""


class BlendPart(msgspec.Struct, frozen=True):
    """One part of the blend: adds weight · log1p(x / epsilon) to the scores, x being what `hushrec.counts` says of the
    part.

    Attributes:
        name: Which counts: own, transitions, successors, item_knn, similar, popularity or unseen.
        weight: In units of the Transformer's scores.
        epsilon: Count at which the logarithm starts to bend.
        decay: Weight of an event against the next younger one.
        window: How many of the last events count; 0: all.
    """

    name: str
    weight: float
    epsilon: float
    decay: float = 1.0
    window: Count = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the manifest says but its own hash.

    Attributes:
        format: "major.minor" of the bundle format.
        model_version: Rises by one at each release; a device refuses a lower one.
        card: The model card, JSON values; "headline" comes first.
        model: See `ModelInfo`.
        blend: See `BlendPart`.
        arrays: By name, e.g. "items.codes".
        files: By name; all but the manifest itself. `write_bundle` fills it in.
    """

    format: str = FORMAT
    model_version: Positive = 1
    card: dict[str, Any] = {}
    model: ModelInfo
    blend: tuple[BlendPart, ...] = ()
    arrays: dict[str, ArrayInfo]
    files: dict[str, FileInfo] = {}


class _Head(msgspec.Struct):
    format: str


_head_decoder = msgspec.json.Decoder(_Head)
_decoder = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as its canonical bytes: fields in the order of the classes, names of files and arrays sorted.

    Raises:
        BundleError: The manifest would not be read back (see `check_manifest`), or is above `MAX_MANIFEST_BYTES`.
    """
    check_manifest(manifest, MANIFEST_NAME)
    card = {"headline": manifest.card["headline"], **manifest.card}
    ordered = msgspec.structs.replace(
        manifest, card=card, arrays=dict(sorted(manifest.arrays.items())), files=dict(sorted(manifest.files.items()))
    )
    body = msgspec.json.encode(ordered)[:-1]
    if len(body) + _SUFFIX_BYTES > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST_NAME}: {len(body)} bytes; at most {MAX_MANIFEST_BYTES} are allowed: shorten the card"
        )
    return body + _SUFFIX.format(_sha256(body)).encode()


def decode_manifest(
    data: bytes, where: str = MANIFEST_NAME, *, verified_sha256: str | None = None
) -> tuple[Manifest, str]:
    """Read and check the bytes of a manifest.

    Args:
        data: The whole file.
        where: Path of the file, for messages.
        verified_sha256: The hash that was found right earlier, if the caller knows that the file has not changed since:
            switches the check off while the file ends with it.

    Returns:
        The manifest and the sha256 that it ends with, which names this exact bundle.

    Raises:
        BundleError: Damaged, of another major version, or not consistent in itself (see `check_manifest`).
    """
    if not _SUFFIX_BYTES < len(data) <= MAX_MANIFEST_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes is not the size of a manifest; fetch the bundle again")
    body = data[:-_SUFFIX_BYTES]
    suffix = data[-_SUFFIX_BYTES:]
    unknown = verified_sha256 is None or suffix != _SUFFIX.format(verified_sha256).encode()
    digest = _sha256(body) if unknown else str(verified_sha256)
    if suffix != _SUFFIX.format(digest).encode():
        raise BundleError(f"{where}: its own hash does not match, the file is damaged; fetch the bundle again")
    try:
        found = _head_decoder.decode(data).format
        if found.partition(".")[0] != FORMAT.partition(".")[0]:
            advice = "make the bundle anew by hushrec quantize" if found.startswith("1.") else "update hushrec"
            raise BundleError(f"{where}: format {found!r}; this hushrec reads {FORMAT} and newer minors: {advice}")
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(f"{where}: not a manifest ({error})") from error
    check_manifest(manifest, where)
    return manifest, digest


def check_manifest(manifest: Manifest, where: str) -> None:
    """Check that what a manifest says fits together.

    Args:
        manifest: With its files filled in.
        where: Path of the file, for messages.

    Raises:
        BundleError: A file name leaves the bundle or is not plain; a hash, origin or number has the wrong form; a part
            is missing; an array leaves its file, is not aligned, or has a shape that contradicts the model; the card
            claims more than the origins allow.
    """
    for find_problem in (_file_problem, _array_problem, _model_problem):  # each relies on the ones before
        if problem := find_problem(manifest):
            raise BundleError(f"{where}: {problem}")


def array_bytes(info: ArrayInfo) -> int:
    """Count the bytes an array takes.

    >>> array_bytes(ArrayInfo("items.bin", 0, "<f4", (3, 2)))
    24
    """
    return math.prod(info.shape) * _ITEM_BYTES[info.dtype]


def unguaranteed(origins: Iterable[str]) -> bool:
    """Whether parts of these origins have no guarantee together: one is private, or they come from several runs, of
    which a card counts one.

    >>> unguaranteed(["public", "dp(a)", "dp(a)"]), unguaranteed(["dp(a)", "dp(b)"]), unguaranteed(["private"])
    (False, True, True)
    """
    found = set(origins) - {"public"}
    return "private" in found or len(found) > 1


def architecture_sha256(*graphs: bytes) -> str:
    """Hash the graphs, in the order of `GRAPHS`, which stay the same over all releases of one architecture."""
    return _sha256(b"".join(graphs))


def _sha256(data: bytes) -> str:
    import hashlib  # loads OpenSSL: 2.5 ms of a start that has nothing to hash

    return hashlib.sha256(data).hexdigest()


def _file_problem(manifest: Manifest) -> str | None:
    for name, info in manifest.files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
            return f"file name {name[:120]!r} could leave the bundle; names are plain, lower-case, without folders"
        if not _HEX.fullmatch(info.sha256):
            return f"{name}: its sha256 is not 64 lower-case hex digits"
        if not _ORIGIN.fullmatch(info.origin):
            return f"{name}: origin {info.origin[:120]!r} is none of public, dp(run), private"
    missing = [name for name in REQUIRED_FILES if name not in manifest.files]
    if missing:
        return f"lists no {', '.join(missing)}"
    headline = manifest.card.get("headline")
    none = unguaranteed(info.origin for info in manifest.files.values())
    if not isinstance(headline, str) or (none and headline != NO_GUARANTEE):
        return f"the card's headline is not {NO_GUARANTEE!r}, as it must with a private part or of several runs"
    return None


def _array_problem(manifest: Manifest) -> str | None:
    for name, info in manifest.arrays.items():
        if info.file not in manifest.files:
            return f"array {name!r} is in {info.file[:120]!r}, which is not a file of the bundle"
        if info.offset % ALIGNMENT:
            return f"array {name!r} starts at {info.offset}, which is not a multiple of {ALIGNMENT}"
        if info.offset + array_bytes(info) > manifest.files[info.file].size:
            return f"array {name!r} leaves its file {info.file}"
    missing = [name for name in REQUIRED_ARRAYS if name not in manifest.arrays]
    return f"lists no array {', '.join(missing)}" if missing else None


def _model_problem(manifest: Manifest) -> str | None:
    model = manifest.model
    if model.capacity < model.items + 1:
        return f"capacity {model.capacity} is too small for {model.items} items and row 0"
    if not _HEX.fullmatch(model.architecture):
        return "the model's architecture is not 64 lower-case hex digits"
    if not model.behaviors or len(set(model.behaviors)) < len(model.behaviors):
        return "the model's behaviors are empty or not distinct"
    for part in manifest.blend:
        if not all(math.isfinite(value) for value in (part.weight, part.epsilon, part.decay)) or part.epsilon <= 0:
            return f"blend part {part.name!r}: weight, epsilon and decay must be finite and epsilon above 0"
    expected = {"items.codes": (model.capacity, model.width), "items.scale": (1,)}
    expected["popularity"] = (model.items + 1,)
    for name, shape in expected.items():
        if manifest.arrays[name].shape != shape:
            return f"array {name!r} has shape {manifest.arrays[name].shape}; the model needs {shape}"
    return None
