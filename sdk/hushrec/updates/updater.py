"""The device's side of a release: look, download, assemble, try out, switch over; the last good one stays until then.

Every method may be killed at any moment and called again. Nothing here runs by itself or touches a recommender: the
app calls `step` now and then from a thread of its own, and opens `current()` anew when it likes.
"""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from hushrec_privacy import checks
from hushrec_privacy.errors import BundleError, FleetError, HushrecError, ReleaseError
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits

from hushrec.addresses import checked_url
from hushrec.bundle import Bundle
from hushrec.file_lock import file_lock
from hushrec.releases import Release
from hushrec.updates.self_test import self_test
from hushrec.updates.store import UpdateStore, bundle_version

if TYPE_CHECKING:
    from hushrec.updates.source import Source

__all__ = ["Progress", "Updater"]

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
        from hushrec.updates.source import Source

        if self._found is not None and time.monotonic() < self._found[2]:
            return self._found
        self._found = None
        source = Source(self._url, self._store.metadata, self._root, self._clock(), time.monotonic)
        source.fetcher.deadline, source.fetcher.stop = deadline, stop
        release = source.newest()
        if release is None or not self._is_wanted(release):
            return None
        self._found = (source, release, time.monotonic() + LOOK_AGAIN_S)
        state = self._store.state()
        self._store.tidy((state.current, state.previous), release)
        if (missing := self._store.missing(release)) and self._shipped is not None:
            self._store.adopt(self._shipped, missing)
        return self._found

    def _is_wanted(self, release: Release) -> bool:
        state = self._store.state()
        if release.model_version < state.current:
            raise ReleaseError(
                f"the repository offers release {release.model_version}; {state.current} is in use, and a device never "
                "goes back: publish the older content under a higher version"
            )
        if release.demo and not self._demo_allowed:
            raise ReleaseError(f"release {release.model_version} is a DEMO and protects nobody; this device refuses it")
        in_use = 0
        with contextlib.suppress(ReleaseError):
            in_use = bundle_version(self.current(verify=True))  # a damaged one is fetched again
        return release.model_version > max(in_use, state.refused)

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
            if tries > MAX_TRIES:
                raise ReleaseError(f"release {version} ended the process {MAX_TRIES} times while it was tried out")
            path = self._store.assemble(release)
            self._store.set_state(msgspec.structs.replace(state, tried=version, tries=tries))
            self_test(path)
        except ReleaseError:
            if self._store.missing(release, verify=True):
                raise  # this disk damaged it: fetched again, and not held against the release
            self._store.set_state(msgspec.structs.replace(state, refused=version, tried=0, tries=0))
            self._store.tidy((state.current, state.previous))
            raise
        good = state.current if state.current != version and _is_whole(self._store.directory(state.current)) else 0
        previous = good or state.previous
        done = msgspec.structs.replace(state, current=version, previous=previous, tried=0, tries=0)
        self._store.set_state(done)
        self._store.tidy((done.current, done.previous))

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
