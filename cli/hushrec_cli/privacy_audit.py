"""The command `privacy audit`: does the code that is installed here do what is claimed?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import Cell, print_json, print_table, say

if TYPE_CHECKING:
    from hushrec_privacy.audit.findings import MechanismAudit

__all__ = ["audit"]

_BATCHES, _POPULATION, _RATE = 400, 5000, 0.1


def audit(
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


def _rows(found: "MechanismAudit") -> list[list[Cell]]:
    return [
        [each.name, "yes" if each.passed else "NO", each.claimed, each.estimate, *each.interval, each.p_value]
        for each in found.findings
    ]
