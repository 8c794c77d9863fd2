"""`FleetClient`: what an app holds to let its shopper's device learn with others.

    fleet = FleetClient(
        "https://learn.shop.example",
        recommender,
        FleetSettings(trust=FleetFile.read(shipped), folder=Path("fleet")),
        conditions=lambda: Conditions(idle=..., charging=..., unmetered=...),
        token=shop.login_token,
        consent=shopper_said_yes,
    )
    fleet.start()

It wires parts that are tested by themselves, and decides nothing of its own (see `participant`, `joining`, `gate`).
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from hushrec_privacy.canonical import float_text
from hushrec_privacy.errors import ConfigError, FleetError, HushrecError
from hushrec_privacy.ledger import MemoryLedgerStore, ParticipationRecord
from numpy.typing import NDArray

from hushrec.addresses import checked_url
from hushrec.fleet.callbacks import CallbackError, checked_callable, checked_kind
from hushrec.fleet.clocks import elapsed_s
from hushrec.fleet.conditions import ConditionSource
from hushrec.fleet.contribution import Contribution, Contributor
from hushrec.fleet.features import Features
from hushrec.fleet.folder import FleetFolder
from hushrec.fleet.gate import NO_CONSENT, STOPPED, Gate
from hushrec.fleet.http import Connection, HttpConnection
from hushrec.fleet.membership import Membership
from hushrec.fleet.models import Models
from hushrec.fleet.participant import Participant, Parts, Refusal
from hushrec.fleet.sealed_store import SealedStore
from hushrec.fleet.server import Authority, FleetServer
from hushrec.fleet.settings import FleetSettings
from hushrec.fleet.worker import Worker
from hushrec.profile import Profile
from hushrec.recommender import Recommender

if TYPE_CHECKING:
    from hushrec.updates import Updater

__all__ = ["LEFT", "FleetClient", "FleetStatus"]

LEFT = (
    "This device has left: its keys and certificates are forgotten, and nothing more is sent. What it sent stays in "
    "sums of many devices. The record of how often it took part stays here, so that nothing is ever spent twice."
)
FAILED = "failed"
"""Reason and state of a client whose thread ended by an error."""

_AGAIN_S = 60.0
_STOP_S = 30.0


class FleetStatus(NamedTuple):
    """What an app may show.

    Attributes:
        state: "off" (no consent), "waiting" (for conditions or a round), "round" (in one), "failed" (`conditions` or
            `token` raised an error, which ended the thread, or there is a fault of hushrec; nothing is sent, and
            `refusal` says what it was; `start` begins anew), or "closed".
        phase: Of the round, 1 to 6; 0: in none.
        rounds: Rounds that were done since the client was opened.
        refusal: Why the last thing was not done; None: nothing to tell.
        rho_left: What the device may still spend in its lifetime, a decimal string; None: not known, since its record
            is sealed and nobody has agreed to its being opened.
        model_version: Of the newest bundle on this device; 0: none.
    """

    state: str
    phase: int
    rounds: int
    refusal: Refusal | None
    rho_left: str | None
    model_version: int


class FleetClient:
    """One device of one shopper in one shop's fleet; safe to use from several threads.

    Guarantee:
        While `consent` is not True, no socket is opened, no name is looked up, and the vault stays closed: a keyring is
        not asked either, but by `leave`, and by `receipt` if it is told to. Consent that is withdrawn takes effect
        before the next message, and within a batch of training.

    Args:
        url: Address of the shop's server: https, or http on this machine itself. Releases lie under it.
        shopper: The shopper's recommender, or a profile alone. A recommender is never locked by this client, and one
            that is kept in a file may be closed and opened anew meanwhile.
        settings: Trust, folder, limits.
        conditions: Says how things are now; called from the client's thread, must return at once.
        token: Gives what the shop's own login says of the shopper's account, for the id of a plan; called once a plan.
        consent: Whether the shopper agreed.

    Raises:
        ConfigError: The address or an argument is wrong, or another client, of this process or another, uses the
            folder.
        LedgerError: There is consent, and the participation record cannot be used.
        VaultError: There is consent, and the vault cannot be opened.
    """

    def __init__(
        self,
        url: str,
        shopper: Recommender | Profile,
        settings: FleetSettings,
        *,
        conditions: ConditionSource,
        token: Callable[[str], str],
        consent: bool = False,
    ) -> None:
        checked_kind("url", url, str, "the address of the shop's server, a text")
        checked_kind("shopper", shopper, (Recommender, Profile), "a Recommender or a Profile")
        checked_kind("settings", settings, FleetSettings, "FleetSettings(trust=..., folder=...)")
        checked_callable("conditions", conditions, "a function without arguments that gives Conditions(...)")
        checked_callable("token", token, "a function that gives the login's token, a text, for the id of a plan")
        self._url, self._settings = checked_url(url), settings
        self._gate = Gate(conditions, settings.require, consent=consent)
        self._stepping = threading.Lock()
        self._closed = False
        self._shipped = shopper.bundle if isinstance(shopper, Recommender) else None
        with ExitStack() as stack:  # closes what was opened if a later part fails
            self._folder = stack.enter_context(FleetFolder(settings.folder))
            self._profile = _own_profile(shopper, stack)
            self._lifetime_rho = float_text(settings.limits.lifetime_rho)
            self._store = SealedStore(self._folder, settings.vault_key, lifetime_rho=self._lifetime_rho)
            stack.callback(self._store.close)
            if consent is True:
                self._store.record()  # what is wrong with it shows now; consent that comes later opens it in a step
            server, authority = self._connection(self._url), self._connection(settings.trust.authority)
            stack.callback(server.close)
            stack.callback(authority.close)
            self._closing = stack.pop_all()
        self._membership = Membership(self._store.vault, Authority(authority, self._gate), token, settings.trust.server)
        self._features = Features(self._store.record, settings.limits)
        self._models = Models(self._updater, self._shipped, self._profile.hash_record)
        self._participant = Participant(self._parts(server))
        self._worker = Worker(self.step, self._gate)

    @property
    def consent(self) -> bool:
        """Whether the shopper agrees; set it at any time, from any thread."""
        return self._gate.consent

    @consent.setter
    def consent(self, agreed: bool) -> None:
        self._gate.consent = agreed

    def step(self) -> float:
        """Do one thing: a request, the download of a release, or the training of a round.

        What goes wrong is in `status`, and comes back as a longer wait.

        Returns:
            Seconds until the next call makes sense.

        Raises:
            CallbackError: `conditions` or `token` raised an error, its cause, or gave what it must not.
            ConfigError: The client is closed.
        """
        with self._stepping:
            if self._closed:
                raise ConfigError("the fleet client is closed; open another one")
            try:
                return self._participant.step()
            except HushrecError as error:
                self._participant.refusal = Refusal(error.code, error.message)
                return _AGAIN_S
            except CallbackError as error:
                self._participant.refusal = Refusal(FAILED, f"{error}; mend it, and start again")
                raise
            except Exception as error:  # not its text, which may hold what is private
                self._participant.refusal = Refusal(FAILED, f"{type(error).__name__} in hushrec; please report it")
                raise

    @property
    def bundle(self) -> Path | None:
        """Folder of the newest bundle on this device: open the recommender anew with it when its version rises."""
        return self._models.known_root

    def start(self) -> None:
        """Take part from now on, in a thread of lowest priority; a second time changes nothing.

        Raises:
            ConfigError: The client is closed.
        """
        if self._closed:
            raise ConfigError("the fleet client is closed; open another one")
        self._worker.start()

    def stop(self) -> bool:
        """End the thread. A round that it was in is left; what was spent stays spent.

        Returns:
            Whether it has ended; False: a request is on its way still, and the thread ends after it.
        """
        ended = self._worker.stop(_STOP_S)
        if ended:
            with self._stepping:
                self._participant.leave_round(STOPPED, "the app stopped it")
        return ended

    def status(self) -> FleetStatus:
        """What an app may show; never waits for a step.

        Raises:
            LedgerError: The participation record cannot be read.
        """
        run = self._participant.run
        return FleetStatus(
            state=self._state(),
            phase=run.phase if run else 0,
            rounds=self._participant.rounds,
            refusal=self._participant.refusal,
            rho_left=self._rho_left() if not self._closed else self._last_rho_left,
            model_version=self._models.known_version,
        )

    def receipt(self, *, unseal: bool = False) -> str:
        """The device's privacy receipt for its shopper, in Markdown.

        Without consent the record stays sealed, and a device that kept one says so. Ask the shopper, and open it.

        Args:
            unseal: Open the record for this although there is no consent; a keyring that has its key is asked.

        Raises:
            ConfigError: The client is closed.
            LedgerError: The participation record cannot be read.
            VaultError: The vault cannot be opened.
        """
        from hushrec_privacy.report.receipt import device_receipt

        from hushrec.receipt import SEALED_PAGE, receipt_page

        if self._store.is_new:
            nothing = MemoryLedgerStore()
            ParticipationRecord.begin(nothing, lifetime_rho=self._lifetime_rho)
            return receipt_page(device_receipt(nothing))
        if self.consent or unseal or self._store.is_open:
            return receipt_page(device_receipt(self._store.ledger()))
        return SEALED_PAGE

    def allow_direct(self, name: str, agreed: bool) -> None:
        """Say whether the shopper agrees that a payload of this name is sent by itself, where the server sees it.

        A consent of its own beside `consent`, which is needed as well; it is not kept when the app ends.

        Args:
            name: As a signed plan lists it.
            agreed: Whether the shopper does.
        """
        self._features.allow(name, agreed)

    def send_features(self, name: str, vector: NDArray[np.floating]) -> str:
        """Give a vector that a signed plan asks for by name: interests, a user vector, a counter of the app.

        What a plan sums waits in memory for a round of it and goes into secure aggregation. What a plan lists as
        direct is noised on this device and sent by itself, sealed; only after `allow_direct`. A later vector of a name
        replaces one that waits. To keep the fact of sending from telling anything, give vectors for all shoppers alike,
        at times that do not depend on what they do.

        Args:
            name: Of a segment or a direct payload of a plan that this device may join.
            vector: As long as the plan says, in its own unit; clipped to the plan's bound before anything leaves.

        Returns:
            "aggregate" or "direct".

        Raises:
            ConfigError: No plan asks for it, or it has another length.
            FleetError: The plans are not known yet ("not-now"), or it is direct and not agreed to ("no-consent").
        """
        if not self._participant.plans:
            raise FleetError("the plans of the fleet are not known yet", reason="not-now", retry_after_s=_AGAIN_S)
        direct = self._features.give(name, vector, self._participant.plans)
        self._gate.wake()
        return "direct" if direct else "aggregate"

    def leave(self) -> str:
        """Withdraw consent, leave the round, forget keys and certificates; the participation record stays.

        An account gets one certificate a plan, so this device comes back with the next plan, not with this one. The
        vault is opened for this, if there is one, and a keyring that has its key is asked.

        Returns:
            What to tell the shopper.

        Raises:
            VaultError: The vault cannot be written.
        """
        self.consent = False
        with self._stepping:
            self._participant.leave_round(NO_CONSENT, "the shopper left")
            self._features.forget()
            if not self._store.is_new:
                self._membership.forget()
        return LEFT

    def close(self) -> None:
        """Stop, and let another process use the folder. Closing twice is allowed."""
        self.stop()
        with self._stepping:
            if not self._closed:
                self._last_rho_left, self._closed = self._rho_left(), True
                self._closing.close()

    def __enter__(self) -> "FleetClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _state(self) -> str:
        if self._closed:
            return "closed"
        if self._worker.died:
            return FAILED
        if not self.consent:
            return "off"
        return "round" if self._participant.run else "waiting"

    def _rho_left(self) -> str | None:
        if self._store.is_open:
            return self._store.record().totals().rho_left or "0"
        return self._lifetime_rho if self._store.is_new else None

    def _connection(self, url: str) -> Connection:
        return HttpConnection(url)

    def _contributor(self) -> Contributor:
        return Contribution(self._profile, self._features, self._settings.clock)

    def _timer(self) -> float:
        return elapsed_s()

    def _updater(self) -> "Updater":
        from hushrec.updates import Updater

        settings = self._settings
        return Updater(
            f"{self._url}/releases",
            self._folder.releases,
            settings.trust.root.encode(),
            limits=settings.limits,
            shipped=self._shipped_root(),
            clock=settings.clock,
        )

    def _shipped_root(self) -> Path | None:
        """What the app came with; None if its recommender uses a release that was fetched here."""
        root = None if self._shipped is None else self._shipped.root
        return None if root is not None and root.is_relative_to(self._folder.releases.resolve()) else root

    def _parts(self, server: Connection) -> Parts:
        settings = self._settings
        return Parts(
            server=FleetServer(server, settings.trust, self._gate, settings.clock, self._timer),
            membership=self._membership,
            record=self._store.record,
            models=self._models,
            contributor=self._contributor(),
            features=self._features,
            gate=self._gate,
            limits=settings.limits,
            plan_key=settings.trust.plan_public,
            clock=settings.clock,
            timer=self._timer,
        )


def _own_profile(shopper: Recommender | Profile, stack: ExitStack) -> Profile:
    """The shopper's profile, opened once more if it is in a file: the app may close its own."""
    profile = shopper.profile if isinstance(shopper, Recommender) else shopper
    return profile if profile.path is None else stack.enter_context(Profile(profile.path))
