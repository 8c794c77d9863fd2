"""One turn worked out by hand, for whoever writes the rotation in another language."""

import math

import numpy as np
from hushrec_privacy.encoding.rotation import Rotation

SEED = bytes(range(32)).hex()
# SHAKE-256("hushrec rotation v1" 00 ‖ 00 01 … 1f) begins with d4 = 1101 0100: the signs are - - + - + - + +
VECTOR = [1.0, 2.0, 3.0, 4.0, 5.0]  # with signs, and zeros appended: -1 -2 3 -4 5 0 0 0
TURNED = [1, 13, 3, -1, -9, 3, -7, -11]  # times 1 / sqrt(8); the first is the plain sum, the second pairs' differences


def test_the_turn_is_the_published_one() -> None:
    turned = Rotation(SEED, 5, 8).turn(np.array(VECTOR))
    np.testing.assert_allclose(turned * math.sqrt(8), TURNED, atol=1e-12)


def test_the_way_back_is_the_published_one() -> None:
    back = Rotation(SEED, 5, 8).back(np.array(TURNED) / math.sqrt(8))
    np.testing.assert_allclose(back, VECTOR, atol=1e-12)
