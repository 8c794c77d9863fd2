"""One device in one round: six messages, each made from what the server answered to the one before.

Bell et al. 2020 (eprint 2020/704), the protocol for the malicious server, which also serves the curious one with that
one's k and t. Stricter than there in two points: what is signed is the whole sets of those that shared and survived,
not a neighbour's presence, and masked vectors come with a signature over the first of them (point 4). Against a server
that does what it likes, together with corrupt devices:

 1. Neighbours are chosen after the roster is fixed, by the device alone; every entry of them is opened and checked.
 2. A seed masks the vector by itself, besides the masks of pairs. For each of its choosers a device reveals one share:
    of the seed, or of the mask key. Both are lost only if 2t <= k + corrupt holders (`parameters.py`).
 3. A device reveals only after t of its holders signed the same two sets, shared and survived, with itself in both.
    Honest ones among them never reveal its mask key's share; so the mask key of a device that reveals stays secret.
 4. It reveals seeds only of devices that signed, with their masked vectors, the same set of those that shared: then it
    is in that set, and they masked with it.

So whoever loses its seed has t holders, corrupt or masked with it, whose mask keys stay secret. The server learns of a
vector nothing but sums in which all of these are, and theirs: over `smallest_sum` honest devices at least. A masked
vector that arrives after its device was declared dropped stays hidden by the seed, of which no share is revealed.

What it cannot know: who is behind a certificate (whoever has the authority's key makes devices at will), and whether
another device's vector is within its bounds. What this module does not do: compare the session with the plan, spend the
participation before MASK is sent, keep anything.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.enrolment import Identity, verified_certificate, verify
from hushrec_privacy.errors import ConfigError, EnrolmentError, EnvelopeError, SecAggError
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg.keys import KEY_BYTES, KeyPair, Place, seed_commitment
from hushrec_privacy.secagg.masks import add_mask
from hushrec_privacy.secagg.messages import (
    AGREE_DOMAIN,
    KEY_KIND,
    MASK_DOMAIN,
    NEIGHBOUR_ROW,
    REVEAL_ROW,
    SEALED_BYTES,
    SEED_KIND,
    SHARE_BYTES,
    SIGNED_ROW,
    agreed_bytes,
    limbs_of,
    read_rows,
)
from hushrec_privacy.secagg.packing import element_type, pack
from hushrec_privacy.secagg.parameters import Neighbourhood, neighbourhood
from hushrec_privacy.secagg.roster import SIGNATURE_BYTES, Member, Roster, make_entry
from hushrec_privacy.secagg.session import Phase, Session
from hushrec_privacy.secagg.shamir import LIMBS, split
from hushrec_privacy.secagg.wire import Reader, frame, places_bytes

__all__ = ["SecAggDevice"]

_Places = NDArray[np.int64]
_Set = NDArray[np.bool_]


class _Secrets:
    """What a device draws for one round; gone once its vector is masked."""

    def __init__(self) -> None:
        self.seed = os.urandom(KEY_BYTES)
        self.mask_pair, self.share_pair = KeyPair(os.urandom(KEY_BYTES)), KeyPair(os.urandom(KEY_BYTES))


class SecAggDevice:
    """A device's secrets of one round; each method once, in order. After any error it is dead and reveals nothing.

    Args:
        session: Compared by the caller with the plan and the authority that the device trusts.
        identity: Of this device in this plan.
        certificate: Its signed certificate.
        cohort_floor: Fewest devices that this device joins, whatever the session says.

    Raises:
        SecAggError: The certificate is not this identity's, or not of the session's plan and authority.
    """

    def __init__(self, session: Session, identity: Identity, certificate: bytes, *, cohort_floor: int) -> None:
        try:
            certified = verified_certificate(certificate, session.authority, plan_id=session.plan_id)
        except EnrolmentError as error:
            raise SecAggError("this device's certificate is not of the session's plan and authority") from error
        if certified.identity != identity.public():
            raise SecAggError("this device's certificate names another identity; enrol again")
        self._session, self._identity = session, identity
        self._least = max(cohort_floor, session.min_devices)
        self._next: Phase | None = Phase.ADVERTISE
        secrets = _Secrets()
        self._secrets: _Secrets | None = secrets
        self._held: dict[int, bytes] = {}
        self._entry = make_entry(session, identity, certificate, secrets.mask_pair.public, secrets.share_pair.public)

    def advertise(self) -> bytes:
        """Phase 1: certificate and fresh public keys, signed."""
        with self._step(Phase.ADVERTISE):
            return frame(self._session, Phase.ADVERTISE, self._entry)

    def choose(self, roster: bytes) -> bytes:
        """Phase 2: neighbours, chosen at random from the roster.

        Raises:
            SecAggError: The roster is malformed, too small, without this device, or has one twice.
        """
        with self._step(Phase.CHOOSE):
            self._roster = Roster.decode(self._session, roster)
            self._enough(len(self._roster), "are on the roster")
            self._numbers: Neighbourhood = neighbourhood(len(self._roster), self._session.setting)
            self._number = self._roster.place_of(self._entry)
            self._place = Place(self._session.id, self._roster.root, self._number)
            others = [place for place in range(len(self._roster)) if place != self._number]
            self._chosen: _Places = np.array(
                sorted(random.SystemRandom().sample(others, self._numbers.chosen)), np.int64
            )
            return frame(self._session, Phase.CHOOSE, places_bytes(self._chosen))

    def share(self, neighbours: bytes) -> bytes:
        """Phase 3: shares of the seed and of the mask key, encrypted to each chosen neighbour.

        Raises:
            SecAggError: An entry is missing, changed, not of an enrolled device or not for this session, or too many
                devices are said to have chosen this one.
        """
        with self._step(Phase.SHARE):
            self._members, self._choosers = self._opened(neighbours)
            holders = len(self._chosen) + self._numbers.complete
            mine = self._mine()
            secrets = mine.seed + mine.mask_pair.reveal()
            shares = split(secrets, holders, self._numbers.threshold, OsRandom()).astype("<u2")
            sealed = []
            for row, holder in zip(shares, self._holders(), strict=True):
                if holder == self._number:
                    self._own_share = row[:LIMBS].tobytes()
                    continue
                agreed = mine.share_pair.agree(self._members[holder].share_key)
                sealed.append(self._place.seal(agreed, holder, row.tobytes()))
            commitment = seed_commitment(self._session.id, self._number, mine.seed)
            return frame(self._session, Phase.SHARE, commitment, *sealed)

    def mask(self, shares: bytes, vector: NDArray[np.int64]) -> bytes:
        """Phase 4: the vector under this device's own mask and those of all pairs. The caller has spent the
        participation before it sends the result.

        Args:
            shares: The server's answer to SHARE.
            vector: Shape (d,), whole numbers from -2^(bits-1) to 2^(bits-1) - 1. Private.

        Raises:
            SecAggError: Too few devices shared, fewer than t of this device's holders did, or a share does not open.
            ConfigError: `vector` is not of this ring.
        """
        with self._step(Phase.MASK):
            self._check_vector(vector)
            self._shared, self._held = self._opened_shares(shares)
            masked = vector.astype(element_type(self._session.ring_bits))
            mine = self._mine()
            add_mask(masked, self._place.self_mask_key(mine.seed))
            for other, member in self._members.items():
                if self._shared[other]:
                    key = self._place.pair_mask_key(mine.mask_pair.agree(member.mask_key), other)
                    add_mask(masked, key, subtract=other < self._number)
            self._secrets = None  # the masks are on
            signature = self._identity.sign(MASK_DOMAIN, self._agreed())
            return frame(self._session, Phase.MASK, signature, pack(masked, self._session.ring_bits))

    def agree(self, survivors: bytes) -> bytes:
        """Phase 5: a signature over who shared and who survived.

        Raises:
            SecAggError: Too few survived, this device or t of its holders are not among them, one survived that did
                not share, or one whose share this device holds did not sign the same set of those that shared.
        """
        with self._step(Phase.AGREE):
            reader = Reader(self._session, Phase.MASK, survivors, reply=True)
            self._survived = reader.members(len(self._roster))
            self._check_set(self._survived, "survived")
            if (self._survived & ~self._shared).any():
                raise SecAggError("a device is said to have survived that had dropped out before")
            owners = [owner for owner in self._choosers if self._survived[owner]]
            reader.exactly(SIGNATURE_BYTES * len(owners))
            for owner in owners:
                self._check_signature(owner, MASK_DOMAIN, self._agreed(), reader.take(SIGNATURE_BYTES))
            return frame(self._session, Phase.AGREE, self._identity.sign(AGREE_DOMAIN, self._agreed(self._survived)))

    def reveal(self, agreement: bytes) -> bytes:
        """Phase 6: for each device whose shares this one holds, the seed's share if it survived, else the mask key's.

        Raises:
            SecAggError: Fewer than t of this device's holders signed the same sets, or a signature is wrong.
        """
        with self._step(Phase.REVEAL):
            self._check_agreement(agreement)
            rows = np.zeros(len(self._held), REVEAL_ROW)
            for row, (owner, share) in zip(rows, sorted(self._held.items()), strict=True):
                survived = self._survived[owner]
                row["place"], row["kind"] = owner, SEED_KIND if survived else KEY_KIND
                row["share"] = np.frombuffer(share[:SHARE_BYTES] if survived else share[SHARE_BYTES:], "<u2")
            self._held.clear()
            return frame(self._session, Phase.REVEAL, rows.tobytes())

    def __repr__(self) -> str:
        """Nothing of the secrets."""
        return f"SecAggDevice(next={self._next.name if self._next else None})"

    @contextmanager
    def _step(self, phase: Phase) -> Iterator[None]:
        """Let one phase run, once and in order; whatever goes wrong in it, nothing runs after it."""
        if self._next is not phase:
            raise SecAggError(f"{phase.name} is out of order, or this device has left the round; it reveals nothing")
        self._next = None
        try:
            yield
        except BaseException:
            self._secrets, self._held = None, {}
            raise
        self._next = Phase(phase + 1) if phase < Phase.REVEAL else None

    def _mine(self) -> _Secrets:
        if self._secrets is None:
            raise SecAggError("this device has left the round; it reveals nothing")
        return self._secrets

    def _holders(self) -> list[int]:
        """Places that hold shares of this device's secrets, ascending."""
        own = [self._number] if self._numbers.complete else []
        return sorted([*self._chosen.tolist(), *own])

    def _opened(self, neighbours: bytes) -> tuple[dict[int, Member], list[int]]:
        """All neighbours by place, and which of them chose this device."""
        reader, devices = Reader(self._session, Phase.CHOOSE, neighbours, reply=True), len(self._roster)
        rows = read_rows(reader, NEIGHBOUR_ROW, reader.number(), devices)
        places, choosers = rows["place"].tolist(), rows["place"][rows["chooser"] == 1].tolist()
        if set(places) != {*self._chosen.tolist(), *choosers} or self._number in places or (rows["chooser"] > 1).any():
            raise SecAggError("the opened entries are not those of this device's neighbours")
        if len(choosers) > self._numbers.most_choosers:
            raise SecAggError("more devices are said to have chosen this one than chance allows")
        members = {
            place: self._roster.verified(place, row["entry"].tobytes()) for place, row in zip(places, rows, strict=True)
        }
        identities = {member.identity for member in members.values()} | {self._identity.public()}
        keys = {key for member in members.values() for key in (member.mask_key, member.share_key)}
        keys |= {self._mine().mask_pair.public, self._mine().share_pair.public}
        if len(identities) <= len(members) or len(keys) < 2 * len(members) + 2:
            raise SecAggError("two devices of the roster have the same identity or key")
        return members, choosers

    def _opened_shares(self, shares: bytes) -> tuple[_Set, dict[int, bytes]]:
        """Who shared, and the shares of each chooser among them."""
        reader = Reader(self._session, Phase.SHARE, shares, reply=True)
        shared = reader.members(len(self._roster))
        self._check_set(shared, "shared")
        owners = [owner for owner in self._choosers if shared[owner]]
        reader.exactly(SEALED_BYTES * len(owners))
        held = {}
        for owner in owners:
            agreed = self._mine().share_pair.agree(self._members[owner].share_key)
            held[owner] = self._place.open(agreed, owner, reader.take(SEALED_BYTES))
            limbs_of(held[owner])
        if self._numbers.complete:
            held[self._number] = self._own_share  # of the seed alone: it never says of itself that it dropped out
        return shared, held

    def _check_agreement(self, agreement: bytes) -> None:
        reader = Reader(self._session, Phase.AGREE, agreement, reply=True)
        rows = read_rows(reader, SIGNED_ROW, reader.number(), len(self._roster))
        allowed = {holder for holder in self._holders() if self._survived[holder]}
        if len(rows) < self._numbers.threshold or not set(rows["place"].tolist()) <= allowed:
            raise SecAggError("too few of this device's neighbours agree on who survived; nothing is revealed")
        for row in rows:
            self._check_signature(
                int(row["place"]), AGREE_DOMAIN, self._agreed(self._survived), row["signature"].tobytes()
            )

    def _check_signature(self, place: int, domain: bytes, data: bytes, signature: bytes) -> None:
        public = self._identity.public() if place == self._number else self._members[place].identity
        try:
            verify(public, domain, data, signature)
        except EnvelopeError as error:
            raise SecAggError("a neighbour did not sign the same sets of devices; nothing is revealed") from error

    def _check_set(self, members: _Set, what: str) -> None:
        self._enough(int(members.sum()), what)
        if not members[self._number]:
            raise SecAggError(f"this device is not among those that are said to have {what}")
        if int(members[self._holders()].sum()) < self._numbers.threshold:
            raise SecAggError(f"too few of this device's neighbours {what}; nothing is revealed")

    def _enough(self, count: int, what: str) -> None:
        if count < self._least:
            raise SecAggError(f"{count} devices {what}, fewer than the {self._least} that this device needs")

    def _check_vector(self, vector: NDArray[np.int64]) -> None:
        half = 2 ** (self._session.ring_bits - 1)
        if vector.dtype != np.int64 or vector.shape != (self._session.coordinates,):
            raise ConfigError(f"the vector must be int64 of shape ({self._session.coordinates},)")
        if vector.min() < -half or vector.max() >= half:
            raise ConfigError(f"a coordinate of the vector is outside the ring of {self._session.ring_bits} bits")

    def _agreed(self, survived: _Set | None = None) -> bytes:
        return agreed_bytes(self._session, self._roster.root, self._shared, survived)
