"""The commands `release ...`: the repository that devices update from."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import print_data, print_json, print_table, say

if TYPE_CHECKING:
    from hushrec.releases import Release
    from hushrec_server.releases import Refreshed, ReleaseRepository

__all__ = ["app", "init", "list_releases", "prune", "publish", "refresh", "release", "rollback", "rotate"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Repository = Annotated[
    Path, typer.Argument(metavar="REPOSITORY", help="Folder of a release repository, such as releases.")
]
Keys = Annotated[
    list[Path],
    typer.Option("--keys", metavar="FOLDER", help="Folder with keys of the repository. Can be repeated."),
]


@app.callback()
def release() -> None:
    """Releases: what devices update from, signed.

    Example: hushrec release publish releases shop.hush --keys targets-key --keys online-key
    """


@app.command()
def init(
    repository: Annotated[Path, typer.Argument(metavar="REPOSITORY", help="Folder to make.")],
    offline_keys: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to put root.key and targets.key, to be carried away.")
    ],
    online_keys: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put online.key, which stays.")],
    as_json: Json = False,
) -> None:
    """Make a release repository and its keys.

    Example: hushrec release init releases --offline-keys safe --online-keys online
    """
    from hushrec_server.releases import ReleaseKeys, ReleaseRepository

    ReleaseRepository.check_place(repository, offline_keys, online_keys)
    keys = ReleaseKeys.create(offline_keys, online_keys)
    made = ReleaseRepository.create(repository, keys, clock=time.time)
    root = made.folder / "metadata" / "1.root.json"
    if as_json:
        print_json({"repository": str(made.folder), "root": str(root), "expires_at": _times(made.expires_at())})
        return
    say(f"{offline_keys / 'root.key'}: carry it away, two copies in two places; whoever has it owns every device")
    say(f"{offline_keys / 'targets.key'}: who publishes needs it; with a fleet that learns, its server does")
    say(f"{online_keys / 'online.key'}: stays on the server, which refreshes with it")
    say(f"serve {made.folder / 'metadata'} and {made.folder / 'targets'} to everyone, over https")
    say("ship this file inside the app, it says whom devices believe:")
    print_data(str(root))


@app.command("list")
def list_releases(repository: Repository, as_json: Json = False) -> None:
    """List the releases that are kept, the last one being what devices get, and when each role expires.

    A candidate, if there is one, is not out: devices compare it with the newest release first.

    Example: hushrec release list releases
    """
    from hushrec_server.releases import ReleaseKeys

    opened = _opened(repository, ReleaseKeys())
    candidate, releases, expires_at = opened.candidate(), opened.list(), _times(opened.expires_at())
    if as_json:
        told = None if candidate is None else _facts(candidate)
        print_json({"releases": [_facts(one) for one in releases], "candidate": told, "expires_at": expires_at})
        return
    say("; ".join(f"{role} expires {when}" for role, when in expires_at.items()))
    print_table(
        ["release", "bytes", "demo", "ledger", "bundle begins"],
        [
            [
                str(one.model_version),
                one.size,
                "DEMO" if one.demo else "no",
                one.ledger_head.partition(":")[0] or None,
                one.bundle[:16],
            ]
            for one in releases
        ],
    )
    if candidate is not None:
        say(f"not out: candidate {candidate.model_version}, bundle {candidate.bundle[:16]}; devices compare it first")


@app.command()
def publish(
    repository: Repository,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")],
    keys: Keys,
    anchor: Annotated[
        str | None,
        typer.Option(metavar="HEAD|FILE", help="Where the privacy ledger stands, or the file that keeps it."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Mark it as a demonstration: devices refuse it.")] = False,
    as_json: Json = False,
) -> None:
    """Make a bundle what devices get. Its model version must be above the newest release's.

    Needs targets.key and online.key.

    Example: hushrec release publish releases shop.hush --keys targets-key --keys online-key --anchor shop.anchor
    """
    from hushrec_privacy.ledger.anchored import read_anchor

    opened, head = _with_keys(repository, keys), None if anchor is None else read_anchor(anchor)
    published = opened.publish(bundle, ledger_head=None if head is None else str(head), demo=demo)
    _tell(published, "published", as_json=as_json)
    _doubt_round(opened, published)
    if head is not None:
        _doubt(str(head), next((one.ledger_head for one in reversed(opened.list()[:-1]) if one.ledger_head), ""))


@app.command()
def rollback(
    repository: Repository,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="An earlier release that `release list` names.")],
    keys: Keys,
    as_json: Json = False,
) -> None:
    """Publish the content of an earlier release under a new version, which is how devices take it.

    Needs targets.key and online.key.

    Example: hushrec release rollback releases 41 --keys targets-key --keys online-key
    """
    _tell(_with_keys(repository, keys).rollback(version), f"rolled back to {version}", as_json=as_json)


@app.command()
def refresh(repository: Repository, keys: Keys, as_json: Json = False) -> None:
    """Sign again what will expire; for a timer, every hour. Fails when root or targets will soon need someone.

    Needs online.key; with targets.key the targets are signed again as well.

    Example: hushrec release refresh releases --keys online-key
    """
    from hushrec_server.releases import ReleaseKeys

    held = ReleaseKeys.read(*keys)
    held.need_online()  # said now, and not on the day on which something is to be signed
    _tell_roles(_opened(repository, held).refresh(), as_json=as_json)


@app.command()
def rotate(
    repository: Repository,
    keys: Keys,
    new_offline_keys: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make new keys: where root.key and targets.key go.")
    ] = None,
    new_online_keys: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make new keys: where online.key goes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a new root: for another year, or with new keys. Devices follow by themselves.

    Needs root.key; for new keys the two others may be lost, else all three are needed.

    Example: hushrec release rotate releases --keys safe --keys online-key
    """
    from hushrec_server.releases import ReleaseKeys

    if (new_offline_keys is None) != (new_online_keys is None):
        raise typer.BadParameter("give both --new-offline-keys and --new-online-keys, or neither")
    opened = _with_keys(repository, keys)
    new = ReleaseKeys.create(new_offline_keys, new_online_keys) if new_offline_keys and new_online_keys else None
    _tell_roles(opened.rotate_root(new), as_json=as_json)
    if not as_json:
        say("give every server the new online.key now" if new else "the same keys count for another term")


@app.command()
def prune(
    repository: Repository,
    keys: Keys,
    keep: Annotated[int, typer.Option(min=1, help="Releases that stay; only they can be rolled back to.")] = 10,
    as_json: Json = False,
) -> None:
    """Forget old releases and remove the files that only they used.

    Needs targets.key and online.key.

    Example: hushrec release prune releases --keep 10 --keys targets-key --keys online-key
    """
    opened = _with_keys(repository, keys)
    freed = opened.prune(keep)
    left = [one.model_version for one in opened.list()]
    if as_json:
        print_json({"freed_bytes": freed, "releases": left})
        return
    say(f"freed {freed:,} bytes; releases that are left:")
    print_data("\n".join(map(str, left)))


def _opened(repository: Path, keys: Any) -> "ReleaseRepository":
    from hushrec_server.releases import ReleaseRepository

    return ReleaseRepository(repository, keys, clock=time.time)


def _with_keys(repository: Path, folders: list[Path]) -> "ReleaseRepository":
    from hushrec_server.releases import ReleaseKeys

    return _opened(repository, ReleaseKeys.read(*folders))


def _doubt(head: str, before: str) -> None:
    """Say so if a ledger with the one head cannot be a later state of the ledger with the other."""
    number, number_before = (int(text.partition(":")[0] or -1) for text in (head, before))
    if head != before and number <= number_before:
        say(f"WARNING: the release before it names entry {number_before} of a ledger, and this one entry {number}:")
        say("right for another ledger, such as that of a new run; of the same ledger this is an older or altered copy")


def _doubt_round(repository: "ReleaseRepository", published: "Release") -> None:
    """Say so if a release came of a round, and none before it came of the same: no server made it here."""
    from hushrec_server.offered import Offered

    offered = Offered(repository)
    came_of = offered.round_of(published)
    before = [offered.round_of(one) for one in repository.list() if one.model_version < published.model_version]
    if came_of is not None and all(each is None or each.ledger != came_of.ledger for each in before):
        named = f"round {came_of.number} of plan {came_of.plan[:16]}"
        say(f"WARNING: it came of {named}, and no release here came of that round:")
        say("a server whose ledger has no such round does not start; docs/runbook.md, A database was restored, helps")


def _tell(release: "Release", verb: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(release))
        return
    if release.demo:
        say("DEMO: devices with normal limits refuse it")
    say(f"{verb}; what devices get from now on is release:")
    print_data(str(release.model_version))


def _tell_roles(done: "Refreshed", *, as_json: bool) -> None:
    expires_at = _times(done.expires_at)
    if as_json:
        print_json({"renewed": list(done.renewed), "expires_at": expires_at})
        return
    say(f"signed again: {', '.join(done.renewed) or 'nothing, all is fresh'}")
    print_table(["role", "expires"], [[role, when] for role, when in expires_at.items()])


def _facts(release: "Release") -> dict[str, Any]:
    return {
        "model_version": release.model_version,
        "bundle": release.bundle,
        "bytes": release.size,
        "demo": release.demo,
        "ledger_head": release.ledger_head or None,
    }


def _times(expires_at: dict[str, int]) -> dict[str, str]:
    from datetime import UTC, datetime

    return {role: datetime.fromtimestamp(at, UTC).isoformat() for role, at in expires_at.items()}
