"""The commands `authority ...`: whoever says which devices are real, apart from the server."""

import time
from pathlib import Path
from typing import Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, say
from hushrec_cli.serve import tell_ready

__all__ = ["app", "authority", "init", "issue", "serve"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the authority.")]


@app.callback()
def authority() -> None:
    """The authority: one certificate for every account and plan, from a key that the server does not have.

    Example: hushrec authority init authority
    """


@app.command()
def init(folder: Folder, as_json: Json = False) -> None:
    """Make an authority: its keys, readable by their owner alone, and the public half that plans name.

    Not in a server's data folder: whoever has both can make up devices.

    Example: hushrec authority init authority
    """
    from hushrec_server.apart import refuse_data_folder
    from hushrec_server.authority import AUTHORITY_PUBLIC, create_authority

    refuse_data_folder(folder)
    public = create_authority(folder).hex()
    if as_json:
        print_json({"folder": str(folder), "public_key": public, "login_key": str(folder / "login.key")})
        return
    say(f"{folder / 'authority.key'}: certifies devices; keep it away from the server")
    say(f"{folder / 'pseudonyms.key'}: without it nobody can tell whose pseudonym is whose")
    say(f"{folder / 'login.key'}: give a copy to the shop's login, which vouches for accounts with it")
    say(f"{folder / AUTHORITY_PUBLIC}: the public half, for plans; it is:")
    print_data(public)


@app.command()
def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address to listen at, behind a proxy that ends TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any free one.")] = 8471,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="A proxy, or a network of them, whose X-Forwarded-For is believed. Can be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give certificates over HTTP to whoever brings a token of the shop's login.

    Example: hushrec authority serve authority --port 8471
    """
    from hushrec_server.authority import Authority
    from hushrec_server.authority_app import AUTHORITY_LIMITS, authority_app
    from hushrec_server.data_folder import say_if_open
    from hushrec_server.logs import start_logging
    from hushrec_server.proxies import checked_proxies
    from hushrec_server.serving import bound_socket, run_server

    proxies = checked_proxies(proxy or ())
    opened = Authority(folder, clock=time.time)
    say_if_open(folder, say)
    try:
        with bound_socket(host, port) as taken:
            start_logging()
            run_server(
                authority_app(opened),
                taken,
                AUTHORITY_LIMITS,
                proxies=proxies,
                ready=lambda url: tell_ready(url, as_json),
            )
    finally:
        opened.close()


@app.command()
def issue(
    folder: Folder,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The shop's name of an account.")],
    plan_id: Annotated[str, typer.Option(metavar="ID", help="Plan to enrol for, 64 hexadecimal digits.")],
    minutes: Annotated[int, typer.Option(min=1, max=1_440, help="How long the token works.")] = 10,
    as_json: Json = False,
) -> None:
    """Issue a login token for one account, as the shop's own login does: for trials, or by hand.

    Example: hushrec authority issue authority ann --plan-id 3f0c…
    """
    from hushrec_server.authority import Authority

    opened = Authority(folder, clock=time.time)
    try:
        token = opened.token(account, plan_id, valid_s=minutes * 60)
    finally:
        opened.close()
    print_json({"token": token, "valid_s": minutes * 60}) if as_json else print_data(token)
