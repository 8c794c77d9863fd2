"""Which bundle this device has, and how it gets the newest: what a round starts from must be exactly this one.

What a plan that compares compares with it lies beside it, and is never in use.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hushrec_privacy.errors import ReleaseError

from hushrec.bundle import Bundle, HashRecord

if TYPE_CHECKING:
    from hushrec.updates import Updater

__all__ = ["Compared", "Models"]


class Compared(NamedTuple):
    """A candidate on this device.

    Attributes:
        sha256: Hash of its bundle, by which a round names it.
        bundle: None: it does not work on this device.
    """

    sha256: str
    bundle: Bundle | None


class Models:
    """The bundle in use. Not for several threads at once.

    Args:
        updater: Makes the device's updater; called when it is first needed.
        shipped: What the app opened itself, if anything.
        record: Where hashes that were found right are kept.
    """

    def __init__(self, updater: "Callable[[], Updater]", shipped: Bundle | None, record: HashRecord) -> None:
        self._make, self._bundle, self._record = updater, shipped, record
        self._updater: Updater | None = None

    def newest(self) -> Bundle | None:
        """The newest bundle on this device; None: there is none yet.

        Raises:
            BundleError: It is damaged.
            ReleaseError: The folder of releases cannot be made.
        """
        self._opened()
        return self._bundle

    @property
    def known_version(self) -> int:
        """Model version of the bundle that was looked at last; 0: none. Opens nothing."""
        return 0 if self._bundle is None else self._bundle.manifest.model_version

    @property
    def known_root(self) -> Path | None:
        """Folder of the bundle that was looked at last; None: there is none. Opens nothing."""
        return None if self._bundle is None else self._bundle.root

    def version(self) -> int:
        """Model version of the newest bundle; 0: there is none.

        Raises:
            BundleError: It is damaged.
            ReleaseError: The folder of releases cannot be made.
        """
        bundle = self.newest()
        return 0 if bundle is None else bundle.manifest.model_version

    def fetch(self, stop: Callable[[], bool]) -> None:
        """Make the newest release the bundle in use, however long that takes.

        Args:
            stop: Asked before each request, and between pieces of a download; what is here by then is not downloaded
                again.

        Raises:
            BundleError: What is here is damaged.
            FleetError: The server cannot be reached.
            ReleaseError: The release is refused, or does not work here.
        """
        updater = self._opened()
        if updater.fetch(stop) is not None:
            self._look(updater)

    def candidate(self, stop: Callable[[], bool]) -> Compared | None:
        """Have here what is to be compared with the bundle in use, however long that takes.

        Args:
            stop: As for `fetch`.

        Returns:
            None: there is nothing to compare, or it was stopped.

        Raises:
            BundleError: What is here is damaged.
            FleetError: The server cannot be reached; or a newer release than the bundle in use is out ("release").
            ReleaseError: The candidate, or the release, is refused.
        """
        updater = self._opened()
        found = updater.candidate(stop)
        self._look(updater)
        if found is None:
            return None
        bundle = None if found.path is None else Bundle.open(found.path, record=self._record)
        return Compared(found.sha256, bundle)

    def _opened(self) -> "Updater":
        if self._updater is None:
            self._updater = self._make()
            self._look(self._updater)
        return self._updater

    def _look(self, updater: "Updater") -> None:
        try:
            path = updater.current()
        except ReleaseError:
            return  # nothing was fetched yet
        if self._bundle is None or path.resolve() != self._bundle.root:
            self._bundle = Bundle.open(path, record=self._record)
