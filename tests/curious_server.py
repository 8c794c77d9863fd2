"""A server that keeps every upload of a round, and takes off each mask that it can: what is left is what it has seen.

It knows the session and the devices' six messages, and from them the keys of its phases. REVEAL gives it the seed of
each survivor, so its own mask, and the mask key of each device that shared and dropped out, so all that device's masks.
Corrupt devices give it their mask keys. Nothing here is `hushrec_privacy.secagg.unmasking`, which works on sums alone.
"""

from collections.abc import Mapping

import numpy as np
from hushrec_privacy.secagg import Phase, Session, close
from hushrec_privacy.secagg.keys import KeyPair, Place
from hushrec_privacy.secagg.masks import add_mask
from hushrec_privacy.secagg.messages import KEY_KIND, SEED_KIND
from hushrec_privacy.secagg.packing import unpack
from hushrec_privacy.secagg.server import revealed_rows
from hushrec_privacy.secagg.shamir import recover
from hushrec_privacy.secagg.state import AGREED, SHARED, SURVIVED, RoundState
from hushrec_privacy.secagg.wire import Reader
from numpy.typing import NDArray

__all__ = ["CuriousServer", "chi_square"]

_HEAD = 18 + 64  # header and signature of MASK
_BINS = 64


def chi_square(values: NDArray[np.integer], bits: int) -> float:
    """How far 64 equal bins are from equally full, in standard deviations of the statistic."""
    counts = np.bincount(values.astype(np.int64) >> max(0, bits - 6), minlength=_BINS)
    statistic = float(((counts - len(values) / _BINS) ** 2).sum() / (len(values) / _BINS))
    return (statistic - (_BINS - 1)) / float(np.sqrt(2 * (_BINS - 1)))


class CuriousServer:
    """See the module.

    Args:
        session: Of the round.
        uploads: The messages that were accepted, by phase and index.
        corrupt: Mask keys of devices that work for it, by index.

    Attributes:
        seeds: Of the devices whose seeds it has recovered, by place.
        mask_keys: Of those whose mask keys it has: dropped out, or corrupt.
    """

    def __init__(
        self, session: Session, uploads: Mapping[Phase, Mapping[int, bytes]], corrupt: Mapping[int, KeyPair]
    ) -> None:
        state = b""
        for phase in list(Phase)[:-1]:
            state = close(session, phase, state, uploads[phase].items()).state
        self._session, self._uploads, self._state = session, uploads, RoundState.decode(session, state, Phase.AGREE)
        shares = self._shares()
        self.seeds = {owner: secret for (owner, kind), secret in shares.items() if kind == SEED_KIND}
        self.mask_keys = {owner: KeyPair(secret) for (owner, kind), secret in shares.items() if kind == KEY_KIND}
        self.mask_keys |= {self._state.place(index, 0): pair for index, pair in corrupt.items()}
        self._corrupt = set(corrupt)

    @property
    def survivors(self) -> list[int]:
        """Indexes of the devices that it has a masked vector of and that are not its own."""
        indexes: list[int] = self._state.rows["index"][self._state.has(SURVIVED)].tolist()
        return [index for index in indexes if index not in self._corrupt]

    def honest_neighbours(self, index: int) -> int:
        """How many masks of a survivor it cannot take off."""
        return len(self._neighbours(self._state.place(index, SURVIVED)) - set(self.mask_keys))

    def left(self, index: int) -> NDArray[np.int64]:
        """A survivor's masked vector less every mask whose key it has, shape (d,), from 0 to 2^bits - 1."""
        session, owner = self._session, self._state.place(index, SURVIVED)
        vector = unpack(self._uploads[Phase.MASK][index][_HEAD:], session.coordinates, session.ring_bits).copy()
        here = Place(session.id, self._state.root, owner)
        add_mask(vector, here.self_mask_key(self.seeds[owner]), subtract=True)
        own = self._state.member(owner).mask_key
        for other in self._neighbours(owner) & set(self.mask_keys):
            key = here.pair_mask_key(self.mask_keys[other].agree(own), other)
            add_mask(vector, key, subtract=owner < other)  # what the smaller place has added
        return np.asarray(vector.astype(np.int64) % 2**session.ring_bits)

    def _neighbours(self, owner: int) -> set[int]:
        """Places that a device shares a mask with."""
        chosen = self._state.rows["chosen"]
        both = set(chosen[owner].tolist()) | set(np.flatnonzero((chosen == owner).any(axis=1)).tolist())
        return {other for other in both if self._state.has(SHARED)[other]}

    def _shares(self) -> dict[tuple[int, int], bytes]:
        """What t of the revealed shares give, by owner and kind."""
        found: dict[tuple[int, int], dict[int, NDArray[np.uint16]]] = {}
        holders, state = self._state.holders(), self._state
        for index, message in self._uploads[Phase.REVEAL].items():
            holder = state.place(index, AGREED)
            for row in revealed_rows(state, holder, Reader(self._session, Phase.REVEAL, message)):
                owner = int(row["place"])
                x = holders[owner].tolist().index(holder) + 1
                found.setdefault((owner, int(row["kind"])), {})[x] = row["share"]
        secrets = {}
        for owned, shares in found.items():
            points = sorted(shares)[: state.numbers.threshold]
            secrets[owned] = recover(points, np.array([shares[x] for x in points]))
        return secrets
