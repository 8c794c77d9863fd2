"""The command `serve`: the aggregation server."""

from pathlib import Path
from typing import Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, say

__all__ = ["serve", "tell_ready"]


def serve(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration, such as hushrec.toml. Default: defaults.")
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Database, without a password. Default: SQLite in the data folder."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keys, database and releases. Default: hushrec-data.")
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A plan to carry out, its .sig beside it. Can be repeated."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration with every default, and end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the aggregation server: rounds, enrolled devices, releases.

    The first start makes the server's keys in the data folder and says what else is needed. A line with the address
    goes to stdout when requests are answered; the log goes to stderr. SIGTERM finishes what has begun, and ends.

    Example: hushrec serve --config hushrec.toml --plan plan.json
    """
    from hushrec_server.config import TEMPLATE, read_config

    if print_config:
        print_json({"config": TEMPLATE}) if as_json else print_data(TEMPLATE.rstrip("\n"))
        return
    found = read_config(config, database=db, data=data, plans=tuple(plan or ()))
    from hushrec_server.assembly import assemble
    from hushrec_server.logs import start_logging
    from hushrec_server.serving import bound_socket, run_server

    taken = bound_socket(found.server.host, found.server.port)
    with taken:
        server = assemble(found, say)
        try:
            start_logging()
            proxies = found.server.proxies
            run_server(server.app, taken, found.limits, proxies=proxies, ready=lambda url: tell_ready(url, as_json))
        finally:
            server.close()


def tell_ready(url: str, as_json: bool) -> None:
    """Say that requests are answered: one line on stdout, at once."""
    print_json({"ready": True, "url": url}) if as_json else print_data(f"ready {url}")
    typer.get_text_stream("stdout").flush()
