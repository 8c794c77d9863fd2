"""The entry point: wires the commands, and turns every error into one clear message and an exit code.

Starting is cheap: a command's libraries are imported when it runs, so `hushrec --help` works without extras.
"""

import os
import re
import sys
import traceback
from typing import Annotated

import typer
from hushrec_privacy.errors import HushrecError

from hushrec_cli import (
    authority,
    bundle,
    demo,
    envelope,
    evaluate,
    fleet,
    join,
    privacy,
    privacy_audit,
    privacy_ledger,
    privacy_plan,
    privacy_receipt,
    quantize,
    recommend,
    release,
    serve,
    train,
)
from hushrec_cli.output import print_data, say

__all__ = ["EXIT_BUG", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "app", "run"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="hushrec",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(quantize.quantize)
app.command()(bundle.inspect)
app.command()(bundle.pack)
app.command()(bundle.unpack)
app.command()(recommend.recommend)
privacy.app.command()(privacy_plan.plan)
privacy.app.command()(privacy_plan.sign)
privacy.app.command()(privacy_ledger.report)
privacy.app.command()(privacy_receipt.receipt)
privacy.app.command()(privacy_ledger.card)
privacy.app.add_typer(privacy_audit.audit_app, name="audit")
privacy.app.add_typer(privacy_ledger.ledger_app, name="ledger")
app.command()(join.join)
app.command()(serve.serve)
app.add_typer(authority.app, name="authority")
app.add_typer(envelope.app, name="envelope")
app.add_typer(fleet.app, name="fleet")
app.add_typer(privacy.app, name="privacy")
app.add_typer(release.app, name="release")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # slow to import

        print_data(f"hushrec {metadata.version('hushrec')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Recommendations computed on the shopper's own device.

    From a shop's event log to a small int8 model in a bundle, and from the bundle to recommendations.

    Example: hushrec demo
    """


def run() -> None:
    """Run the command line and end the process with the exit code that docs/cli.md lists."""
    code = _run_app()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
        code = EXIT_FAILED
    sys.exit(code)


def _run_app() -> int:
    try:
        app(prog_name="hushrec")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except HushrecError as error:
        return _complain(error.message, error.exit_code)
    except OSError as error:
        return _complain(_system_message(error), EXIT_FAILED)
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "")
        if extra is not None:
            advice = f"this command needs {error.name}; install it with: pip install 'hushrec[{extra}]'"
            return _complain(advice, EXIT_USAGE)
        traceback.print_exc()
    except Exception:  # noqa: BLE001  the last line of defence: shown whole
        traceback.print_exc()
    return _complain(
        "this is a bug in hushrec, not a mistake of yours; please report it with the lines above", EXIT_BUG
    )


def _complain(message: str, code: int) -> int:
    say(f"hushrec: {message}")
    return code


def _system_message(error: OSError) -> str:
    """What the operating system refused, and on which file.

    >>> _system_message(PermissionError(13, "Permission denied", "shop.hush"))
    'shop.hush: Permission denied'
    """
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def _extra_with(module: str) -> str | None:
    """The extra that brings a library, read from the installed package; None: no extra does.

    >>> _extra_with("torch.nn"), _extra_with("no_such_module")
    ('train', None)
    """
    from importlib import metadata  # slow to import, and needed only for an error text

    extras: dict[str, set[str]] = {}
    for requirement in metadata.requires("hushrec") or []:
        found = re.match(r"([\w-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if found is not None:
            extras.setdefault(found[2], set()).add(found[1])
    wanted = module.partition(".")[0]
    # Extras contain each other, and the package lists them flat: the smallest is meant, and "all" only if alone.
    bringing = sorted((len(extras[extra]), extra == "all", extra) for extra in extras if wanted in extras[extra])
    return bringing[0][2] if bringing else None
