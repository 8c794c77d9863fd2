"""A new model that waits: staged, compared by devices with the release in use, and then out or refused.

What devices found is a noised sum of a round of a plan that compares; see `hushrec_privacy.plans.schema.GAIN`. A
refusal is on the disk before the candidate is withdrawn, so that whoever dies between the two neither asks again nor
lets it out. One lock over all processes: none stages what another one has refused meanwhile.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from hushrec.file_lock import file_lock
from hushrec.releases import Release
from hushrec_privacy import checks
from hushrec_privacy.encoding.readings import Reading, read_counts
from hushrec_privacy.encoding.sums import decode_sum
from hushrec_privacy.errors import ReleaseError
from hushrec_privacy.plans.schema import EVALUATION, GAIN

from hushrec_server.masters import write_durably
from hushrec_server.offered import Offered, OfRound
from hushrec_server.publishing import RoundResult, Verdict
from hushrec_server.releases import ReleaseRepository

__all__ = ["Candidates", "Refused", "Seen", "worse"]

_WAIT_S = 120.0
_NDCG = 1  # place in both segments


def worse(readings: Mapping[str, Reading], most_loss: float) -> str:
    """What devices found, if a candidate loses more than it may; empty: it does not.

    Args:
        readings: Of a round of a plan that compares, by segment.
        most_loss: Share of the NDCG@10 of the release in use.
    """
    gain, before = readings[GAIN], readings[EVALUATION]
    gained, found = float(gain.values[_NDCG]), float(before.values[_NDCG])
    if gained >= -most_loss * max(found, 0.0):
        return ""
    return (
        f"devices compared: NDCG@10 would change by {gained:.3g}, where the release in use has {found:.3g} "
        f"(sums over devices; noise has a deviation of {gain.deviation:.2g} and {before.deviation:.2g})"
    )


class Refused(msgspec.Struct, frozen=True):
    """A candidate that devices refused.

    Attributes:
        bundle: Hash that names it.
        version: Its model version.
        plan: Id of the plan whose round made it.
        number: Of the round.
        ledger: Where the ledger stood when devices had compared it, the text of an `Anchor`.
        reason: What they found.
    """

    bundle: str
    version: int
    plan: str
    number: int
    ledger: str
    reason: str


class Seen(NamedTuple):
    """A round whose model devices could fetch: plan, number, and where the ledger stood."""

    plan: str
    number: int
    ledger: str


class Candidates:
    """The candidate of a repository, and those that were refused since the newest release.

    Args:
        repository: Its targets key and online key must be at hand.
        offered: Of the same repository.
        folder: For refusals; readable by its owner alone.
        most_loss: Share of its NDCG@10 on devices that a new model may lose.

    Raises:
        ConfigError: `most_loss` is no share.
    """

    def __init__(self, repository: ReleaseRepository, offered: Offered, folder: Path, *, most_loss: float) -> None:
        checks.share(most_loss=most_loss)
        self._repository, self._offered, self._folder = repository, offered, folder
        self._most_loss = most_loss

    def current(self) -> Release | None:
        """What devices are to compare now; None: there is nothing.

        Raises:
            ReleaseError: The repository is damaged.
        """
        staged = self._offered.candidate()
        return None if staged is None or self._file(staged.bundle).exists() else staged

    def waiting(self, result: RoundResult) -> str:
        """Why the result of a round that trained is not decided; empty: nothing is staged that is not refused.

        Raises:
            ReleaseError: The repository is damaged.
        """
        staged = self.current()
        if staged is None:
            return ""
        found = self._offered.round_of(staged)
        own = found is not None and (found.plan, found.number) == (result.plan.plan_id, result.number)
        return _waiting(staged) if own else f"{_waiting(staged)}; this round's model comes after it"

    def refusal(self, result: RoundResult) -> str:
        """Why devices refused the model of a round; empty: they did not.

        Raises:
            ReleaseError: What is kept of refusals cannot be read.
        """
        key = result.plan.plan_id, result.number
        return next((each.reason for each in self._refused() if (each.plan, each.number) == key), "")

    def stage(self, result: RoundResult, bundle: Path, *, demo: bool) -> Verdict:
        """Let devices compare the model of a round. Again is nothing.

        Args:
            result: Of the round.
            bundle: The model.
            demo: See `ReleaseRepository.publish`.

        Returns:
            That it waits, or why it is refused, as another process has found out meanwhile.

        Raises:
            BundleError: It is damaged.
            ReleaseError: There is another candidate, another release came out, or the repository cannot be written.
        """
        with self._alone():
            if refused := self.refusal(result):
                return Verdict(refused=refused)
            self._withdraw_refused()
            return Verdict(waiting=_waiting(self._repository.stage(bundle, ledger_head=str(result.anchor), demo=demo)))

    def decide(self, result: RoundResult) -> None:
        """Let the candidate out, or refuse it, as a round of a plan that compares has it; durable on return.

        Nothing happens if the round compared something else: the result stays what it is, an evaluation.

        Raises:
            ReleaseError: It cannot be written now.
        """
        with self._alone():
            self._withdraw_refused()
            candidate = self._offered.candidate()
            if candidate is None or candidate.bundle != result.release:
                return
            reason = worse(read_counts(result.plan, decode_sum(result.plan, result.noised)), self._most_loss)
            if not reason:
                self._repository.accept(candidate.bundle, ledger_head=str(result.anchor))
                return
            self._write(candidate, self._offered.round_of(candidate), str(result.anchor), reason)
            self._repository.withdraw()

    def seen(self) -> list[Seen]:
        """The rounds whose models devices could fetch since the newest release, though none of them is out.

        Raises:
            ReleaseError: The repository is damaged, or what is kept of refusals cannot be read.
        """
        newest = max((release.model_version for release in self._offered.releases()), default=0)
        found = [Seen(each.plan, each.number, each.ledger) for each in self._refused() if each.version > newest]
        staged = self._offered.candidate()
        came_of = None if staged is None else self._offered.round_of(staged)
        return found if came_of is None else [*found, Seen(came_of.plan, came_of.number, came_of.ledger)]

    def forget(self) -> None:
        """Delete refusals of what cannot be staged any more, since a release of that version is out."""
        newest = max((release.model_version for release in self._offered.releases()), default=0)
        for each in self._refused():
            if each.version <= newest:
                self._file(each.bundle).unlink(missing_ok=True)

    def _withdraw_refused(self) -> None:
        """Finish what a process that died after it had refused did not."""
        staged = self._offered.candidate()
        if staged is not None and self._file(staged.bundle).exists():
            self._repository.withdraw()

    def _write(self, candidate: Release, came_of: OfRound | None, ledger: str, reason: str) -> None:
        plan, number = ("", 0) if came_of is None else (came_of.plan, came_of.number)
        refused = Refused(candidate.bundle, candidate.model_version, plan, number, ledger, reason)
        write_durably(self._file(candidate.bundle), msgspec.json.encode(refused))

    def _refused(self) -> list[Refused]:
        found = []
        for path in self._folder.glob("refused-*.json"):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Refused))
            except FileNotFoundError:  # another process forgot it
                continue
            except (OSError, msgspec.MsgspecError) as error:
                raise ReleaseError(
                    f"{path}: cannot be read ({error}); restore it, or delete it: its model may then be compared again"
                ) from error
        return found

    def _file(self, bundle: str) -> Path:
        return self._folder / f"refused-{bundle}.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from staging and deciding."""
        try:
            with file_lock(self._folder / "candidate.lock", _WAIT_S) as held:
                if not held:
                    raise ReleaseError(f"{self._folder}: another process is at the candidate; try again")
                yield
        except OSError as error:
            raise ReleaseError(f"{self._folder}: cannot be written ({error.strerror})") from error


def _waiting(candidate: Release) -> str:
    return f"model version {candidate.model_version} waits until devices have compared it with the one in use"
