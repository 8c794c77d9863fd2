"""What an envelope or a signed request is for; anywhere else it neither opens nor verifies.

    bytes         what
    20            "hushrec envelope v1" and 0x00: the wire version is bound, too
    2 + length    server, a length (big endian) and UTF-8
    2 + length    route, the same
    2 + length    plan's id, the same; empty where there is none yet
    2 + length    device's pseudonym, the same; empty where there is none yet
    8             round, big endian; 0 where there is none

Every text stands behind its length, so that two contexts never have the same bytes.
"""

from dataclasses import dataclass

from hushrec_privacy.errors import EnvelopeError

__all__ = ["WIRE_VERSION", "Context"]

WIRE_VERSION = 1
LONGEST_TEXT_BYTES = 256
_DOMAIN = b"hushrec envelope v1\0"
_LAST_ROUND = 2**63 - 1


@dataclass(frozen=True)
class Context:
    """Where an envelope belongs.

    Attributes:
        server: The server's own name, as its key set says it, 1 to 256 bytes of UTF-8.
        route: What is asked for, such as "check-in" or "upload/mask", 1 to 256 bytes.
        plan_id: 64 hexadecimal digits, which whoever opens looks up; empty before a plan.
        round_number: From 1; 0 outside rounds.
        device: Pseudonym, 32 hexadecimal digits, which whoever opens looks up; empty before enrolment.

    Raises:
        EnvelopeError: A text is too long, missing or no text, or the round is none. Not a mistake of the caller: a
            server takes them from a request.
    """

    server: str
    route: str
    plan_id: str = ""
    round_number: int = 0
    device: str = ""

    def __post_init__(self) -> None:
        whole = isinstance(self.round_number, int) and not isinstance(self.round_number, bool)
        if not (whole and 0 <= self.round_number <= _LAST_ROUND) or not self.server or not self.route:
            raise _no_context()
        self.encode()

    def encode(self) -> bytes:
        """The bytes that are bound: the `info` of HPKE, and the start of what a request signs.

        >>> Context("a", "b", round_number=7).encode()[20:].hex()
        '000161000162000000000000000000000007'
        """
        texts = b"".join(_text(text) for text in (self.server, self.route, self.plan_id, self.device))
        return _DOMAIN + texts + self.round_number.to_bytes(8, "big")


def _text(text: str) -> bytes:
    try:
        data = text.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise _no_context() from error
    if len(data) > LONGEST_TEXT_BYTES:
        raise _no_context()
    return len(data).to_bytes(2, "big") + data


def _no_context() -> EnvelopeError:
    return EnvelopeError("server, route, plan, round and device do not name a place that an envelope could be for")
