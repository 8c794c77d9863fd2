"""`Aggregation` over SecAgg+ (`hushrec_privacy.secagg`): sessions made from a plan, and kept decoded."""

import os
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from hushrec_privacy import secagg
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.secagg import Phase, Session
from numpy.typing import NDArray

from hushrec_server.rounds.aggregation import Closed, Outcome

__all__ = ["SecAggPlus"]

_ATTEMPT_BYTES = 16


class SecAggPlus:
    """SecAgg+ with the plan's ring, least cohort, setting and authority."""

    def session(self, plan: Plan, round_number: int) -> bytes:
        """See `Aggregation`.

        Raises:
            SecAggError: The plan has values that secure aggregation cannot have.
        """
        return Session(
            plan_id=plan.plan_id,
            round_number=round_number,
            attempt=os.urandom(_ATTEMPT_BYTES),
            authority=bytes.fromhex(plan.authority),
            coordinates=plan.coordinates,
            ring_bits=plan.ring_bits,
            min_devices=plan.min_cohort,
            setting=plan.secagg,  # type: ignore[arg-type]  # the plan has checked it
        ).encode()

    def message_size(self, session: bytes, phase: int) -> int:
        """See `Aggregation`."""
        return secagg.message_size(_session(session), Phase(phase))

    def pseudonym(self, session: bytes, message: bytes) -> str:
        """See `Aggregation`."""
        return secagg.advertised_pseudonym(_session(session), message)

    def accept(self, session: bytes, phase: int, state: bytes, place: int, message: bytes) -> None:
        """See `Aggregation`."""
        secagg.accept(_session(session), Phase(phase), state, place, message)

    def close(self, session: bytes, phase: int, state: bytes, messages: Iterable[tuple[int, bytes]]) -> Closed:
        """See `Aggregation`."""
        found = secagg.close(_session(session), Phase(phase), state, messages)
        return Closed(found.state, found.replies, found.total)

    def finish(
        self, session: bytes, state: bytes, total: NDArray[np.uint64], reveals: Iterable[tuple[int, bytes]]
    ) -> Outcome:
        """See `Aggregation`."""
        found = secagg.finish(_session(session), state, total, reveals)
        return Outcome(found.sum, found.survivors)


@lru_cache(maxsize=64)
def _session(data: bytes) -> Session:
    return Session.decode(data)
