"""The commands `privacy audit ...`: does the code that is installed here do what is claimed?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import Cell, print_json, print_table, say
from hushrec_cli.progress import ProgressLine

if TYPE_CHECKING:
    from hushrec_model.training_audit import TrainingAudit
    from hushrec_privacy.audit.findings import MechanismAudit

__all__ = ["audit", "audit_app", "training"]

_BATCHES, _POPULATION, _RATE = 400, 5000, 0.1

audit_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@audit_app.callback()
def audit(
    context: typer.Context,
    plan: Annotated[
        Path | None, typer.Option(help="Audit at the noise of this plan; default: an example's noise.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw from the installed code and compare it with its claims.

    Noise (scale, shape, reuse after a restart), clipping, a device's own count of participations, and the sampling of
    central training, each with the product's own code. A sound installation fails one time in twenty, by chance: run it
    again. Exit code 1 if anything is not as claimed. A pass is no proof: it finds the faults that it looks for.

    Example: hushrec privacy audit
    """
    if context.invoked_subcommand is not None:
        if plan is not None or as_json:
            raise typer.BadParameter(f"write the options behind {context.invoked_subcommand}")
        return
    from hushrec_model.poisson import PoissonSampler
    from hushrec_privacy.audit.installed import audit_installed
    from hushrec_privacy.plans.plan import Plan
    from hushrec_privacy.randomness import OsRandom

    chosen = None if plan is None else Plan.decode(plan.read_bytes())
    sampler = PoissonSampler(_POPULATION, _RATE, OsRandom())
    found = audit_installed(chosen, batch_size=lambda: len(sampler.draw()), sampling=(_BATCHES, _POPULATION, _RATE))
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(["finding", "as claimed", "claimed", "found", "from", "to", "p"], _rows(found))
        say(f"{found.draws:,} draws of the worst-case projection; false alarms at {found.level:.0%} of sound runs")
    if not found.passed:
        say("NOT as claimed: do not publish before it is understood")
        raise typer.Exit(1)


@audit_app.command()
def training(
    epsilon: Annotated[float, typer.Option(help="Epsilon that the steps of a run are to have.")],
    delta: Annotated[float, typer.Option(help="Chance that epsilon does not hold.")] = 1e-5,
    canaries: Annotated[int, typer.Option(help="Made-up users, each in training or not by a fair coin.")] = 40_000,
    steps: Annotated[int, typer.Option(help="Steps; `hushrec train --epsilon` takes 60.")] = 2,
    sampling_rate: Annotated[
        float, typer.Option(help="Chance of a user to be in a step; `hushrec train --epsilon` takes .3.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Train on canaries with the installed code, guess who was in, and bound epsilon from below.

    Nobody real is in it: what is audited is the code, at the noise that the accountant asks for. The defaults show the
    most in the least time; a run's own steps and sampling rate also show a fault of the sampling. Exit code 1 if the
    claimed epsilon is refuted, at most one time in twenty by chance. A low bound is no evidence of privacy.

    Example: hushrec privacy audit training --epsilon 4 --delta 1e-5
    """
    from hushrec_model.training_audit import audit_settings, audit_training

    settings = audit_settings(epsilon, delta, canaries=canaries, sampling_rate=sampling_rate, steps=steps)
    with ProgressLine() as progress:
        found = audit_training(settings, delta, canaries=canaries, progress=progress)
    if as_json:
        print_json(found.to_dict())
    else:
        _show_training(found)
    if found.refuted:
        say("REFUTED: training gives away more than is claimed; do not publish before it is understood")
        raise typer.Exit(1)


def _show_training(audit: "TrainingAudit") -> None:
    from hushrec_privacy.accounting.guarantee import rounded_up

    shown, claim = audit.found, audit.claim
    rows: list[list[Cell]] = [
        ["epsilon, claimed", rounded_up(claim.epsilon, 4)],
        [f"epsilon, at least ({shown.confidence:.0%} confidence)", f"{shown.epsilon_lower:.4g}"],
        ["delta", rounded_up(claim.delta)],
        ["adjacency", claim.adjacency],
        ["canaries", shown.canaries],
        ["guesses", shown.guesses],
        ["right", shown.correct],
        ["shift of a canary, at most; found", f"{audit.mu:.3g}; {audit.shift:.3g}"],
    ]
    print_table(["property", "value"], rows)
    say()
    say("A low bound is no evidence of privacy. With these canaries one expects to show")
    say(f"  {audit.epsilon_if_sound:.3g} of a run that is as claimed")
    say(
        f"  {audit.epsilon_if_halved:.3g} of one with half of the noise, which is refuted in "
        f"{audit.chance_if_halved:.0%} of such audits"
    )
    say(f"  {audit.epsilon_ceiling:.3g} of no privacy at all; a fault that leaves less is never seen")


def _rows(found: "MechanismAudit") -> list[list[Cell]]:
    return [
        [each.name, "yes" if each.passed else "NO", each.claimed, each.estimate, *each.interval, each.p_value]
        for each in found.findings
    ]
