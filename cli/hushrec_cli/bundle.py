"""Commands about finished bundles: look into one and verify it, make one zip of it, and take it out again."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import Cell, person_cell, print_data, print_json, print_table, say

if TYPE_CHECKING:
    from hushrec.bundle import Bundle
    from hushrec.manifest import Manifest

__all__ = ["inspect", "pack", "unpack"]

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")]


def inspect(bundle: BundleArgument, as_json: Json = False) -> None:
    """Show what a bundle holds, and verify it.

    Example: hushrec inspect shop.hush
    """
    from hushrec.bundle import Bundle

    opened = Bundle.open(bundle, verify=True)
    if as_json:
        print_json(_description(opened))
        return
    say(f"verified: {len(opened.manifest.files)} files, every byte as the manifest says")
    print_data(str(opened.manifest.card["headline"]))
    print_table(["property", "value"], _pairs(_properties(opened)))
    print_data("")
    rows: list[list[Cell]] = [
        [name, info.size, info.origin, info.sha256[:16]] for name, info in opened.manifest.files.items()
    ]
    print_table(["file", "bytes", "origin", "sha256 begins"], rows)


def _properties(bundle: "Bundle") -> dict[str, Any]:
    manifest, model = bundle.manifest, bundle.manifest.model
    card = {key: value for key, value in manifest.card.items() if key != "headline"}
    return {
        "format": manifest.format,
        "model version": manifest.model_version,
        "bytes": bundle.size,
        "items": model.items,
        "room for items": model.capacity - 1,
        "longest history": model.max_history,
        "layers": model.layers,
        "width": model.width,
        "behaviors": ", ".join(model.behaviors),
        "leaves out seen items": model.filter_seen,
        "trains on devices": _trainable(manifest),
        "blend": ", ".join(f"{part.name} {part.weight:g}" for part in manifest.blend) or "the Transformer alone",
        "architecture": model.architecture[:16],
        "sha256": bundle.sha256,
        **dict(_flat("card", card)),
    }


def _trainable(manifest: "Manifest") -> str:
    """Numbers of each part that a plan can train; what `privacy plan --parameters` wants."""
    from hushrec.federated.layout import ParameterLayout
    from hushrec_privacy.errors import BundleError, ConfigError
    from hushrec_privacy.plans.plan import PARTS

    sizes = []
    for part in PARTS:
        try:
            sizes.append(f"{part} {ParameterLayout.of(manifest, part).size:,}")
        except (BundleError, ConfigError):  # the bundle cannot train, or not so many
            continue
    return ", ".join(sizes) or "no"


def _pairs(properties: dict[str, Any]) -> list[list[Cell]]:
    return [[key, _text(value)] for key, value in properties.items()]


def _text(value: object) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, (str, int)) else None


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    """What a card holds, a line a value.

    >>> dict(_flat("card", {"test_from": None, "verification": {"queries": 1997, "shapes": [1, 2]}}))
    {'card: test from': None, 'card: verification: queries': 1997, 'card: verification: shapes': '1, 2'}
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}: {str(key).replace('_', ' ')}", inner)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (dict, list, tuple)) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _flat(f"{name} {number}", inner)
    elif isinstance(value, (list, tuple)):
        texts = [person_cell(_text(inner)) for inner in value]
        yield name, ("; " if any(", " in text for text in texts) else ", ").join(texts) or None
    else:
        yield name, value


def _description(bundle: "Bundle") -> dict[str, Any]:
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
    return {**described, "bytes": bundle.size, "sha256": bundle.sha256, "verified": True}


def pack(
    bundle: BundleArgument,
    out: Annotated[Path | None, typer.Option(help="The zip file; default: the bundle's name with .zip.")] = None,
    as_json: Json = False,
) -> None:
    """Make one zip file of a bundle.

    Example: hushrec pack shop.hush --out shop.zip
    """
    from hushrec import packing

    target = out if out is not None else bundle.with_name(bundle.name + ".zip")
    packing.pack(bundle, target)
    _report("packed", target, target.stat().st_size, as_json=as_json)


def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ZIP", help="A zip file made by `hushrec pack`.")],
    out: Annotated[Path | None, typer.Option(help="The folder to make; default: the zip's name without .zip.")] = None,
    as_json: Json = False,
) -> None:
    """Take a bundle out of its zip file and verify it.

    Example: hushrec unpack shop.zip --out shop.hush
    """
    from hushrec import packing
    from hushrec.bundle import Bundle

    target = out if out is not None else archive.with_suffix("")
    packing.unpack(archive, target)
    _report("unpacked", target, Bundle.open(target).size, as_json=as_json)


def _report(verb: str, target: Path, size: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(target), "bytes": size})
    else:
        say(f"{verb} {size:,} bytes")
        print_data(str(target))
