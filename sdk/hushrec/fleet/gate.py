"""The one place that says whether a message may leave now: consent first, then the conditions.

Every request passes `check` just before its bytes are made, and training asks `closed` at every batch. Consent that is
withdrawn on another thread takes effect at the next of these.
"""

import threading

from hushrec_privacy.errors import FleetError

from hushrec.fleet.callbacks import called
from hushrec.fleet.conditions import Conditions, ConditionSource, Require, allowed

__all__ = ["CONDITIONS", "GATED", "NO_CONSENT", "STOPPED", "Gate"]

NO_CONSENT = "no-consent"
CONDITIONS = "conditions"
STOPPED = "stopped"
GATED = (NO_CONSENT, CONDITIONS, STOPPED)
"""Reasons of this device itself, not of the server."""

_WORDS = {
    STOPPED: "the app is stopping this work",
    NO_CONSENT: "the shopper has not agreed, or has withdrawn; nothing is sent",
    CONDITIONS: "the device is in use, on battery, or on a network that costs; it waits",
}


class Gate:
    """Consent and conditions of one device; safe to use from several threads.

    Args:
        conditions: What the app says of the moment.
        require: What is needed.
        consent: Whether the shopper agrees.
    """

    def __init__(self, conditions: ConditionSource, require: Require, *, consent: bool) -> None:
        self._conditions, self._require, self._consent = conditions, require, consent is True
        self._stop, self._wake = threading.Event(), threading.Event()

    @property
    def consent(self) -> bool:
        """Whether the shopper agrees; nothing but True is consent."""
        return self._consent

    @consent.setter
    def consent(self, agreed: bool) -> None:
        self._consent = agreed is True
        self.wake()

    @property
    def stopping(self) -> bool:
        """Whether the app ends this work for now."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let nothing more pass until `reopen`."""
        self._stop.set()
        self.wake()

    def reopen(self) -> None:
        """Undo `stop`."""
        self._stop.clear()

    def wake(self) -> None:
        """End a pause: there is something to do."""
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Sleep so long, or until `wake`."""
        if self._wake.wait(max(0.0, seconds)):
            self._wake.clear()

    def closed(self, *, masked: bool = False) -> str | None:
        """Why nothing may be sent now: one of the three names; None: it may.

        Args:
            masked: See `hushrec.fleet.conditions.allowed`.

        Raises:
            CallbackError: The app's `conditions` failed.
        """
        if not self._consent:
            return NO_CONSENT
        if self._stop.is_set():
            return STOPPED
        now = called("conditions", self._conditions, Conditions)
        return None if allowed(now, self._require, masked=masked) else CONDITIONS

    def check(self, *, masked: bool = False) -> None:
        """Let a message pass.

        Raises:
            FleetError: It may not leave now; `reason` is one of the three names.
        """
        reason = self.closed(masked=masked)
        if reason is not None:
            raise FleetError(_WORDS[reason], reason=reason)
