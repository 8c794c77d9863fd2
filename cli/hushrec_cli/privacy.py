"""The commands `privacy ...`: what noise is worth, plans, ledgers and reports."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from hushrec_privacy.errors import ConfigError

from hushrec_cli.options import Json
from hushrec_cli.output import Cell, print_json, print_table, say

if TYPE_CHECKING:
    from hushrec_privacy.accounting import Guarantee

__all__ = ["Mechanism", "app", "epsilon", "privacy", "say_assumptions", "show_guarantee"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def privacy() -> None:
    """Privacy budgets: what noise is worth, plans, ledgers, reports.

    Example: hushrec privacy epsilon --mechanism gaussian --noise-multiplier 8.35 --participations 2 --delta 1e-10
    """


class Mechanism(StrEnum):
    """What adds the noise."""

    GAUSSIAN = "gaussian"
    BANDED_TOEPLITZ = "banded-toeplitz"
    POISSON_GAUSSIAN = "poisson-gaussian"


_NEEDS = {
    Mechanism.GAUSSIAN: ("participations",),
    Mechanism.BANDED_TOEPLITZ: ("rounds", "bands", "min_separation", "participations"),
    Mechanism.POISSON_GAUSSIAN: ("sampling_rate", "steps"),
}

Delta = Annotated[float, typer.Option(help="Chance that epsilon does not hold, such as 1e-6.")]


@app.command()
def epsilon(
    mechanism: Annotated[Mechanism, typer.Option(help="What adds the noise.")],
    noise_multiplier: Annotated[
        float, typer.Option(help="Standard deviation of the noise over the clip norm (c_0 = 1 where it is banded).")
    ],
    delta: Delta,
    participations: Annotated[int | None, typer.Option(help="How often one device takes part at most.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of the whole run (banded-toeplitz).")] = None,
    bands: Annotated[int | None, typer.Option(help="Bands of the matrix (banded-toeplitz).")] = None,
    min_separation: Annotated[
        int | None, typer.Option(help="Rounds from one participation to the next at least (banded-toeplitz).")
    ] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="Chance of a user to be in a step (poisson-gaussian).")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run (poisson-gaussian).")] = None,
    as_json: Json = False,
) -> None:
    """Say what epsilon noise of a size gives, and all that it assumes.

    Example: hushrec privacy epsilon --mechanism gaussian --noise-multiplier 8.35 --participations 2 --delta 1e-10
    """
    from hushrec_privacy.accounting import claims, sensitivity_squared

    given = _exactly(
        mechanism,
        participations=participations,
        rounds=rounds,
        bands=bands,
        min_separation=min_separation,
        sampling_rate=sampling_rate,
        steps=steps,
    )
    facts: dict[str, Any] = {"noise_multiplier": noise_multiplier, **given}
    if mechanism is Mechanism.GAUSSIAN:
        found = claims.gaussian_guarantee(noise_multiplier, **given, delta=delta)
    elif mechanism is Mechanism.BANDED_TOEPLITZ:
        found = claims.banded_guarantee(**given, noise_multiplier=noise_multiplier, delta=delta)
        facts["sensitivity_squared"] = sensitivity_squared(**given)
    else:
        found = claims.poisson_guarantee(**given, noise_multiplier=noise_multiplier, delta=delta)
    show_guarantee(found, facts, as_json=as_json)


def show_guarantee(guarantee: "Guarantee", facts: dict[str, Any], *, as_json: bool) -> None:
    """Print one guarantee: a table and its assumptions, or one JSON object.

    Args:
        guarantee: What holds.
        facts: Further values beside it.
        as_json: Print JSON.
    """
    if as_json:
        print_json({**guarantee.to_dict(), **facts})
        return
    from hushrec_privacy.accounting.guarantee import rounded_up

    more: list[list[Cell]] = [[name.replace("_", " "), f"{value:.10g}"] for name, value in facts.items()]
    rows: list[list[Cell]] = [
        ["epsilon", rounded_up(guarantee.epsilon)],
        ["delta", rounded_up(guarantee.delta)],
        ["adjacency", guarantee.adjacency],
        ["unit", guarantee.unit],
        ["mechanism", guarantee.mechanism],
        ["trust", guarantee.trust],
        *more,
    ]
    print_table(["property", "value"], rows)
    say_assumptions(guarantee)


def say_assumptions(guarantee: "Guarantee") -> None:
    """Say what must be true, one line each."""
    if not guarantee.assumptions:
        return
    say()
    say("It holds only if:")
    for line in guarantee.assumptions:
        say(f"  - {line}")


def _exactly(mechanism: Mechanism, **options: float | None) -> dict[str, Any]:
    """The options that a mechanism needs; none may be missing, and none may be given that it would ignore."""
    needed = _NEEDS[mechanism]
    missing = [_flag(name) for name in needed if options[name] is None]
    if missing:
        raise ConfigError(f"--mechanism {mechanism} needs {', '.join(missing)} too")
    ignored = [_flag(name) for name, value in options.items() if value is not None and name not in needed]
    if ignored:
        raise ConfigError(f"--mechanism {mechanism} does not use {', '.join(ignored)}; leave it out")
    return {name: options[name] for name in needed}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
