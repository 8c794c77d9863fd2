"""The items that a training step scores against: uniform, without repeats, the same for whoever knows the seed.

Nothing of any shopper enters. The words of SHAKE-256 (FIPS 202) order the catalogue, so that another language or a
later NumPy draws the same.
"""

import numpy as np
from hushrec_privacy import checks
from numpy.typing import NDArray

__all__ = ["draw_candidates"]


def draw_candidates(items: int, count: int, seed: str) -> NDArray[np.int64]:
    """Draw items of a catalogue.

    The stream SHAKE-256(seed in UTF-8) gives each item, from 1 on, 8 bytes, a little-endian number; the items with the
    smallest ones are drawn.

    Args:
        items: V.
        count: M at most; the whole catalogue if it is no larger.
        seed: A device, a round and a step of it have their own.

    Returns:
        Distinct items from 1 to V, rising, shape (M,).

    Raises:
        ConfigError: `items` or `count` is below 1.

    >>> draw_candidates(10, 4, "round 7").tolist()
    [2, 5, 6, 7]
    """
    checks.at_least(1, items=items, count=count)
    if items <= count:
        return np.arange(1, items + 1)
    import hashlib  # loads OpenSSL, which a device that only recommends does without

    words = np.frombuffer(hashlib.shake_256(seed.encode()).digest(8 * items), "<u8")
    chosen = np.argpartition(words, count - 1)[:count]
    return np.sort(chosen).astype(np.int64) + 1
