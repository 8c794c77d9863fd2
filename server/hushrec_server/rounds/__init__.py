"""Rounds: an explicit state machine that is stored whole, so that any process can go on where another one died.

states        what a round can be, and what follows what
schedule      when rounds begin and phases close, from the plan's clock
aggregation   secure aggregation as the rounds use it
store         rows of rounds, devices, messages and replies
admission     who gets a place
mailbox       uploads and replies of a running round
closing       what counts in a phase, and its answers
finishing     sum, ledger, noise, erasure, publication: each durable before the next
secagg        SecAgg+ in that place
progress      whatever is due, by whichever process comes first
"""

from hushrec_server.rounds.states import State

__all__ = ["State"]
