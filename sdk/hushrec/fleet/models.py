"""Which bundle this device has, and how it gets the newest: what a round starts from must be exactly this one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hushrec_privacy.errors import ReleaseError

from hushrec.bundle import Bundle, HashRecord

if TYPE_CHECKING:
    from hushrec.updates import Updater

__all__ = ["Models"]


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
