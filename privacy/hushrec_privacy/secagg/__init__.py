"""Secure aggregation: the server gets the sum of the devices' vectors, and no vector.

session      one attempt at one round, and what everything in it is bound to
parameters   how many neighbours, and how many of them recover a secret
device       the device's six messages
server       the server's checks and answers, pure functions of bytes
unmasking    the sum
roster       who takes part, and the entry of each
messages     all other messages, byte by byte
wire         the frame of a message and its bounded reading
state        what the server keeps between phases
keys         X25519, derived keys, sealed shares
masks        the mask function
packing      vectors on the wire
shamir       secret sharing
"""

from hushrec_privacy.secagg.device import SecAggDevice
from hushrec_privacy.secagg.messages import message_size
from hushrec_privacy.secagg.parameters import Neighbourhood, neighbourhood, smallest_sum
from hushrec_privacy.secagg.server import Closed, accept, advertised_pseudonym, close
from hushrec_privacy.secagg.session import MAX_DEVICES, PROTOCOL_VERSION, Phase, Session
from hushrec_privacy.secagg.unmasking import Outcome, finish

__all__ = [
    "MAX_DEVICES",
    "PROTOCOL_VERSION",
    "Closed",
    "Neighbourhood",
    "Outcome",
    "Phase",
    "SecAggDevice",
    "Session",
    "accept",
    "advertised_pseudonym",
    "close",
    "finish",
    "message_size",
    "neighbourhood",
    "smallest_sum",
]
