"""The device's side of a release: look, download, assemble, try out, switch over; the last good one stays until then.

A candidate, which is to be compared before it may be a release, goes the same way but for the last step.

Every method may be killed at any moment and called again. Nothing here runs by itself or touches a recommender: the
app calls `step` now and then from a thread of its own, and opens `current()` anew when it likes.
"""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from hushrec_privacy import checks
from hushrec_privacy.errors import BundleError, FleetError, HushrecError, ReleaseError
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits

from hushrec.addresses import checked_url
from hushrec.bundle import Bundle
from hushrec.file_lock import file_lock
from hushrec.releases import Release
from hushrec.updates.self_test import self_test
from hushrec.updates.store import State, UpdateStore, bundle_version

if TYPE_CHECKING:
    from hushrec.updates.source import Source

__all__ = ["Candidate", "Progress", "Updater"]

MAX_TRIES = 3
"""Self-tests of one release that may end the process before the release counts as one that does not work."""

FETCH_SPAN_S = 60.0
LEAST_BYTES_PER_S = 256
"""A server that sends less over the time it was given is given up until later."""

LOOK_AGAIN_S = 900.0
BUSY_S = 60.0


class Progress(enum.Enum):
    """Where a step ended."""

    NOTHING_NEW = "nothing-new"
    MORE = "more"
    INSTALLED = "installed"


class Candidate(NamedTuple):
    """A release that is not out, on this device.

    Attributes:
        sha256: Hash of its bundle.
        path: The bundle; None: it does not work on this device.
    """

    sha256: str
    path: Path | None


class Updater:
    """Keeps the newest release of one shop on one device. Safe in several threads and processes: one works at a time.

    Args:
        url: Address of the release repository: https, or http on this machine itself.
        folder: Where releases are kept; nothing else may be in it.
        root: Root metadata of the repository, shipped with the app: whom this device believes.
        limits: Of this device; only `UnsafeDemoLimits` accepts releases marked as demonstrations.
        shipped: The bundle that the app came with, if any: in use until a newer release is.
        clock: Seconds since 1970-01-01 UTC, to know what has expired.

    Raises:
        ConfigError: The address is neither https nor on this machine.
        ReleaseError: The folder cannot be made.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        root: bytes,
        *,
        limits: DeviceLimits | None = None,
        shipped: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._root, self._clock = checked_url(url, name="the address of the releases"), root, clock
        self._demo_allowed = isinstance(limits, UnsafeDemoLimits)
        self._shipped = None if shipped is None else Path(shipped)
        with _disk():
            self._store = UpdateStore(Path(folder))
        self._found: tuple[Source, Release, float] | None = None

    def current(self, *, verify: bool = False) -> Path:
        """The bundle to use now. Takes no lock and no network.

        Args:
            verify: Hash every file, and step back to the release before, then to the shipped bundle, if one is damaged.

        Raises:
            ReleaseError: There is none: nothing was shipped, and nothing fetched yet.
        """
        state = self._store.state()
        shipped = 0 if self._shipped is None else bundle_version(self._shipped)
        for version in (state.current, state.previous):
            path = self._store.directory(version)
            if version > shipped and bundle_version(path) == version and (not verify or _is_whole(path)):
                return path
        if self._shipped is not None:
            return self._shipped
        raise ReleaseError("there is no release on this device yet; fetch one")

    def release(self) -> Release | None:
        """What the repository said of the bundle in use; None: it was shipped with the app, or there is none."""
        with contextlib.suppress(ReleaseError):
            path = self.current()
            return None if path == self._shipped else self._store.release(int(path.name))
        return None

    def check(self) -> Release | None:
        """Ask for a newer release, within a minute.

        Returns:
            One that is authentic, newer than what is in use, and not known to fail here; None: there is none.

        Raises:
            FleetError: The server cannot be reached or is too slow; or another process is updating.
            ReleaseError: What it shows is not authentic, past its time, older than what was seen, or a demonstration.
        """
        with self._alone():
            self._found = None
            found = self._look(time.monotonic() + FETCH_SPAN_S, lambda: False)
            return None if found is None else found[1]

    def fetch(self, stop: Callable[[], bool] = lambda: False) -> Path | None:
        """Make the newest release current, however long that takes.

        Args:
            stop: Asked before each request, and between pieces of a download; what is here by then is not downloaded
                again.

        Returns:
            The new current bundle; None: there is nothing newer, or it was stopped.

        Raises:
            FleetError: As for `check`.
            ReleaseError: As for `check`; or the release does not work here, which is remembered; or the disk refused.
        """
        with self._alone():
            try:
                while (progress := self._advance(FETCH_SPAN_S, stop)) is Progress.MORE and not stop():
                    pass
            except FleetError:
                if stop():
                    return None
                raise
        return self.current() if progress is Progress.INSTALLED else None

    def candidate(self, stop: Callable[[], bool] = lambda: False) -> Candidate | None:
        """Have here what is to be compared with the release in use, however long that takes; it is never in use itself.

        It stays until the repository shows another one, or none, or a newer release.

        Args:
            stop: As for `fetch`.

        Returns:
            None: there is nothing to compare, or it was stopped.

        Raises:
            FleetError: As for `check`; or the newest release is not the one in use ("release"): fetch it first.
            ReleaseError: As for `check`, the candidate included; or the disk refused.
        """
        with self._alone():
            try:
                source = self._source(time.monotonic() + FETCH_SPAN_S, stop)
                found = self._offered(source)
                if found is None:
                    self._keep_candidate("")
                    self._store.tidy()
                    return None
                return self._fetched(source, found, stop)
            except FleetError:
                if stop():
                    return None
                raise

    def step(self, budget_s: float = 10.0) -> Progress:
        """Do what can be done in some seconds: the next call goes on from there.

        The look-up of the server's name and the self-test of a release that is whole (well below a second) come on top.

        Args:
            budget_s: Seconds; enough for a handful of small requests, or there will never be any progress.

        Raises:
            ConfigError: `budget_s` is not a finite number above 0.
            FleetError: As for `check`.
            ReleaseError: As for `fetch`.
        """
        checks.positive(budget_s=budget_s)
        with self._alone():
            return self._advance(budget_s, lambda: False)

    def _advance(self, budget_s: float, stop: Callable[[], bool]) -> Progress:
        began = time.monotonic()
        try:
            found = self._look(began + budget_s, stop)
            if found is None:
                return Progress.NOTHING_NEW
            source, release, _ = found
            if not self._download(source, release, began + budget_s, stop):
                return Progress.MORE
            self._install(release)
        except HushrecError:
            self._found = None  # the next call asks the server anew
            raise
        self._found = None
        return Progress.INSTALLED

    def _look(self, deadline: float, stop: Callable[[], bool]) -> "tuple[Source, Release, float] | None":
        if self._found is not None and time.monotonic() < self._found[2]:
            return self._found
        self._found = None
        source = self._source(deadline, stop)
        release = source.newest()
        wanted = release is not None and self._is_wanted(release)
        if self._store.state().candidate and (wanted or not source.has_candidate()):
            self._keep_candidate("")  # superseded; what it has in common with the release stays
            self._store.tidy(release)
        if release is None or not wanted:
            return None
        self._found = (source, release, time.monotonic() + LOOK_AGAIN_S)
        self._store.tidy(release)
        self._adopt(release)
        return self._found

    def _source(self, deadline: float, stop: Callable[[], bool]) -> "Source":
        from hushrec.updates.source import Source

        source = Source(self._url, self._store.metadata, self._root, self._clock(), time.monotonic)
        source.fetcher.deadline, source.fetcher.stop = deadline, stop
        return source

    def _adopt(self, release: Release) -> None:
        if (missing := self._store.missing(release)) and self._shipped is not None:
            self._store.adopt(self._shipped, missing)

    def _is_wanted(self, release: Release) -> bool:
        state = self._store.state()
        self._check(release, state)
        in_use = 0
        with contextlib.suppress(ReleaseError):
            in_use = bundle_version(self.current(verify=True))  # a damaged one is fetched again
        return release.model_version > max(in_use, state.refused)

    def _check(self, release: Release, state: State) -> None:
        if release.model_version < state.current:
            raise ReleaseError(
                f"the repository offers release {release.model_version}; {state.current} is in use, and a device never "
                "goes back: publish the older content under a higher version"
            )
        if release.demo and not self._demo_allowed:
            raise ReleaseError(f"release {release.model_version} is a DEMO and protects nobody; this device refuses it")

    def _offered(self, source: "Source") -> Release | None:
        """The candidate over the release in use."""
        newest, state = source.newest(), self._store.state()
        if newest is None:
            return None
        self._check(newest, state)
        if Bundle.open(self.current(verify=True)).sha256 != newest.bundle:
            raise FleetError(
                f"release {newest.model_version} is the newest one and not in use here; it is fetched first",
                reason="release",
                retry_after_s=0.0,
            )
        found = source.candidate()
        if found is None or found.model_version <= newest.model_version:
            return None
        self._check(found, state)
        return found

    def _fetched(self, source: "Source", found: Release, stop: Callable[[], bool]) -> Candidate | None:
        self._keep_candidate(found.bundle)
        state, path = self._store.state(), self._store.directory(found.bundle)
        if state.verdict == "fails":
            return Candidate(found.bundle, None)
        self._store.tidy(found)
        if state.verdict == "works" and _is_whole(path):
            return Candidate(found.bundle, path)
        self._store.missing(found, verify=True)  # a blob may be damaged since it was found right
        self._adopt(found)
        while not self._download(source, found, time.monotonic() + FETCH_SPAN_S, stop):
            if stop():
                return None
        return Candidate(found.bundle, self._tried_candidate(found))

    def _tried_candidate(self, found: Release) -> Path | None:
        state = self._store.state()
        trials = state.trials + 1
        try:
            path = self._try_out(found, found.bundle, msgspec.structs.replace(state, trials=trials, verdict=""), trials)
        except ReleaseError:
            if self._store.missing(found, verify=True):
                raise  # this disk damaged it
            self._store.set_state(msgspec.structs.replace(state, trials=0, verdict="fails"))
            self._store.tidy()
            return None
        self._store.set_state(msgspec.structs.replace(state, trials=0, verdict="works"))
        return path

    def _keep_candidate(self, bundle: str) -> None:
        """Remember which one is kept here from now on, none for ""."""
        state = self._store.state()
        if state.candidate != bundle:
            self._store.set_state(msgspec.structs.replace(state, candidate=bundle, trials=0, verdict=""))

    def _download(self, source: "Source", release: Release, deadline: float, stop: Callable[[], bool]) -> bool:
        """Whether every blob is here; False: stopped, or out of time with something gained."""
        began, had = time.monotonic(), source.fetcher.received
        source.fetcher.deadline, source.fetcher.stop = deadline, stop
        try:
            for file in self._store.missing(release):
                if stop() or not source.download(file, self._store.part(file), stop):
                    return False
                self._store.keep(file)
        except FleetError:
            gained = source.fetcher.received - had
            if time.monotonic() >= deadline and gained > LEAST_BYTES_PER_S * (deadline - began):
                return False
            raise
        return True

    def _install(self, release: Release) -> None:
        version, state = release.model_version, self._store.state()
        tries = state.tries + 1 if state.tried == version else 1
        try:
            self._try_out(release, version, msgspec.structs.replace(state, tried=version, tries=tries), tries)
        except ReleaseError:
            if self._store.missing(release, verify=True):
                raise  # this disk damaged it: fetched again, and not held against the release
            self._store.set_state(msgspec.structs.replace(state, refused=version, tried=0, tries=0))
            self._store.tidy()
            raise
        good = state.current if state.current != version and _is_whole(self._store.directory(state.current)) else 0
        previous = good or state.previous
        done = msgspec.structs.replace(state, current=version, previous=previous, tried=0, tries=0)
        self._store.set_state(done)
        self._store.tidy()

    def _try_out(self, release: Release, name: int | str, began: State, tries: int) -> Path:
        """Assemble a release and test it; `began` is kept before the test, which may end the process."""
        if tries > MAX_TRIES:
            raise ReleaseError(
                f"release {release.model_version} ended the process {MAX_TRIES} times while it was tried out"
            )
        path = self._store.assemble(release, name)
        self._store.set_state(began)
        self_test(path)
        return path

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with _disk(), file_lock(self._store.folder / "update.lock", 0) as held:
            if not held:
                raise FleetError("another process is updating this device", reason="busy", retry_after_s=BUSY_S)
            yield


def _is_whole(bundle: Path) -> bool:
    try:
        Bundle.open(bundle, verify=True)
    except BundleError:
        return False
    return True


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ReleaseError(
            f"an update cannot be kept ({reason}); the last good release stays in use: check the space and the folder"
        ) from error
