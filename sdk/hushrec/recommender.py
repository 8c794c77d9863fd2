"""The recommender of one shopper: opens a bundle and a profile, and wires catalogue, engine and ranking together.

Only locks and delegation: what is ranked how is decided in `hushrec.ranking`, what is kept where in `hushrec.profile`.
A profile file belongs to one recommender at a time: what another one adds to it is seen after reopening.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

import msgspec
from hushrec_privacy.checks import at_least
from hushrec_privacy.errors import BundleError, ConfigError, ProfileError

from hushrec.behaviors import DEFAULT_BEHAVIOR, canonical_behavior
from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.engine import Engine
from hushrec.history import History, kept_events
from hushrec.profile import Profile
from hushrec.ranking import Request, bundle_ranking, ranking_arrays
from hushrec.reasons import Explainer, Reason

__all__ = ["Recommendation", "Recommender"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Recommendation(msgspec.Struct, frozen=True):
    """One item to show.

    Attributes:
        item: The shop's id.
        score: Higher is better; comparable inside one list only.
        reason: Why it is shown.
    """

    item: str
    score: float
    reason: Reason


class Recommender:
    """Recommends items of one shop to one shopper, on the shopper's own device; safe to use from several threads.

    Attributes:
        bundle: The opened bundle.
        catalog: What is known of the items.
        profile: What the shopper did.
    """

    def __init__(
        self, bundle: Bundle, catalog: Catalog, profile: Profile, engine: Engine, clock: Callable[[], datetime]
    ) -> None:
        """Wire opened parts together; use `Recommender.open`."""
        self.bundle, self.catalog, self.profile = bundle, catalog, profile
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        model, blend = bundle.manifest.model, bundle.manifest.blend
        self._filter_seen = model.filter_seen
        self._ranking = bundle_ranking(bundle, engine)
        self._explainer = Explainer(blend, ranking_arrays(bundle), model.max_history)
        self._history = History(profile, catalog, model.behaviors, kept_events(bundle.manifest))

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str],
        *,
        profile: str | os.PathLike[str] | None = None,
        verify: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> "Recommender":
        """Open a bundle for one shopper.

        Args:
            bundle: Directory of the bundle.
            profile: File of the shopper's events, made if it does not exist; None keeps them in memory.
            verify: Hash every file of the bundle, even those that the profile has on record as right.
            clock: Says what time it is, as an aware datetime; None: the system's clock.

        Returns:
            The recommender; close it, or use it as a context manager.

        Raises:
            BundleError: The bundle is damaged, foreign or too new.
            ProfileError: The profile cannot be used.
        """
        if profile is not None and Path(profile).resolve().is_relative_to(Path(bundle).resolve()):
            raise ProfileError(f"{profile}: nothing is written into a bundle; keep the profile elsewhere")
        with ExitStack() as stack:  # closes what was opened if a later part fails
            kept = stack.enter_context(Profile(profile))
            opened = Bundle.open(bundle, record=kept.hash_record, verify=verify)
            catalog = stack.enter_context(Catalog(opened.path("catalog.sqlite")))
            if catalog.size != opened.manifest.model.items:
                raise BundleError(f"{catalog.path}: has {catalog.size} items, the model {opened.manifest.model.items}")
            recommender = cls(opened, catalog, kept, Engine(opened, kept), clock or _system_clock)
            stack.pop_all()
            return recommender

    def __enter__(self) -> "Recommender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self, item: str, behavior: str = DEFAULT_BEHAVIOR, at: datetime | None = None) -> None:
        """Take in something the shopper did; the next `recommend` sees it.

        Args:
            item: Any id. One that the catalogue does not have is kept, and counts once a catalogue has it.
            behavior: Kind of event; GA4 names are understood. One that the bundle does not know is kept and read as a
                view.
            at: When, an aware datetime; None: now.

        Raises:
            ConfigError: `at` has no time zone, `item` or `behavior` is not a string, or the recommender is closed.
            ProfileError: The event could not be written.
        """
        if not isinstance(item, str) or not isinstance(behavior, str):
            raise ConfigError(
                f"item and behavior must be strings, not {type(item).__name__}, {type(behavior).__name__}"
            )
        name = canonical_behavior(behavior)
        with self._lock:
            self._check_open()
            at_us = self._microseconds(at)
            self.profile.append(item, name, at_us)
            index = self.catalog.index(item)
            if index:
                self._history.add(index, name, at_us)

    def recommend(
        self,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        within: Mapping[str, str | Sequence[str]] | None = None,
        at: datetime | None = None,
    ) -> list[Recommendation]:
        """Recommend items, the best first.

        Args:
            k: How many, at least 0.
            exclude_seen: Leave out items of the profile; None: as the bundle says.
            within: Only items with these values by column of the catalogue, e.g. `{"category": ["Mugs", "Cups"]}`.
            at: The moment to recommend for, an aware datetime; later events are not seen. None: now.

        Returns:
            At most k different items of the catalogue in falling score; fewer if fewer are left, none if none match.

        Raises:
            ConfigError: `k` is no whole number of at least 0, `at` has no time zone, or the recommender is closed.
            CatalogError: `within` names a column that does not exist.
            ProfileError: The profile cannot be read.
        """
        at_least(0, k=k)
        with self._lock:
            self._check_open()
            at_us = self._microseconds(at)
            recent = self._history.recent(at_us)
            hide = self._filter_seen if exclude_seen is None else exclude_seen
            request = Request(
                items=recent.items,
                behaviors=recent.behaviors,
                k=k,
                hidden=self._history.seen(at_us) if hide else None,
                allowed=self.catalog.mask(within) if within else None,
            )
            ranked = self._ranking.rank(request)
            causes = self._explainer.explain(ranked.items, recent.items, self._history.have_seen(ranked.items, at_us))
            ids = self.catalog.ids
            return [
                Recommendation(item, score, Reason(code, tuple(ids(behind))))
                for item, score, (code, behind) in zip(
                    ids(ranked.items.tolist()), ranked.scores.tolist(), causes, strict=True
                )
            ]

    def unknown_items(self) -> dict[str, int]:
        """Count the events on items that the catalogue does not have, by id.

        Raises:
            ProfileError: The profile cannot be read.
        """
        counts = self.profile.counts()
        known = self.catalog.indexes(counts)
        return {item: count for item, count in counts.items() if item not in known}

    def close(self) -> None:
        """Flush and close the profile and the catalogue. Closing twice is allowed."""
        with self._lock:
            self._closed = True
            self.profile.close()
            self.catalog.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("the recommender is closed; open another one")

    def _microseconds(self, at: datetime | None) -> int:
        moment = self._clock() if at is None else at
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise ConfigError("the time is no datetime with a time zone; give an aware one, e.g. datetime.now(UTC)")
        return (moment - _EPOCH) // _MICROSECOND


def _system_clock() -> datetime:
    return datetime.now(UTC)
