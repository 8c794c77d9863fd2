"""The commands `envelope ...`: the server's envelope keys, made on the server and signed where the plan key is."""

import time
from pathlib import Path
from typing import Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import check_folder, print_data, print_json, say, write_file

__all__ = ["app", "envelope", "new", "sign"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_DAY_S = 86_400


@app.callback()
def envelope() -> None:
    """Envelope keys: what devices seal to, so that nothing between them and the server reads it.

    Example: hushrec envelope sign envelope-1.pub --key plan.key
    """


@app.command()
def new(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="The server's data folder.")],
    as_json: Json = False,
) -> None:
    """Make the server's next envelope key. It is used once it is signed and the server has been started again.

    Example: hushrec envelope new hushrec-data
    """
    from hushrec_server.apart import check_data_folder
    from hushrec_server.data_folder import new_envelope_key

    check_data_folder(data)
    public = new_envelope_key(data)
    if as_json:
        print_json({"public": str(public)})
        return
    say("sign it where the plan key is: hushrec envelope sign, with --before for the keys.json in use")
    print_data(str(public))


@app.command()
def sign(
    public: Annotated[Path, typer.Argument(metavar="PUBLIC", help="Public half, such as envelope-1.pub.")],
    key: Annotated[Path, typer.Option(help="The shop's plan key.")],
    server: Annotated[str, typer.Option(help="The server's name, as its configuration says it.")] = "hushrec",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long the key is used.")] = 365,
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The keys.json in use: its keys end after the overlap.")
    ] = None,
    overlap_days: Annotated[int, typer.Option(min=1, max=365, help="How long earlier keys still open.")] = 14,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write keys.json and plan.pub.")] = Path(),
    as_json: Json = False,
) -> None:
    """Sign a server's envelope key with the shop's plan key, and write keys.json and plan.pub for its data folder.

    Example: hushrec envelope sign envelope-1.pub --key plan.key --server shop.example
    """
    from hushrec_privacy.envelope import PUBLIC_KEY_BYTES
    from hushrec_privacy.plans.signing import PlanKey
    from hushrec_server.data_folder import KEYS_FILE, read_public_key
    from hushrec_server.key_sets import next_key_set, signed_key_set

    check_folder(out)
    secret = PlanKey.read(key)
    fresh = read_public_key(public, "envelope key's public half", PUBLIC_KEY_BYTES)
    key_set = next_key_set(
        fresh,
        server=server,
        at_s=int(time.time()),
        lifetime_s=days * _DAY_S,
        before=None if before is None else (before, secret.public()),
        overlap_s=overlap_days * _DAY_S,
    )
    keys, plan_key = out / KEYS_FILE, out / "plan.pub"
    write_file(keys, signed_key_set(secret, key_set))
    write_file(plan_key, secret.public().hex() + "\n")
    if as_json:
        print_json({"keys": str(keys), "plan_key": str(plan_key), "serial": key_set.serial, "server": server})
        return
    say(f"key set {key_set.serial} of {server}, {len(key_set.keys)} keys; put both files into the server's data folder")
    print_data(str(keys))
    print_data(str(plan_key))
