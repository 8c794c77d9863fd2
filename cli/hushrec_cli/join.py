"""The command `join`: this machine takes part as a device, and says what it does."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from hushrec_privacy.errors import ConfigError, EnrolmentError, FleetError

from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, say

if TYPE_CHECKING:
    from hushrec.fleet import Conditions, FleetClient, FleetStatus, Refusal

__all__ = ["join", "take_part"]

PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")
_LONGEST_SLEEP_S = 5.0


def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the shop's server.")],
    profile: Annotated[Path, typer.Option(metavar="FILE", help="The shopper's profile, which stays here.")],
    fleet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The shop's fleet file: whom this device believes. Default: fleet.json beside the profile.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A bundle to begin with. Default: the newest release.")
    ] = None,
    token: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Login tokens of the account, one a line; each plan needs its own, once."),
    ] = None,
    vault_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of the device's vault, made if missing. Default: the system's keyring."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one round, or when there is nothing to do.")] = False,
    as_json: Json = False,
) -> None:
    """Take part in a shop's fleet with this machine as the device. To run it is to agree.

    What leaves are signed requests, and vectors under masks that come off in the sum of many devices alone. Idle,
    charging and unmetered are taken as met. Ends with the device's privacy receipt. Keys, certificates and the record
    of participations lie sealed in PROFILE.fleet.

    Example: hushrec join https://learn.shop.example --profile ann.profile --token tokens.txt --once
    """
    from hushrec.addresses import checked_url
    from hushrec.fleet import FleetClient, FleetFile, FleetSettings
    from hushrec.profile import Profile
    from hushrec.recommender import Recommender

    checked_url(url)  # what can be seen to be wrong is refused before a file is made
    if token is not None:
        _read_tokens(token)
    settings = FleetSettings(
        trust=FleetFile.read(_fleet_file(profile) if fleet is None else fleet),
        folder=profile.with_name(profile.name + ".fleet"),
        vault_key=None if vault_key is None else _vault_key(vault_key),
    )
    shopper = Profile(profile) if bundle is None else Recommender.open(bundle, profile=profile)
    with shopper:
        client = FleetClient(
            url, shopper, settings, conditions=_all_met, token=lambda plan_id: _token(token, plan_id), consent=True
        )
        with client:
            say("this machine takes part from now on; idle, charging and unmetered are taken as met")
            ended = take_part(client, say, once=once)
            if once and not ended.rounds and ended.refusal is None:
                say("took part in no round: none takes this device in now")
            receipt = client.receipt()
    if as_json:
        print_json(ended._asdict() | {"refusal": None if ended.refusal is None else ended.refusal._asdict()})
    else:
        print_data(receipt.rstrip("\n"))
    if once and not ended.rounds and ended.refusal is not None:
        raise FleetError(f"took part in no round: {_explained(ended.refusal)}", reason=ended.refusal.reason)


def take_part(client: "FleetClient", tell: Callable[[str], None], *, once: bool) -> "FleetStatus":
    """Let a device do what there is to do, and tell each change in one line.

    Args:
        client: Opened, with consent.
        tell: Takes the lines.
        once: End after one round, or when there is nothing to do now; else when somebody interrupts (SIGINT, SIGTERM).

    Returns:
        How things were at the end.
    """
    last, told_phase = client.status(), 0
    with _terminated_as_interrupted():
        try:
            while True:
                wait = client.step()
                now = client.status()
                for line in _changes(last, now, told_phase, client.bundle):
                    tell(line)
                if once and (now.rounds or (wait and now.state != "round")):
                    return now
                told_phase = 0 if now.rounds != last.rounds else now.phase or told_phase
                last = now
                time.sleep(min(wait, _LONGEST_SLEEP_S))
        except KeyboardInterrupt:
            return client.status()


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, by which services are stopped, end this as Ctrl-C does: with a receipt."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _changes(before: "FleetStatus", now: "FleetStatus", told_phase: int, bundle: Path | None) -> list[str]:
    """Lines of what changed; a message that is tried again, after a refusal that is known, is no change."""
    lines = []
    if now.model_version != before.model_version:
        lines.append(f"model: release {now.model_version}, the bundle {bundle}")
    if now.phase not in (0, told_phase):
        lines.append(f"in a round: {PHASES[now.phase - 1]}, message {now.phase} of {len(PHASES)}")
    if now.rounds != before.rounds:
        lines.append(f"done: round {now.rounds} since the start; rho {now.rho_left} is left for this device's lifetime")
    if now.refusal is not None and now.refusal != before.refusal:
        lines.append(f"not now ({now.refusal.reason}): {_explained(now.refusal)}")
    return lines


def _explained(refusal: "Refusal") -> str:
    wrong_place = refusal.reason in ("not-found", "http-404")
    return refusal.text + ("; is this the address of the server, and not the authority's?" if wrong_place else "")


def _all_met() -> "Conditions":
    from hushrec.fleet import Conditions

    return Conditions(idle=True, charging=True, unmetered=True)


def _fleet_file(profile: Path) -> Path:
    found = profile.with_name("fleet.json")
    if not found.exists():
        raise ConfigError(
            f"{found}: there is no fleet file, which says whose plans, certificates and releases this device believes. "
            "The shop gives it out with its app, and makes it with: hushrec fleet file. Put it there, or name it with "
            "--fleet"
        )
    return found


def _token(path: Path | None, plan_id: str) -> str:
    from hushrec_privacy.enrolment import plan_of_token

    for_plan = f"for plan {plan_id}; the shop's login makes one: hushrec authority issue --plan-id {plan_id}"
    if path is None:
        raise EnrolmentError(f"this device has no certificate and no login token was given with --token {for_plan}")
    tokens = _read_tokens(path)
    found = next((token for token in reversed(tokens) if plan_of_token(token) == plan_id), None)  # the newest is last
    if found is None:
        raise EnrolmentError(f"{path}: none of its {len(tokens)} login tokens is {for_plan}")
    return found


def _read_tokens(path: Path) -> list[str]:
    """The login tokens of a file, oldest first; what else stands in it is left out."""
    from hushrec_privacy.enrolment import plan_of_token

    what = "tokens of the shop's login for this account, one a line, for each plan its own"
    try:
        words = path.read_text(encoding="ascii").split()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: does not exist; it should hold {what}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); it should hold {what}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: holds no login tokens; it should hold {what}") from error
    tokens = [word for word in words if plan_of_token(word) is not None]
    if words and not tokens:
        raise ConfigError(f"{path}: holds no login tokens; it should hold {what}")
    return tokens


def _vault_key(path: Path) -> bytes:
    from hushrec_privacy.key_files import create_key, read_key

    return read_key(path, "vault key") if path.exists() else create_key(path, "vault key")
