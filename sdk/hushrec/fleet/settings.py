"""What an app fixes when it lets a device take part: whom it trusts, where things are kept, and the device's limits."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hushrec_privacy.plans.limits import DeviceLimits

from hushrec.fleet.callbacks import checked_callable, checked_kind
from hushrec.fleet.conditions import Require
from hushrec.fleet.fleet_file import FleetFile
from hushrec.vault_key import checked_key

__all__ = ["FleetSettings"]


@dataclass(frozen=True)
class FleetSettings:
    """Settings of a `FleetClient`.

    Attributes:
        trust: The shop's fleet file, shipped with the app.
        folder: Of this device and shop alone: vault, participation record, releases. Made if it is missing.
        vault_key: 32 bytes that open the vault; None: the system's keyring keeps them. `repr` hides them.
        limits: What this device allows at most, whatever a signed plan says.
        require: Which conditions must hold.
        clock: Seconds since 1970-01-01 UTC.

    Raises:
        ConfigError: One is not of its kind; says what to pass.
    """

    trust: FleetFile
    folder: Path
    vault_key: bytes | None = field(default=None, repr=False)
    limits: DeviceLimits = field(default_factory=DeviceLimits)
    require: Require = field(default_factory=Require)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """Refuse what nobody could have meant."""
        checked_kind("trust", self.trust, FleetFile, "FleetFile.read(Path(...)) of the shop's fleet file")
        checked_kind("folder", self.folder, (str, os.PathLike), "a Path")
        checked_kind("limits", self.limits, DeviceLimits, "a DeviceLimits")
        checked_kind("require", self.require, Require, "a Require")
        checked_callable("clock", self.clock, "a function that gives seconds since 1970-01-01 UTC")
        if self.vault_key is not None:
            checked_key(self.vault_key)
