"""The commands `privacy plan` and `privacy sign`: what a fleet can reach, and the document that says so."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from hushrec_privacy.errors import ConfigError, PlanError

from hushrec_cli.options import Json, parse_time
from hushrec_cli.output import Cell, print_data, print_json, print_table, say, write_file
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.plots import Lines
from hushrec_cli.privacy import Delta, say_assumptions

if TYPE_CHECKING:
    from hushrec_privacy.plans.planner import Reachable, Request

__all__ = ["plan", "sign"]


def plan(
    population: Annotated[int, typer.Option(help="Devices that may ever join.")],
    cohort: Annotated[int, typer.Option(help="Devices of a round; the sum is divided by it.")],
    rounds: Annotated[int, typer.Option(help="Rounds of the whole run, fixed beforehand.")],
    delta: Delta,
    epsilon: Annotated[float | None, typer.Option(help="Wanted epsilon; the noise follows from it.")] = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise over the clip norm; epsilon follows from it.")
    ] = None,
    min_separation: Annotated[
        int | None, typer.Option(help="Rounds from one turn of a device to its next. Default: until all had a turn.")
    ] = None,
    parameters: Annotated[
        int | None, typer.Option(help="Numbers of an update; hushrec inspect tells. Default: the adapter's.")
    ] = None,
    vector: Annotated[
        Path | None, typer.Option(help="JSON of what devices send instead of an update: counts or features.")
    ] = None,
    parts: Annotated[str, typer.Option(help="What is trained: adapter, encoder, encoder+features, full.")] = "adapter",
    clip_norm: Annotated[float, typer.Option(help="L2 bound of an update, in the unit of the weights.")] = 0.1,
    local_steps: Annotated[int, typer.Option(help="Steps that a device trains in a round.")] = 1,
    local_rate: Annotated[float, typer.Option(help="Size of such a step.")] = 0.1,
    authority: Annotated[
        str, typer.Option(metavar="HEX", help="Public key of whoever certifies devices; needed with --out.")
    ] = "",
    first_round: Annotated[
        str | None, typer.Option(metavar="TIME", help="When round 1 starts: 2027-01-31T08:00, UTC without a zone.")
    ] = None,
    round_minutes: Annotated[int, typer.Option(min=1, max=10**6, help="From the start of one round to the next.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, ready to be signed.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    as_json: Json = False,
) -> None:
    """Work out what a fleet can reach, and make the plan.

    Give either --epsilon or --noise-multiplier. With --vector FILE devices count instead of training; the file holds
    "purpose", counts or features, and "schema", a list of segments with "name", "length", "clip" and "purpose";
    docs/plan.md has one with which devices compare a new model with the one in use.

    Example: hushrec privacy plan --population 200000 --cohort 1000 --rounds 2000 --delta 1e-6 --epsilon 2
    """
    from datetime import UTC, datetime

    from hushrec_privacy.plans.planner import Request
    from hushrec_privacy.plans.schema import Vector

    if out is not None and not authority:
        raise ConfigError("a plan that is written needs --authority, whose certificates devices accept in it")
    start = parse_time(first_round) or datetime.now(UTC)
    request = Request(
        population=population,
        cohort=cohort,
        rounds=rounds,
        delta=delta,
        epsilon=epsilon,
        noise_multiplier=noise_multiplier,
        min_separation=min_separation,
        parameters=_numbers(parameters, parts, counts=vector is not None),
        vector=None if vector is None else Vector.from_json(vector.read_bytes()),
        parts=parts,
        clip_norm=clip_norm,
        local_steps=local_steps,
        local_rate=local_rate,
        authority=authority,
        round_seconds=round_minutes * 60,
        first_round_at=int(start.timestamp()),
    )
    _tell(request, html=html, out=out, as_json=as_json)


def _numbers(given: int | None, parts: str, *, counts: bool) -> int:
    """Numbers of an update: those of the adapter are the same in every bundle, those of other parts are not."""
    from hushrec_privacy.plans.plan import PARTS
    from hushrec_privacy.plans.planner import ADAPTER_PARAMETERS

    if given is None and parts in PARTS[1:] and not counts:
        raise ConfigError(
            f"--parts {parts} needs --parameters, the numbers of that part in your bundle: hushrec inspect BUNDLE "
            "names them beside 'trains on devices'"
        )
    return ADAPTER_PARAMETERS if given is None else given


def _tell(request: "Request", *, html: Path | None, out: Path | None, as_json: bool) -> None:
    from hushrec_privacy.plans.planner import reach

    found = reach(request)
    if html is not None:
        write_file(html, _page(request, found))
    if out is not None:
        _write(found, out)
    if as_json:
        print_json(found.to_dict())
        return
    _show(found)


def _write(found: "Reachable", out: Path) -> None:
    if found.plan is None:
        say("no plan was written: without noise, or with delta 0, it would guarantee nothing")
        raise typer.Exit(2)
    if out.exists():
        raise ConfigError(f"{out}: is there already, and a plan is never overwritten; choose another name")
    write_file(out, found.plan.encode())
    say(f"next: hushrec privacy sign {out} --key plan.key")


def _rows(found: "Reachable") -> list[list[Cell]]:
    from hushrec_privacy.accounting.guarantee import rounded_up

    promised = found.false_epsilon
    demo: list[list[Cell]] = [["DEMO", "a cohort this small protects nobody"]] if found.demo else []
    return [
        *demo,
        ["epsilon", rounded_up(found.guarantee.epsilon)],
        ["delta", rounded_up(found.guarantee.delta)],
        ["adjacency", found.guarantee.adjacency],
        ["unit", found.guarantee.unit],
        ["noise multiplier", f"{found.noise_multiplier:.6g}"],
        ["participations of a device, at most", f"{found.participations:,}"],
        ["rounds between them, at least", f"{found.min_separation:,}"],
        ["smallest separation with as few participations", f"{found.smallest_separation:,}"],
        ["largest separation that fills every round", f"{found.largest_separation:,}"],
        ["squared sensitivity of the matrix", f"{found.sensitivity_squared:.9g}"],
        ["noise norm of a round over the clip norm", f"{found.noise_to_clip:.4g}"],
        ["prefix error in clip norms: banded", f"{found.prefix_rmse[0]:.4g}"],
        ["prefix error in clip norms: independent noise", f"{found.prefix_rmse[1]:.4g}"],
        ["smallest ring, bits", str(found.ring_bits)],
        ["sealed noise state, bytes", f"{found.state_bytes:,}"],
        ["amplification by sampling would FALSELY promise", "–" if promised != promised else f"{promised:.4g}"],
    ]


def _show(found: "Reachable") -> None:
    if found.demo:
        say("DEMO: a cohort this small protects nobody; devices with normal limits refuse the plan")
    for line in found.doubts:
        say(f"WARNING: {line}")
    print_table(["property", "value"], _rows(found))
    say_assumptions(found.guarantee)


def _page(request: "Request", found: "Reachable") -> str:
    from hushrec_privacy.accounting import gaussian_epsilon
    from hushrec_privacy.accounting.toeplitz import most_participations, sensitivity_squared

    separation, noise = found.min_separation, found.noise_multiplier
    ratios = [2.0 ** (n / 4) for n in range(-8, 9)]
    base = found.sensitivity_squared**0.5
    over_noise = tuple((noise * r, gaussian_epsilon(base / (noise * r), request.delta)) for r in ratios if noise)
    stops = sorted({max(1, round(request.rounds * n / 24)) for n in range(1, 25)})
    bands = min(separation, 200)
    over_rounds = []
    for stop in stops if noise else ():
        squared = sensitivity_squared(stop, min(bands, stop), separation, most_participations(stop, separation))
        over_rounds.append((float(stop), gaussian_epsilon(squared**0.5 / noise, request.delta)))
    sections = [
        Section("What holds", (), (Table(("property", "value"), _tuples(found)),)),
        Section("It holds only if", tuple(f"• {line}" for line in found.guarantee.assumptions)),
        Section(
            "Epsilon",
            ("Before the rounding terms, which the table includes.",),
            (
                Lines("epsilon against noise multiplier", "noise multiplier", (("epsilon", over_noise),)),
                Lines("epsilon of a run of so many rounds", "rounds", (("epsilon", tuple(over_rounds)),)),
            ),
        ),
    ]
    return render_page("Privacy plan", sections)


def _tuples(found: "Reachable") -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row) for row in _rows(found))


def sign(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan written by `hushrec privacy plan --out`.")],
    key: Annotated[Path, typer.Option(help="The shop's plan key, 32 bytes that only its owner can read.")],
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key first; the file must not exist.")] = False,
    out: Annotated[Path | None, typer.Option(help="The signature; default: the plan's name with .sig.")] = None,
    as_json: Json = False,
) -> None:
    """Sign a plan with the shop's plan key.

    The public half of the key, which is printed, is what devices check the signature with: `hushrec envelope sign`
    writes it as plan.pub, and `hushrec fleet file --plan-key` puts it into fleet.json.

    Example: hushrec privacy sign plan.json --key plan.key --new-key
    """
    from hushrec_privacy.accounting.guarantee import rounded_up
    from hushrec_privacy.plans.plan import Plan
    from hushrec_privacy.plans.signing import PlanKey
    from hushrec_privacy.plans.timing import check_not_over, when

    try:
        chosen = Plan.decode(plan_file.read_bytes())
    except PlanError as error:
        raise PlanError(f"{plan_file}: {error.message}; name what hushrec privacy plan --out wrote") from error
    check_not_over(chosen, int(time.time()))
    target = out if out is not None else plan_file.with_name(plan_file.name + ".sig")
    _check_place(target, plan_file, key)
    if not new_key and not key.exists():
        raise ConfigError(f"{key}: there is no plan key; name the shop's, or make the first one here with --new-key")
    secret = PlanKey.create(key) if new_key else PlanKey.read(key)
    write_file(target, secret.sign(chosen))
    if chosen.demo:
        say("DEMO: a cohort this small protects nobody; devices with normal limits refuse the plan")
    say(f"{when(chosen, int(time.time()))}; a round whose time is over is lost")
    if as_json:
        guarantee = chosen.guarantee()
        facts: dict[str, object] = {"plan_id": chosen.plan_id, "demo": chosen.demo}
        facts |= {"public_key": secret.public().hex(), "signature": str(target)}
        print_json({**guarantee.to_dict(), **facts})
        return
    say(f"plan {chosen.plan_id}, epsilon {rounded_up(float(chosen.epsilon))} at delta {chosen.delta}")
    say(f"public half of the key, for fleet.json and the server's plan.pub: {secret.public().hex()}")
    print_data(str(target))


def _check_place(target: Path, plan_file: Path, key: Path) -> None:
    """A signature replaces nothing but a signature, and needs a folder; asked before a key is made."""
    from hushrec_privacy.plans.signing import SIGNATURE_BYTES

    if target.exists() and not (target.is_file() and target.stat().st_size == SIGNATURE_BYTES):
        raise ConfigError(f"{target}: is there already and is no signature; it is not replaced")
    if target.resolve() in (plan_file.resolve(), key.resolve()) or not target.parent.is_dir():
        raise ConfigError(f"{target}: is no place for the signature; name a new file in a folder that exists")
