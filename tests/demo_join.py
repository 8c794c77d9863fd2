"""The command `hushrec`, whose devices accept plans of six: nothing that a person may set can make them do that.

python tests/demo_join.py join URL --profile FILE ...
"""

import functools

import hushrec.fleet
from hushrec_cli.main import run
from hushrec_privacy.plans.limits import UnsafeDemoLimits

if __name__ == "__main__":
    limits = UnsafeDemoLimits(lifetime_rho=1e9)
    settings = functools.partial(hushrec.fleet.FleetSettings, limits=limits)
    hushrec.fleet.FleetSettings = settings  # type: ignore[assignment,misc]
    run()
