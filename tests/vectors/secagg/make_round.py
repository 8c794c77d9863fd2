"""Capture one round of secure aggregation, all bytes of it, as a test vector.

    python -m tests.vectors.secagg.make_round > tests/vectors/secagg/round.json

Keys are drawn anew each time, so the file changes; what it must agree with is in `tests/vectors/test_secagg.py`.
"""

import json
import sys

import numpy as np
from hushrec_privacy.secagg import Phase

from tests.secagg_round import Round, session

DEVICES, COORDINATES, RING_BITS = 7, 9, 13
GONE = {Phase.MASK: [1], Phase.REVEAL: [3]}


def main() -> None:
    """Print the round as JSON: bytes in hexadecimal digits."""
    vectors = np.arange(DEVICES * COORDINATES, dtype=np.int64).reshape(DEVICES, COORDINATES) * 7 - 200
    one = Round(session(6, coordinates=COORDINATES, ring_bits=RING_BITS), vectors)
    secrets = {
        index: [s.seed.hex(), s.mask_pair.reveal().hex(), s.share_pair.reveal().hex()]
        for index, s in ((index, device._mine()) for index, device in one.devices.items())
    }
    outcome = one.run(GONE)
    assert one.total is not None
    json.dump(
        {
            "session": one.session.encode().hex(),
            "vectors": vectors.tolist(),
            "secrets (seed, mask key, share key)": secrets,
            "messages": {phase.name: hexadecimal(said) for phase, said in one.messages.items()},
            "answers": {phase.name: hexadecimal(said) for phase, said in one.replies.items()},
            "states": {Phase(phase - 1).name: state.hex() for phase, state in one.states.items() if state},
            "masked sum": one.total.tolist(),
            "sum": outcome.sum.tolist(),
            "survivors": list(outcome.survivors),
        },
        sys.stdout,
        indent=1,
    )
    print()


def hexadecimal(said: dict[int, bytes]) -> dict[int, str]:
    """Bytes by index, as JSON takes them."""
    return {index: data.hex() for index, data in said.items()}


if __name__ == "__main__":
    main()
