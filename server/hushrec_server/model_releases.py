"""From a round's noised sum to the release that devices get next: mean, server optimizer, master, guards, repository.

What is published names its round and where the ledger stood, in the model card and in the signed release: that is how a
round is recognised that was published already, and how a database that was set back is found out. A round whose devices
started from a release that is not the newest any more is refused. Where devices are a guard, a new model is staged
first (see `candidates`), and what a round of a plan that compares comes to decides about it.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.fedadam import AdamSettings
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.release import CHANGED_FILES, write_release
from hushrec.federated.schedule import share_of_rate
from hushrec.manifest import Manifest, unguaranteed
from hushrec.releases import Release
from hushrec_privacy.accounting.guarantee import rounded_up
from hushrec_privacy.encoding.sums import decode_sum
from hushrec_privacy.errors import BundleError, ConfigError, PlanError
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.ledger.openings import guarantee_after, plan_opening
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import UPDATE

from hushrec_server.candidates import Candidates
from hushrec_server.masters import Masters, content_of
from hushrec_server.offered import Offered
from hushrec_server.publishing import Newest, RoundResult, StoredResults, Verdict
from hushrec_server.releases import ReleaseRepository

__all__ = ["Guard", "ModelReleases"]

Guard = Callable[[Bundle, Bundle], str]
"""Old and new model to the reason why the new one must not go out; empty: it may."""

_ENCODER_FILES = ("encoder.bin", "params.bin")
_KEPT_FACTS = ("name", "protocol", "parameters")


class ModelReleases:
    """A `Publisher` over a release repository. Sums that are no updates stay in the database.

    Args:
        repository: Where releases go; its targets key and online key must be at hand.
        folder: For masters, optimizers and refusals; readable by its owner alone, on the repository's file system.
        guard: Judges each new model on the server; None: it does not.
        evaluated_by_devices: Whether devices compare each new model with the one in use before it goes out.
        most_loss: Share of its NDCG@10 on devices that a new model may lose.
        optimizer: Of the server.

    Raises:
        ConfigError: `most_loss` is no share.
    """

    def __init__(
        self,
        repository: ReleaseRepository,
        folder: Path,
        *,
        guard: Guard | None = None,
        evaluated_by_devices: bool = False,
        most_loss: float = 0.02,
        optimizer: AdamSettings | None = None,
    ) -> None:
        self._repository, self._guard, self._by_devices = repository, guard, evaluated_by_devices
        self._optimizer = optimizer or AdamSettings()
        self._masters, self._offered = Masters(folder), Offered(repository)
        self._candidates = Candidates(repository, self._offered, folder, most_loss=most_loss)

    def newest(self) -> Newest:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        releases = self._offered.releases()
        return Newest(releases[-1].model_version, releases[-1].bundle) if releases else Newest()

    @contextmanager
    def newest_bundle(self) -> Iterator[Bundle | None]:
        """The newest release itself, verified, until the block ends; None: there is none.

        Raises:
            BundleError: It cannot be used.
            ReleaseError: The repository is damaged.
        """
        releases = self._offered.releases()
        if not releases:
            yield None
            return
        with self._part() as part:
            yield self._offered.bundle(releases[-1], part / "newest.hush")

    def candidate(self) -> Newest:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        found = self._candidates.current() if self._by_devices else None
        return Newest() if found is None else Newest(found.model_version, found.bundle)

    def check_plan(self, plan: Plan) -> None:
        """See `Publisher`.

        Raises:
            PlanError: See there.
            ReleaseError: The repository is damaged.
        """
        releases = self._offered.releases()
        if plan.purpose != UPDATE or not releases:
            return
        newest = releases[-1].model_version
        try:
            size = ParameterLayout.of(self._offered.manifest(releases[-1]), plan.parts).size
        except (BundleError, ConfigError) as error:
            raise PlanError(f"devices cannot train {plan.parts} of release {newest}: {error.message}") from error
        if size != plan.parameters:
            raise PlanError(
                f"the plan trains {plan.parameters:,} numbers, and {plan.parts} of release {newest} has {size:,}: no "
                f"device could take part; plan anew with --parts {plan.parts} --parameters {size}"
            )

    def anchor(self) -> Anchor | None:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return max(self._heads(), key=lambda head: head.index, default=None)

    def anchored_by(self) -> str:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        heads = self._heads()
        return heads[max(heads, key=lambda head: head.index)] if heads else ""

    def last_published(self, plan_id: str) -> int:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        seen = [found.number for found in self._candidates.seen() if found.plan == plan_id]
        return max([self._last_out(plan_id), *seen])

    def publish(self, result: RoundResult) -> Verdict:
        """See `Publisher`.

        Raises:
            BundleError: The newest release cannot be used.
            ConfigError: The plan does not fit the model.
            ReleaseError: The repository is damaged, a key is missing, or the disk refused.
        """
        if self._by_devices and result.plan.compares:
            self._candidates.decide(result)
            self._forget()
        if result.plan.purpose != UPDATE:
            return StoredResults().publish(result)
        if self._last_out(result.plan.plan_id) >= result.number:
            return Verdict()
        if refused := self._candidates.refusal(result):
            return Verdict(refused=refused)
        releases = self._offered.releases()
        if not releases or releases[-1].bundle != result.release:
            return Verdict(refused="another release came out while the round ran; its devices trained the one before")
        if self._by_devices and (waiting := self._candidates.waiting(result)):
            return Verdict(waiting=waiting)
        return self._judge(releases[-1], result)

    def _judge(self, base: Release, result: RoundResult) -> Verdict:
        """Make the new model and publish it, stage it, or refuse it."""
        with self._part() as part:
            old = self._offered.bundle(base, part / "base.hush")
            new = self._next(base, old, result, part / "new.hush")
            if refused := self._guard(old, new) if self._guard else "":
                return Verdict(refused=refused)
            demo = result.plan.demo or base.demo
            if self._by_devices:
                return self._candidates.stage(result, new.root, demo=demo)
            self._repository.publish(new.root, ledger_head=str(result.anchor), demo=demo)
            self._forget()
            return Verdict()

    def _next(self, base: Release, old: Bundle, result: RoundResult, out: Path) -> Bundle:
        """The next bundle; its master and optimizer are kept before anybody hears of it."""
        plan, content = result.plan, content_of(base)
        layout = ParameterLayout.of(old.manifest, plan.parts)
        adam = self._masters.optimizer(content, plan, layout, self._optimizer)
        master = self._masters.master(content) or Master.of(old)
        share = share_of_rate(result.number, plan.rounds, plan.noise_to_clip)
        master.apply(layout, share * adam.step(decode_sum(plan, result.noised)), lambda: Content.whole(old))
        origins = _origins(old.manifest, plan)
        before = self._offered.round_of(base)
        compared = self._by_devices or (before is not None and before.compared)
        new = write_release(old, out, master, card=_card(old, result, origins, compared=compared), origins=origins)
        hashes = {name: info.sha256 for name, info in new.manifest.files.items()}
        self._masters.keep(content_of(hashes), master, plan, adam, base=content)
        return new

    def _heads(self) -> dict[Anchor, str]:
        """Where the ledger stood after each round whose model devices could see, and by which model that is known."""
        heads = {}
        for found in self._candidates.seen():
            name = f"what devices compared, of round {found.number} of plan {found.plan[:16]}"
            heads[Anchor.parse(found.ledger)] = name
        for release in self._offered.releases():
            came_of = self._offered.round_of(release)
            if came_of is not None:
                told = [came_of.ledger]
                # Of the round that compared it; of a roll-back the head may be another ledger's.
                if came_of.compared and came_of.base + 1 == release.model_version and release.ledger_head:
                    told.append(release.ledger_head)
                name = f"release {release.model_version}, of round {came_of.number} of plan {came_of.plan[:16]}"
                heads |= dict.fromkeys(map(Anchor.parse, told), name)
        return heads

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A folder on the repository's file system, gone when the block ends."""
        with tempfile.TemporaryDirectory(dir=self._masters.folder, prefix="part-") as part:
            yield Path(part)

    def _last_out(self, plan_id: str) -> int:
        """The newest round of a plan that a release came of; 0: none."""
        found = (self._offered.round_of(release) for release in self._offered.releases())
        return max((each.number for each in found if each is not None and each.plan == plan_id), default=0)

    def _forget(self) -> None:
        """Let go of what belongs to releases that were pruned, and to refusals that a release has overtaken."""
        staged = self._repository.candidate()
        held = {content_of(release) for release in (*self._repository.list(), *([] if staged is None else [staged]))}
        self._masters.forget(held)
        self._candidates.forget()


def _origins(manifest: Manifest, plan: Plan) -> dict[str, str]:
    """Origin of the files that a round may change: its own run, if there was nothing but public facts before."""
    own = f"dp({plan.plan_id})"
    trained = _ENCODER_FILES if plan.parts in ("adapter", "encoder") else CHANGED_FILES
    found = {}
    for name in CHANGED_FILES:
        if name in manifest.files:
            before = manifest.files[name].origin
            after = own if before in ("public", own) else "private"  # what two runs made has no epsilon of its own here
            found[name] = after if name in trained else before
    return found


def _card(bundle: Bundle, result: RoundResult, origins: dict[str, str], *, compared: bool) -> dict[str, Any]:
    """The model card: nothing of the old one that was measured on the old weights.

    Which models went out depends on what devices found, if they compared them: that has an epsilon of its own, which no
    single plan knows, so the headline says that it is not in there.
    """
    plan, old = result.plan, bundle.manifest
    others = [info.origin for name, info in old.files.items() if name not in origins]
    headline = str(old.card["headline"])
    if not unguaranteed((*others, *origins.values())):
        reached = guarantee_after(plan_opening(plan), result.number, result.number)
        headline = f"epsilon {rounded_up(reached.epsilon, 4)} at delta {plan.delta} for {reached.unit}"
        headline += "; what rounds cost in which devices compared models comes on top" if compared else ""
    return {
        "headline": headline,
        **{name: old.card[name] for name in _KEPT_FACTS if name in old.card},
        "made_by": f"hushrec {version('hushrec')}",
        "round": {
            "plan": plan.plan_id,
            "number": result.number,
            "devices": result.survivors,
            "base": old.model_version,
            "ledger": str(result.anchor),
            "demo": plan.demo,
            "compared": compared,
        },
    }
