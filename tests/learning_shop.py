"""A shop with a release repository that holds a bundle which devices can train on, and plans for its parts."""

from pathlib import Path

import msgspec
import numpy as np
from hushrec.bundle import Bundle, write_bundle
from hushrec.federated.layout import ParameterLayout
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_server.model_releases import Guard, ModelReleases
from hushrec_server.publishing import RoundResult
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.learning_bundle import learning_bundle

__all__ = ["ANCHORS", "NOW", "Shop", "plan_of"]

NOW = 1_800_000_000
ANCHORS = [Anchor(number, bytes([number]) * 32) for number in range(10)]


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

    def publisher(self, guard: Guard | None = None) -> ModelReleases:
        """As another process would open it."""
        return ModelReleases(self.repository, self.folder / "masters", guard=guard)

    def begin(self) -> None:
        """Publish the first bundle, as a shop does."""
        self.repository.publish(self.first.root, ledger_head=None, demo=False)

    def result(self, number: int, *, seed: int = 0, plan: Plan | None = None) -> RoundResult:
        """A made-up sum of round `number` over the newest release."""
        plan, newest = plan or self.plan, self.publisher().newest()
        steps = np.random.default_rng(seed + number).normal(0, 40, plan.coordinates)
        noised = np.rint(steps * 2**plan.lattice_bits).astype(np.int64)
        return RoundResult(plan, number, newest.bundle, noised, 5, ANCHORS[number])

    def bundle(self) -> Bundle:
        """The newest release as devices would assemble it."""
        release = self.repository.list()[-1]
        out = self.folder / f"device-{release.model_version}.hush"
        out.mkdir(exist_ok=True)
        for file in release.files:
            blob = next((self.folder / "repository" / "targets" / "blobs").glob(f"*{file.sha256}"))
            (out / file.name).write_bytes(blob.read_bytes())
        return Bundle.open(out, verify=True)


def plan_of(parameters: int, parts: str, authority: str = "ab" * 32) -> Plan:
    """A plan for one part."""
    plan = make_plan(
        Request(
            population=500,
            cohort=5,
            rounds=20,
            delta=1e-6,
            noise_multiplier=1.0,
            parameters=parameters,
            parts=parts,
            first_round_at=NOW,
            authority=authority,
        )
    )
    assert plan is not None
    return plan
