"""Lies of a server in a round of six devices, and what a device must answer to each: nothing, for ever."""

import pytest
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Phase, Session
from hushrec_privacy.secagg.keys import KeyPair
from hushrec_privacy.secagg.roster import make_entry

from tests.secagg_round import AUTHORITY, PLAN_ID, Round, session, small_vectors

N = 6  # t is 4; the graph is complete
HEAD, ROW, ENTRY, SEALED, SIGNATURE = 18, 277, 274, 88, 64
VICTIM = 0


def a_round(last: Phase, devices: int = N, **of: int) -> Round:
    """A round of honest devices in which `last` is open."""
    return Round(session(**of), small_vectors(devices)).until(last)  # type: ignore[arg-type]


def told(of: Round, phase: Phase, index: int = VICTIM) -> bytearray:
    """What the server answers to a phase, to be altered."""
    return bytearray(of.replies[phase][index])


def entry_at(position: int) -> slice:
    """Where the answer to CHOOSE has the entry of a neighbour."""
    start = HEAD + 2 + ROW * position + 3
    return slice(start, start + ENTRY)


def refused(of: Round, phase: Phase, lie: bytes | bytearray, match: str, index: int = VICTIM) -> None:
    """The device refuses the lie, and is dead from then on."""
    with pytest.raises(SecAggError, match=match):
        of.message(phase, index, bytes(lie))
    for later in (phase, *(p for p in Phase if p > phase)):
        with pytest.raises(SecAggError, match="reveals nothing"):
            of.message(later, index, bytes(of.replies.get(Phase(max(1, later - 1)), {}).get(index, b"")))
    assert of.devices[index]._secrets is None
    assert not of.devices[index]._held


def made_up(of: Session, number: int, authority: AuthorityKey = AUTHORITY, **other: bytes) -> bytes:
    """An entry by somebody who has an identity, and perhaps another authority or other keys."""
    identity = Identity.from_bytes(number.to_bytes(32, "big"))
    certificate = authority.certify(PLAN_ID, f"{number:032x}", identity.public())
    keys = {"mask_key": KeyPair(b"\1" * 32).public, "share_key": KeyPair(b"\2" * 32).public} | other
    return make_entry(of, identity, certificate, keys["mask_key"], keys["share_key"])
