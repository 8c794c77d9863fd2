"""All that a server ever gets of a round, with every mask off that it can take off: single vectors stay uniform."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from hushrec_privacy.secagg import Phase
from hushrec_privacy.secagg.parameters import neighbourhood, smallest_sum
from numpy.typing import NDArray

from tests.curious_server import CuriousServer, chi_square
from tests.secagg_round import Round, session

COORDINATES = 12_800
FAR = 7  # standard deviations; bare vectors are thousands away
SOME_GONE: Mapping[Phase, Iterable[int]] = {
    Phase.SHARE: [1],
    Phase.MASK: [2, 3],
    Phase.AGREE: [4],
    Phase.REVEAL: [5],
}
A_TENTH_GONE: Mapping[Phase, Iterable[int]] = {Phase.SHARE: [3, 9], Phase.MASK: range(20, 28), Phase.REVEAL: [60, 61]}


def captured(
    devices: int, gone: Mapping[Phase, Iterable[int]], corrupt: Iterable[int] = (), bits: int = 16
) -> tuple[CuriousServer, NDArray[np.int64]]:
    """A whole round, and the vectors that were in it, shape (`devices`, d)."""
    vectors = np.random.default_rng(1).integers(-3, 4, (devices, COORDINATES), dtype=np.int64)
    one = Round(session(coordinates=COORDINATES, ring_bits=bits), vectors).until(Phase.MASK, gone)
    keys = {index: one.devices[index]._mine().mask_pair for index in corrupt}
    for phase in (Phase.MASK, Phase.AGREE):
        one.collect(phase, gone.get(phase, ()))
        one.close(phase)
    one.collect(Phase.REVEAL, gone.get(Phase.REVEAL, ()))
    return CuriousServer(one.session, one.messages, keys), vectors


def check_hidden(server: CuriousServer, vectors: NDArray[np.int64], bits: int = 16) -> None:
    """No single vector, and no sum of all but one, is anything but uniform; the whole sum is exact."""
    left = {index: server.left(index) for index in server.survivors}
    total = sum(left.values()) % 2**bits
    np.testing.assert_array_equal(total, vectors[server.survivors].sum(axis=0) % 2**bits)
    assert chi_square(total, bits) > 100, "what is not hidden is told from what is"
    for index, vector in left.items():
        assert abs(chi_square(vector, bits)) < FAR
        assert abs(chi_square((vector - vectors[index]) % 2**bits, bits)) < FAR, "it tells nothing to who knows it"
        assert abs(chi_square((total - vector) % 2**bits, bits)) < FAR


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("gone", [{}, SOME_GONE], ids=["all stay", "some drop out in every phase"])
def test_without_all_masks_that_the_server_can_remove_every_survivors_vector_is_uniform(
    bits: int, gone: Mapping[Phase, Iterable[int]]
) -> None:
    server, vectors = captured(17, gone, bits=bits)
    assert len(server.seeds) == len(server.survivors), "every survivor's own mask is off"
    assert sorted(server.mask_keys) == ([2, 3] if gone else []), "of those that shared and are not in the sum"
    check_hidden(server, vectors, bits)


@pytest.mark.parametrize("gone", [{}, {Phase.MASK: [6]}], ids=["all stay", "one drops out"])
def test_fewer_than_a_third_of_corrupt_devices_change_nothing(gone: Mapping[Phase, Iterable[int]]) -> None:
    server, vectors = captured(10, gone, corrupt=[0, 4, 9])
    assert len(server.survivors) >= smallest_sum(10)
    check_hidden(server, vectors)


@pytest.mark.slow
def test_in_a_sparse_graph_with_one_in_twenty_corrupt_and_one_in_ten_gone_every_vector_is_uniform() -> None:
    devices, corrupt = 120, [5, 17, 40, 80, 99, 119]
    server, vectors = captured(devices, A_TENTH_GONE, corrupt)
    agreed = neighbourhood(devices, "active")
    assert not agreed.complete
    assert len(server.survivors) >= smallest_sum(devices)
    assert min(map(server.honest_neighbours, server.survivors)) >= agreed.threshold - len(corrupt)
    check_hidden(server, vectors)


def test_one_honest_neighbour_hides_a_vector_and_none_does_not() -> None:
    server, vectors = captured(6, {}, corrupt=[0, 1, 2, 3])
    assert [server.honest_neighbours(index) for index in server.survivors] == [1, 1]
    one, other = map(server.left, server.survivors)
    assert abs(chi_square(one, 16)) < FAR
    assert abs(chi_square(other, 16)) < FAR
    np.testing.assert_array_equal((one + other) % 2**16, vectors[4:].sum(axis=0) % 2**16)
    server, vectors = captured(6, {}, corrupt=[0, 1, 2, 3, 4])
    assert server.honest_neighbours(5) == 0
    np.testing.assert_array_equal(server.left(5), vectors[5] % 2**16)
