"""What this device adds to a round: trained, counted or given by the app, then clipped and rounded as the plan says.

The one place where what the shopper did is turned into a vector for others. Its result goes into secure aggregation and
nowhere else.
"""

import secrets
from collections.abc import Callable
from typing import Protocol

import numpy as np
from hushrec_privacy.encoding import encode_update, join_segments
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.federated_counts import own_segments
from hushrec.fleet.features import Features
from hushrec.fleet.joining import Accepted
from hushrec.held_out import training_events
from hushrec.own_events import StoppedError
from hushrec.profile import Profile

__all__ = ["Contribution", "Contributor"]

WINDOWS = 32
"""So many stretches of the newest events are trained on at most, each as long as the model looks back, and one more."""


class Contributor(Protocol):
    """What makes a device's vector: `Contribution`, or a test's."""

    def fits(self, plan: Plan, bundle: Bundle | None) -> bool:
        """Whether this device can take part in a plan with the bundle it has."""

    def wanted(self, plan: Plan) -> bool:
        """Whether there is anything to take part with now."""

    def vector(
        self,
        accepted: Accepted,
        round_number: int,
        bundle: Bundle | None,
        candidate: Bundle | None,
        stop: Callable[[], bool],
    ) -> NDArray[np.int64] | None:
        """Make the vector of a round, in ring steps, shape (d,); None: it was stopped.

        Args:
            accepted: The plan.
            round_number: Of the round.
            bundle: The release in use.
            candidate: What a plan that compares compares with it; None: it does not work on this device.
            stop: Asked at every batch.
        """

    def sent(self, plan: Plan) -> None:
        """Take note that a vector of a plan has left, for good."""


class Contribution:
    """The vectors of one shopper's device. Runs in the caller's thread and takes no lock of a recommender.

    Args:
        profile: What the shopper did.
        features: What the app gave.
        clock: Seconds since 1970-01-01 UTC.
    """

    def __init__(self, profile: Profile, features: Features, clock: Callable[[], float]) -> None:
        self._profile, self._features, self._clock = profile, features, clock
        self._source = OsRandom()
        self._given: dict[str, NDArray[np.float32]] = {}  # what the last vector of the app's own was made of

    def fits(self, plan: Plan, bundle: Bundle | None) -> bool:
        """See `Contributor`."""
        if bundle is None:
            return False
        if plan.purpose != "update":
            return True
        from hushrec.federated.layout import ParameterLayout

        try:
            return ParameterLayout.of(bundle.manifest, plan.parts).size == plan.parameters
        except (BundleError, ConfigError):
            return False

    def wanted(self, plan: Plan) -> bool:
        """See `Contributor`: a round of features is joined only for a vector that waits, and spends nothing else."""
        return plan.purpose != "features" or bool(self._features.waiting(plan))

    def vector(
        self,
        accepted: Accepted,
        round_number: int,
        bundle: Bundle | None,
        candidate: Bundle | None,
        stop: Callable[[], bool],
    ) -> NDArray[np.int64] | None:
        """See `Contributor`.

        Raises:
            BundleError: The train step cannot be opened.
            ProfileError: The profile cannot be read.
        """
        if bundle is None or stop():
            return None
        plan = accepted.plan
        values: NDArray[np.float32] | None
        try:
            if plan.purpose == "update":
                values = self._update(accepted, round_number, bundle, stop)
            else:
                values = self._segments(plan, bundle, candidate, stop)
        except StoppedError:
            return None
        return None if values is None or stop() else encode_update(plan, values, self._source)

    def sent(self, plan: Plan) -> None:
        """See `Contributor`."""
        if plan.purpose != "update":
            self._features.taken(self._given)
            self._given = {}

    def _segments(
        self, plan: Plan, bundle: Bundle, candidate: Bundle | None, stop: Callable[[], bool]
    ) -> NDArray[np.float32]:
        self._given = given = self._features.waiting(plan)
        if plan.purpose == "features":
            return join_segments(plan, dict(given))
        now_us = int(self._clock() * 1e6)
        own = own_segments(plan, bundle, self._profile, now_us=now_us, app=given, candidate=candidate, stop=stop)
        return join_segments(plan, own)

    def _update(
        self, accepted: Accepted, round_number: int, bundle: Bundle, stop: Callable[[], bool]
    ) -> NDArray[np.float32] | None:
        from hushrec.federated.train_step import Sample
        from hushrec.federated.trainer import LocalTrainer, TrainSettings

        plan = accepted.plan
        settings = TrainSettings(
            local_steps=plan.local_steps,
            local_rate=float(plan.local_rate),
            candidates=plan.candidates,
            windows=WINDOWS,
            limit_s=float(plan.round_seconds),
        )
        trainer, now_us = LocalTrainer.open(bundle, plan.parts, settings), int(self._clock() * 1e6)
        newest = WINDOWS * (bundle.manifest.model.max_history + 1)
        events = training_events(self._profile, bundle, now_us=now_us, newest=newest, stop=stop)
        sample = Sample(events.items, events.behaviors)
        # Candidates of its own: the same ones on all devices would be noise that no cohort averages out.
        return trainer.update([sample], f"{accepted.plan_id} {round_number} {secrets.token_hex(16)}", stop=stop)
