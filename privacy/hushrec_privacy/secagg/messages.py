"""The bodies of all messages after ADVERTISE, byte by byte; `wire.py` has the header, `roster.py` entry and roster.

n devices are on the roster, k and t are those of `parameters.py`. "Choosers" of a device are those that chose it.

    CHOOSE  device   k places that it chose, ascending, 2 bytes each
            server   2 bytes: how many neighbours; for each, ascending: 2 bytes place, 1 byte (1: it chose you, 0: not),
                     274 bytes entry. All that the device chose, and its choosers
    SHARE   device   32 bytes commitment to its seed; for each chosen one, ascending: 88 bytes sealed shares, that is 18
                     values of 2 bytes (little endian) of the seed's share, 18 of the mask key's, 16 bytes tag
            server   set of the places that shared; for each chooser among them, ascending: 88 bytes sealed shares
    MASK    device   64 bytes signature "hushrec secagg mask v1"; the masked vector, packed as in `packing.py`
            server   set of the places that survived; for each chooser among them, ascending: 64 bytes signature
    AGREE   device   64 bytes signature "hushrec secagg agree v1"
            server   2 bytes: how many of the device's holders signed; for each, ascending: 2 bytes place, 64 bytes
                     signature
    REVEAL  device   for each chooser that shared, ascending: 2 bytes place, 1 byte kind, 36 bytes share; kind 0: its
                     seed's, for a survivor; 1: its mask key's, for one that dropped out
            server   nothing

With a complete graph (n < 100) every device also holds a share of its own and counts as its own chooser in REVEAL and
as its own holder in AGREE; no message brings it that share. The signatures are over session id (32 bytes), root of the
roster (32 bytes), set of the places that shared, and for AGREE then the set of those that survived.
"""

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.keys import KEY_BYTES, TAG_BYTES
from hushrec_privacy.secagg.packing import packed_bytes
from hushrec_privacy.secagg.parameters import MOST_CHOSEN, MOST_HELD
from hushrec_privacy.secagg.roster import ENTRY_BYTES, SIGNATURE_BYTES
from hushrec_privacy.secagg.session import Phase, Session
from hushrec_privacy.secagg.shamir import LIMBS, PRIME
from hushrec_privacy.secagg.wire import HEADER_BYTES, PLACE_BYTES, Reader, write_set

__all__ = [
    "AGREE_DOMAIN",
    "KEY_KIND",
    "MASK_DOMAIN",
    "NEIGHBOUR_ROW",
    "REVEAL_ROW",
    "SEALED_BYTES",
    "SEED_KIND",
    "SHARE_BYTES",
    "SIGNED_ROW",
    "agreed_bytes",
    "limbs_of",
    "message_size",
    "read_rows",
]

SHARE_BYTES = 2 * LIMBS
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
SEED_KIND, KEY_KIND = 0, 1
MASK_DOMAIN, AGREE_DOMAIN = b"hushrec secagg mask v1", b"hushrec secagg agree v1"

NEIGHBOUR_ROW = np.dtype([("place", ">u2"), ("chooser", "u1"), ("entry", "u1", (ENTRY_BYTES,))])
SIGNED_ROW = np.dtype([("place", ">u2"), ("signature", "u1", (SIGNATURE_BYTES,))])
REVEAL_ROW = np.dtype([("place", ">u2"), ("kind", "u1"), ("share", "<u2", (LIMBS,))])


def message_size(session: Session, phase: Phase) -> int:
    """Bytes of the longest message that a device sends in a phase, whatever the number of devices.

    >>> session = Session("ab" * 32, 1, bytes(16), bytes(32), 524_288, 16, 100, "active")
    >>> [message_size(session, phase) for phase in Phase]
    [292, 214, 8674, 1048658, 82, 11523]
    """
    body = {
        Phase.ADVERTISE: ENTRY_BYTES,
        Phase.CHOOSE: PLACE_BYTES * MOST_CHOSEN,
        Phase.SHARE: KEY_BYTES + SEALED_BYTES * MOST_CHOSEN,
        Phase.MASK: SIGNATURE_BYTES + packed_bytes(session.coordinates, session.ring_bits),
        Phase.AGREE: SIGNATURE_BYTES,
        Phase.REVEAL: REVEAL_ROW.itemsize * MOST_HELD,
    }
    return HEADER_BYTES + body[phase]


def read_rows(reader: Reader, row: np.dtype[np.void], count: int, devices: int) -> NDArray[np.void]:
    """The rest of a message: rows whose places ascend, shape (`count`,).

    Raises:
        SecAggError: The message is not as long as that, or a place is out of order, twice there, or beyond the roster.
    """
    rows = np.frombuffer(reader.exactly(row.itemsize * count).view(row.itemsize * count), row)
    places = rows["place"].astype(np.int64)
    if (np.diff(places) <= 0).any() or (count and places[-1] >= devices):
        raise SecAggError("a message names places out of order, twice, or beyond the roster")
    return rows


def limbs_of(share: bytes | memoryview) -> NDArray[np.uint16]:
    """The values of one or more shares.

    Raises:
        SecAggError: One is not below the prime.
    """
    limbs = np.frombuffer(share, "<u2").astype(np.uint16)
    if (limbs >= PRIME).any():
        raise SecAggError("a share holds a number beyond the prime")
    return limbs


def agreed_bytes(
    session: Session, root: bytes, shared: NDArray[np.bool_], survived: NDArray[np.bool_] | None = None
) -> bytes:
    """What the signatures of MASK (`survived` not given) and AGREE are over."""
    sets = write_set(shared) + (b"" if survived is None else write_set(survived))
    return session.id + root + sets
