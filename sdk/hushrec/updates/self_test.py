"""Whether a new release works on this machine, found out before it is used; knows nothing of the shopper.

Histories are made up from the catalogue, at fixed places. It finds a graph that this ONNX Runtime cannot run, scores
that are no numbers, and a bundle whose parts do not fit together. It does not judge whether the recommendations are
good: that is the shop's evaluation.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hushrec_privacy.errors import HushrecError, ReleaseError

from hushrec.bundle import Bundle
from hushrec.engine import Engine
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
            _check_scores(recommender.bundle)
            _check_lists(recommender)
    except HushrecError as error:
        raise ReleaseError(f"a new release does not work here: {error.message}") from error
    except Exception as error:  # whatever ONNX Runtime or NumPy raised
        raise ReleaseError(f"a new release does not work here ({type(error).__name__})") from error


def _check_scores(bundle: Bundle) -> None:
    """The network alone: what ranking would leave out silently."""
    engine, size = Engine(bundle), bundle.manifest.model.items
    for number in range(1, HISTORIES):
        scores = engine.scores(np.array(_places(number, size)))
        if not np.isfinite(scores[1 : size + 1]).all():
            raise ReleaseError("a score of the network is not finite")


def _check_lists(recommender: Recommender) -> None:
    size = recommender.catalog.size
    for number in range(HISTORIES):
        for minute, item in enumerate(recommender.catalog.ids(_places(number, size))):
            recommender.observe(item, at=_NOON - timedelta(minutes=EVENTS * (HISTORIES - number) - minute))
        first, second = (_recommended(recommender, min(RESULTS, size)) for _ in range(2))
        if first != second:
            raise ReleaseError("the same history gave two answers")


def _places(number: int, size: int) -> list[int]:
    """Indexes of the items of one history: all over the catalogue, others in each; the first history is empty."""
    return sorted({1 + (number * 7919 + event * size // EVENTS) % size for event in range(EVENTS if number else 0)})


def _recommended(recommender: Recommender, expected: int) -> list[Recommendation]:
    found = recommender.recommend(RESULTS, exclude_seen=False)
    if len({one.item for one in found}) != len(found) or len(found) != expected:
        raise ReleaseError(f"{len(found)} recommendations instead of {expected} different ones")
    if not np.isfinite([one.score for one in found]).all():
        raise ReleaseError("a score is not finite")
    return found
