"""The end of a round: recover the secrets that survivors revealed, and take their masks from the sum.

For each survivor its seed is recovered, and its own mask taken away; for each device that shared but dropped out its
mask key, and the masks that its surviving neighbours share with it. A recovered key must have the advertised public
key, a recovered seed the hash that was committed to: lying shares can end the round but not change its sum.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.keys import KeyPair, Place, seed_commitment
from hushrec_privacy.secagg.masks import add_mask
from hushrec_privacy.secagg.packing import Elements, element_type
from hushrec_privacy.secagg.server import Messages, revealed_rows
from hushrec_privacy.secagg.session import Phase, Session
from hushrec_privacy.secagg.shamir import recover, share_at
from hushrec_privacy.secagg.state import AGREED, SHARED, SURVIVED, RoundState
from hushrec_privacy.secagg.wire import Reader

__all__ = ["Outcome", "finish"]

_Shares = dict[int, NDArray[np.uint16]]
_MOST_TRIES = 1_000  # three liars among 66 holders of 49 needed: about 70


@dataclass(frozen=True)
class Outcome:
    """What a round gave.

    Attributes:
        sum: Of the survivors' vectors, shape (d,), from -2^(bits-1) to 2^(bits-1) - 1; exact if it fits there.
        survivors: Indexes of the devices in it, ascending.
    """

    sum: NDArray[np.int64]
    survivors: tuple[int, ...]


def finish(session: Session, state: bytes, total: NDArray[np.uint64], reveals: Messages) -> Outcome:
    """Remove all masks from the sum of the masked vectors.

    Args:
        session: Of the round.
        state: Left by the close of AGREE.
        total: Given by the close of MASK, shape (d,).
        reveals: Index and message of each device whose REVEAL `accept` let pass, no index twice.

    Raises:
        SecAggError: Fewer than t shares of a secret were revealed, or they do not give the secret that its device
            advertised: the round is aborted. Which device is not said: this text goes into logs.
    """
    before = RoundState.decode(session, state, Phase.AGREE)
    if total.shape != (session.coordinates,):
        raise SecAggError("the sum of the masked vectors is not as long as the session says")
    shares = _shares(before, reveals)
    result = total.astype(element_type(session.ring_bits))
    survived = before.has(SURVIVED)
    edges, liars = _neighbours(before), set[int]()
    for owner in np.flatnonzero(before.has(SHARED)).tolist():
        if survived[owner]:
            _remove_own_mask(before, owner, shares[owner], result, liars)
        else:
            left = [other for other in sorted(edges[owner]) if survived[other]]
            _remove_pair_masks(before, owner, (shares[owner], left), result, liars)
    survivors = tuple(before.rows["index"][survived].tolist())
    return Outcome(_centred(result, session.ring_bits), survivors)


def _shares(before: RoundState, reveals: Messages) -> list[_Shares]:
    """By owner and by holder's x: the shares that were revealed."""
    shares: list[_Shares] = [{} for _ in before.rows]
    holders = before.holders()
    for index, message in reveals:
        place = before.place(index, AGREED)
        for row in revealed_rows(before, place, Reader(before.session, Phase.REVEAL, message)):
            owner = int(row["place"])
            shares[owner][int(np.searchsorted(holders[owner], place)) + 1] = row["share"]
    return shares


def _remove_own_mask(before: RoundState, owner: int, shares: _Shares, result: Elements, liars: set[int]) -> None:
    committed = before.rows["commitment"][owner].tobytes()
    session_id = before.session.id

    def is_right(secret: bytes) -> bool:
        return bool(seed_commitment(session_id, owner, secret) == committed)

    seed = _recovered(before, owner, shares, is_right, liars)
    add_mask(result, Place(session_id, before.root, owner).self_mask_key(seed), subtract=True)


def _remove_pair_masks(
    before: RoundState, owner: int, given: tuple[_Shares, list[int]], result: Elements, liars: set[int]
) -> None:
    shares, left = given
    advertised = before.member(owner).mask_key
    secret = _recovered(before, owner, shares, lambda secret: KeyPair(secret).public == advertised, liars)
    pair, place = KeyPair(secret), Place(before.session.id, before.root, owner)
    for other in left:
        key = place.pair_mask_key(pair.agree(before.member(other).mask_key), other)
        add_mask(result, key, subtract=other < owner)  # the other added it if its own place is the smaller


def _recovered(
    before: RoundState, owner: int, shares: _Shares, is_right: Callable[[bytes], bool], liars: set[int]
) -> bytes:
    """The secret that t of the shares give; wrong ones do no harm while t right ones are there and found among them.

    Who is caught with a wrong share is added to `liars`, and asked last for the secrets that follow.
    """
    needed = before.numbers.threshold
    if len(shares) < needed:
        raise SecAggError("too few shares of a device were revealed: the round is aborted")
    holders = before.holders()[owner].tolist()
    points = sorted(shares, key=lambda x: (holders[x - 1] in liars, x))
    for tried, used in enumerate(_subsets(points, needed)):
        rows = np.array([shares[point] for point in used])
        try:
            secret = recover(used, rows)
        except SecAggError:
            continue
        if is_right(secret):
            others = () if tried == 0 else set(points) - set(used)
            liars |= {holders[x - 1] for x in others if (share_at(x, used, rows) != shares[x]).any()}
            return secret
    raise SecAggError("the shares of a device do not give what it advertised: the round is aborted")


def _subsets(points: list[int], size: int) -> Iterator[list[int]]:
    """The first `size` points, then others drawn at random but always the same, which suffices against a few liars."""
    yield points[:size]
    if len(points) > size:
        draws = random.Random(0)  # hides nothing: every process must go on in the same way
        for _ in range(_MOST_TRIES):
            yield draws.sample(points, size)


def _neighbours(before: RoundState) -> list[set[int]]:
    """For each place, whom it shares a mask with."""
    edges: list[set[int]] = [set() for _ in before.rows]
    for place in np.flatnonzero(before.has(SHARED)).tolist():
        for other in before.rows["chosen"][place].tolist():
            edges[place].add(other)
            edges[other].add(place)
    return edges


def _centred(result: Elements, bits: int) -> NDArray[np.int64]:
    """The sum around 0; `result`, which is the same sum, is overwritten."""
    values = result.astype(np.int64)
    result.fill(0)
    values &= (1 << bits) - 1
    values[values >= 1 << (bits - 1)] -= 1 << bits
    return values
