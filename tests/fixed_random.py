"""Randomness that protects nobody: the product's keystream under a known key, so that a test is the same every time."""

import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hushrec_privacy.randomness import OsRandom


class FixedRandom(OsRandom):
    """Words that depend on `seed` alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        super().__init__()

    def _rekey(self) -> None:
        key = self._seed.to_bytes(32, "big")
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._left, self._process = 2**40, os.getpid()
