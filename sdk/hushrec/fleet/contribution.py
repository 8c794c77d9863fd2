"""What this device adds to a round: trained, counted or given by the app, then clipped and rounded as the plan says.

The one place where what the shopper did is turned into a vector for others. Its result goes into secure aggregation and
nowhere else.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from hushrec_privacy.encoding.vectors import encode_update
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.fleet.joining import Accepted
from hushrec.history import History
from hushrec.profile import Profile

__all__ = ["Contribution", "Contributor"]

HISTORIES = 32
"""So many stretches of the newest events are trained on at most, each as long as the model looks back, and one more."""

_LAST = 2**63 - 1


class Contributor(Protocol):
    """What makes a device's vector: `Contribution`, or a test's."""

    def fits(self, plan: Plan, bundle: Bundle | None) -> bool:
        """Whether this device can take part in a plan with the bundle it has."""

    def wanted(self, plan: Plan) -> bool:
        """Whether there is anything to take part with now."""

    def vector(
        self, accepted: Accepted, round_number: int, bundle: Bundle | None, stop: Callable[[], bool]
    ) -> NDArray[np.int64] | None:
        """Make the vector of a round, in ring steps, shape (d,); None: it was stopped."""

    def sent(self, plan: Plan) -> None:
        """Take note that a vector of a plan has left, for good."""


class Contribution:
    """The vectors of one shopper's device. Runs in the caller's thread and takes no lock of a recommender.

    Args:
        profile: What the shopper did.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._source = OsRandom()

    def fits(self, plan: Plan, bundle: Bundle | None) -> bool:
        """See `Contributor`."""
        if plan.purpose != "update":
            return False
        from hushrec.federated.layout import ParameterLayout

        try:
            return bundle is not None and ParameterLayout.of(bundle.manifest, plan.parts).size == plan.parameters
        except (BundleError, ConfigError):
            return False

    def wanted(self, plan: Plan) -> bool:
        """See `Contributor`."""
        return plan.purpose == "update"

    def vector(
        self, accepted: Accepted, round_number: int, bundle: Bundle | None, stop: Callable[[], bool]
    ) -> NDArray[np.int64] | None:
        """See `Contributor`.

        Raises:
            BundleError: The train step cannot be opened.
            ProfileError: The profile cannot be read.
        """
        if bundle is None:
            return None
        values = self._update(accepted, round_number, bundle, stop)
        return None if values is None else encode_update(accepted.plan, values, self._source)

    def sent(self, plan: Plan) -> None:
        """See `Contributor`."""

    def _update(
        self, accepted: Accepted, round_number: int, bundle: Bundle, stop: Callable[[], bool]
    ) -> NDArray[np.float32] | None:
        from hushrec.federated.train_step import Sample
        from hushrec.federated.trainer import LocalTrainer, TrainSettings

        plan, model = accepted.plan, bundle.manifest.model
        settings = TrainSettings(
            local_steps=plan.local_steps,
            local_rate=float(plan.local_rate),
            candidates=plan.candidates,
            histories=HISTORIES,
            limit_s=float(plan.round_seconds),
        )
        length = model.max_history + 1
        with Catalog(bundle.path("catalog.sqlite")) as catalog:
            recent = History(self._profile, catalog, model.behaviors, HISTORIES * length).recent(_LAST)
        ends = range(len(recent.items), 0, -length)
        samples = [
            Sample(recent.items[max(0, end - length) : end], recent.behaviors[max(0, end - length) : end])
            for end in reversed(ends)
        ]
        trainer = LocalTrainer.open(bundle, plan.parts, settings)
        return trainer.update(samples, f"{accepted.plan_id} {round_number}", stop=stop)
