"""The folder in which a device keeps what it needs to take part, and the lock by which one process uses it at a time.

Two processes with one folder would take part twice in one round, or under one identity from two sides. A killed process
lets go of the lock: it belongs to the open file, not to a number written into it.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from hushrec_privacy.errors import ConfigError

from hushrec.file_lock import file_lock

__all__ = ["FleetFolder"]


class FleetFolder:
    """Paths of a device's fleet folder, locked as long as it is open.

    Attributes:
        root: The folder.
        vault: File of keys, certificates and the participation record, sealed.
        plain_record: Where an earlier version kept that record, in a file of its own.
        releases: Folder of downloaded releases.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Lock the folder, making it (for its owner only) if there is none.

        Raises:
            ConfigError: Another client, of whatever process, uses it, or it cannot be made.
        """
        self.root = Path(root).absolute()
        self.vault = self.root / "vault.db"
        self.plain_record = self.root / "participation.db"
        self.releases = self.root / "releases"
        try:
            self.root.mkdir(mode=0o700, exist_ok=True)
            self._lock = ExitStack()
            held = self._lock.enter_context(file_lock(self.root / "lock", wait_s=0))
        except OSError as error:
            raise ConfigError(f"{self.root}: cannot be the fleet's folder: {error.strerror}") from error
        if not held:
            self._lock.close()
            raise ConfigError(
                f"{self.root}: another client, of this process or another, takes part with this folder; "
                "close that one: one device, one client"
            )
        for left in self.root.glob(f"{self.vault.name}.*.new*"):  # by a process that was killed as it made the vault
            left.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process use it. Closing twice is allowed."""
        self._lock.close()

    def __enter__(self) -> "FleetFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
