"""The commands `fleet ...`: what an app ships so that its devices trust one shop."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from hushrec_privacy.errors import ConfigError

from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, say, write_file

__all__ = ["app", "file", "fleet"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_KEY = re.compile(r"[0-9a-f]{64}")


@app.callback()
def fleet() -> None:
    """The fleet file: whose plans, certificates and releases an app believes.

    Example: hushrec fleet file --server shop --plan-key plan.pub --root 1.root.json --authority https://authority.example
    """


@app.command()
def file(
    server: Annotated[str, typer.Option(help="The server's name, as its configuration says it.")],
    plan_key: Annotated[
        str, typer.Option(metavar="FILE|HEX", help="Public half of the plan key: plan.pub, or 64 hexadecimal digits.")
    ],
    root: Annotated[Path, typer.Option(metavar="FILE", help="Root metadata of the release repository.")],
    authority: Annotated[str, typer.Option(metavar="URL", help="Where the authority gives certificates.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")] = Path("fleet.json"),
    as_json: Json = False,
) -> None:
    """Write the fleet file, which ships inside the app: it is what devices believe, and they believe nothing else.

    Example: hushrec fleet file --server shop --plan-key plan.pub --root 1.root.json --authority https://authority.example
    """
    from hushrec.fleet.fleet_file import FleetFile

    made = FleetFile(server, _plan_key(plan_key), authority, _root(root))
    write_file(out, made.encode())
    if as_json:
        print_json({"file": str(out), "server": made.server, "plan_key": made.plan_key, "authority": made.authority})
        return
    say("ship it inside the app; whoever can change it there could change the app")
    print_data(str(out))


def _plan_key(text: str) -> str:
    return text if _KEY.fullmatch(text) else _text(Path(text), "plan key's public half").strip()


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the {name} is no text; is this a secret key, or another file?") from error


def _root(path: Path) -> str:
    """Its text; refused here, since an app that shipped with another file would take no release."""
    text = _text(path, "root metadata")
    try:
        fits = json.loads(text)["signed"]["_type"] == "root"
    except (ValueError, TypeError, LookupError, RecursionError):
        fits = False
    if not fits:
        raise ConfigError(f"{path}: this is no root metadata; name metadata/1.root.json of the release repository")
    return text
