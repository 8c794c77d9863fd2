"""A shop with a release repository that holds a bundle which devices can train on, and plans for its parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hushrec.bundle import Bundle, write_bundle
from hushrec.federated.layout import ParameterLayout
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, Segment, Vector
from hushrec_server.model_releases import Guard, ModelReleases
from hushrec_server.publishing import RoundResult
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from numpy.typing import NDArray

from tests.learning_bundle import learning_bundle

__all__ = ["ANCHORS", "NOW", "Shop", "comparing_plan", "plan_of"]

NOW = 1_800_000_000
ANCHORS = [Anchor(number, bytes([number]) * 32) for number in range(10)]
COMPARISON = Vector(
    "counts",
    (
        Segment(EVALUATION, 3, "1.5", "how well the model would have guessed what you took last"),
        Segment(GAIN, 2, "0.5", "by how much a new model would have guessed better"),
    ),
)


class Shop:
    """A repository with one bundle that devices can train on, and a plan for its adapter."""

    def __init__(self, folder: Path, *, origin: str | None = None, parts: str = "adapter") -> None:
        self.folder = folder
        self.first, _ = learning_bundle(folder / "first.hush")
        if origin is not None:
            files: dict[str, Path | bytes] = {name: self.first.path(name) for name in self.first.manifest.files}
            manifest = msgspec.structs.replace(self.first.manifest, card={"headline": "made of public facts"})
            self.first = write_bundle(folder / "other.hush", manifest, files, dict.fromkeys(files, origin))
        self.keys = ReleaseKeys.create(folder / "safe", folder / "online")
        self.repository = ReleaseRepository.create(folder / "repository", self.keys, clock=lambda: NOW)
        self.plan = plan_of(ParameterLayout.of(self.first.manifest, parts).size, parts)
        self.comparing = comparing_plan()

    def publisher(self, guard: Guard | None = None, *, by_devices: bool = False) -> ModelReleases:
        """As another process would open it."""
        return ModelReleases(self.repository, self.folder / "masters", guard=guard, evaluated_by_devices=by_devices)

    def begin(self) -> None:
        """Publish the first bundle, as a shop does."""
        self.repository.publish(self.first.root, ledger_head=None, demo=False)

    def result(self, number: int, *, seed: int = 0, plan: Plan | None = None) -> RoundResult:
        """A made-up sum of round `number` over the newest release."""
        plan, newest = plan or self.plan, self.publisher().newest()
        steps = np.random.default_rng(seed + number).normal(0, 40, plan.coordinates)
        noised = np.rint(steps * 2**plan.lattice_bits).astype(np.int64)
        return RoundResult(plan, number, newest.bundle, noised, 5, ANCHORS[number])

    def compared(
        self, number: int, *, gain: float, found: float = 2.0, release: str | None = None, plan: Plan | None = None
    ) -> RoundResult:
        """What devices found in round `number` of a plan that compares, noise included.

        Args:
            number: Of the round.
            gain: Sum of what the candidate's NDCG has above that of the release in use.
            found: Sum of the latter.
            release: Bundle that was compared; None: the candidate.
            plan: Of the round; None: the shop's.
        """
        plan, staged = plan or self.comparing, self.repository.candidate()
        if release is None:
            assert staged is not None
            release = staged.bundle
        noised = _noised(plan, {EVALUATION: (3.0, found, 5.0), GAIN: (0.1, gain)})
        return RoundResult(plan, number, release, noised, 5, ANCHORS[number])

    def bundle(self) -> Bundle:
        """The newest release as devices would assemble it."""
        release = self.repository.list()[-1]
        out = self.folder / f"device-{release.model_version}.hush"
        out.mkdir(exist_ok=True)
        for file in release.files:
            blob = next((self.folder / "repository" / "targets" / "blobs").glob(f"*{file.sha256}"))
            (out / file.name).write_bytes(blob.read_bytes())
        return Bundle.open(out, verify=True)


def plan_of(parameters: int, parts: str, authority: str = "ab" * 32, **changes: Any) -> Plan:
    """A plan for one part."""
    return _made(parameters=parameters, parts=parts, authority=authority, **changes)


def comparing_plan(authority: str = "ab" * 32, **changes: Any) -> Plan:
    """A plan that compares a candidate with the release in use."""
    return _made(vector=COMPARISON, authority=authority, **changes)


def _made(**changes: Any) -> Plan:
    wanted = {"population": 500, "cohort": 5, "rounds": 20, "delta": 1e-6, "noise_multiplier": 1.0}
    plan = make_plan(Request(**{"first_round_at": NOW, **wanted, **changes}))
    assert plan is not None
    return plan


def _noised(plan: Plan, sums: dict[str, Sequence[float]]) -> NDArray[np.int64]:
    """The noised sum of a round that decodes to these sums over devices, but for rounding to lattice steps."""
    steps = [float(segment.clip) * len(plan.schema) ** 0.5 / plan.clip_steps for segment in plan.schema]
    vector = np.concatenate(
        [np.asarray(sums[segment.name]) / step for segment, step in zip(plan.schema, steps, strict=True)]
    )
    turned = Rotation(plan.rotation_seed, plan.parameters, plan.coordinates).turn(vector)
    return np.rint(np.ldexp(turned, plan.lattice_bits)).astype(np.int64)
