"""The rotation is the one matrix that its page says, orthogonal, and undone exactly up to floats."""

import hashlib
import math

import numpy as np
import pytest
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.errors import ConfigError

SEED = bytes(range(32)).hex()


@pytest.mark.parametrize("coordinates", [1, 2, 4, 8, 32, 256, 512])
def test_it_is_hadamard_times_signs_by_a_plain_loop(coordinates: int) -> None:
    vector = np.random.default_rng(0).normal(size=coordinates)
    stream = hashlib.shake_256(b"hushrec rotation v1\x00" + bytes.fromhex(SEED)).digest(64)
    signs = [-1 if stream[i // 8] >> (7 - i % 8) & 1 else 1 for i in range(coordinates)]
    wanted = [
        sum((-1) ** (i & j).bit_count() * signs[j] * vector[j] for j in range(coordinates)) / math.sqrt(coordinates)
        for i in range(coordinates)
    ]
    np.testing.assert_allclose(Rotation(SEED, coordinates, coordinates).turn(vector), wanted, atol=1e-12)


@pytest.mark.parametrize(("parameters", "coordinates"), [(1, 1), (3, 4), (1000, 1024), (500_000, 2**19)])
def test_back_undoes_turn_and_norms_stay(parameters: int, coordinates: int) -> None:
    rotation = Rotation(SEED, parameters, coordinates)
    vector = np.random.default_rng(1).normal(size=parameters)
    turned = rotation.turn(vector)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(vector), rel=1e-13)
    np.testing.assert_allclose(rotation.back(turned), vector, atol=1e-13)


def test_one_large_number_is_spread_over_all_coordinates() -> None:
    turned = Rotation(SEED, 1000, 1024).turn(np.eye(1000)[7])
    np.testing.assert_allclose(np.abs(turned), 1 / 32)


def test_other_seeds_turn_differently() -> None:
    vector = np.ones(1000)
    turned = [Rotation(f"{n:064x}", 1000, 1024).turn(vector) for n in range(20)]
    cosines = np.corrcoef(turned) - np.eye(20)
    assert np.abs(cosines).max() < 6 / math.sqrt(1024)


@pytest.mark.parametrize(
    ("seed", "parameters", "coordinates", "message"),
    [
        (SEED, 3, 6, "power of two"),
        (SEED, 5, 4, "power of two of at least 5"),
        (SEED, 0, 4, "parameters is 0"),
        ("xy", 3, 4, "hexadecimal"),
    ],
)
def test_a_rotation_that_cannot_be_is_refused(seed: str, parameters: int, coordinates: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rotation(seed, parameters, coordinates)


def test_a_vector_of_another_shape_is_refused() -> None:
    rotation = Rotation(SEED, 3, 4)
    for wrong in (np.zeros(4), np.zeros((3, 1)), np.float64(1)):
        with pytest.raises(ConfigError, match="must have 3"):
            rotation.turn(np.asarray(wrong))
    with pytest.raises(ConfigError, match="must have 4"):
        rotation.back(np.zeros(3))
