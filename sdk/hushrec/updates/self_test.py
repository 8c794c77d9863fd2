"""Whether a new release works on this machine, found out before it is used; knows nothing of the shopper.

Histories are made up from the catalogue, at fixed places. It finds a graph that this ONNX Runtime cannot run, scores
that are no numbers, and a bundle whose parts do not fit together. It does not judge whether the recommendations are
good: that is the shop's evaluation.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hushrec_privacy.errors import HushrecError, ReleaseError

from hushrec.recommender import Recommendation, Recommender

__all__ = ["self_test"]

RESULTS = 10
HISTORIES = 3
EVENTS = 5
_NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


def self_test(bundle: Path) -> None:
    """Recommend from a bundle after a few histories, twice each.

    Args:
        bundle: Directory of the bundle.

    Raises:
        ReleaseError: It cannot be opened, gives a score that is not finite, an item twice, fewer items than there are,
            or another answer the second time.
    """
    try:
        with Recommender.open(bundle, verify=True, clock=lambda: _NOON) as recommender:
            _check(recommender)
    except HushrecError as error:
        raise ReleaseError(f"a new release does not work here: {error.message}") from error
    except Exception as error:  # whatever ONNX Runtime or NumPy raised
        raise ReleaseError(f"a new release does not work here ({type(error).__name__})") from error


def _check(recommender: Recommender) -> None:
    size = recommender.catalog.size
    expected = min(RESULTS, size)
    for number in range(HISTORIES):
        # Items all over the catalogue, others in each history; the first history stays empty.
        places = {1 + (number * 7919 + event * size // EVENTS) % size for event in range(EVENTS if number else 0)}
        for minute, item in enumerate(recommender.catalog.ids(sorted(places))):
            recommender.observe(item, at=_NOON - timedelta(minutes=EVENTS * (HISTORIES - number) - minute))
        first, second = (_recommended(recommender, expected) for _ in range(2))
        if first != second:
            raise ReleaseError("the same history gave two answers")


def _recommended(recommender: Recommender, expected: int) -> list[Recommendation]:
    found = recommender.recommend(RESULTS, exclude_seen=False)
    if len({one.item for one in found}) != len(found) or len(found) != expected:
        raise ReleaseError(f"{len(found)} recommendations instead of {expected} different ones")
    if not np.isfinite([one.score for one in found]).all():
        raise ReleaseError("a score is not finite")
    return found
