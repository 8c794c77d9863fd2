"""The sum is exact or there is none: whatever shares say, and whoever dropped out when."""

import dataclasses

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Phase, accept, finish, unmasking
from hushrec_privacy.secagg.keys import KeyPair, Place
from hushrec_privacy.secagg.masks import add_mask
from hushrec_privacy.secagg.packing import unpack
from hushrec_privacy.secagg.shamir import recover
from hushrec_privacy.secagg.state import RoundState
from numpy.typing import NDArray

from tests.secagg_lies import HEAD, N
from tests.secagg_round import Round, session, small_vectors

ROW = 39


def exact(one: Round, gone: dict[Phase, list[int]] | None = None) -> tuple[int, ...]:
    """Run a round, hold its sum against the survivors' vectors, and say who they were."""
    outcome = one.run(gone)
    np.testing.assert_array_equal(outcome.sum, one.vectors[list(outcome.survivors)].sum(axis=0))
    return outcome.survivors


@pytest.mark.parametrize("setting", ["curious", "active"])
def test_everybody_stays(setting: str) -> None:
    assert exact(Round(session(setting=setting), small_vectors(N))) == tuple(range(N))


@pytest.mark.parametrize("phase", list(Phase))
def test_a_device_drops_out_in_any_phase(phase: Phase) -> None:
    survivors = exact(Round(session(), small_vectors(N)), {phase: [2]})
    assert (2 in survivors) == (phase > Phase.MASK)


def test_one_drops_out_in_every_phase() -> None:
    gone = {Phase(phase): [phase] for phase in range(1, 7)}
    assert exact(Round(session(), small_vectors(17)), gone) == (0, 5, 6, *range(7, 17))


@pytest.mark.parametrize("bits", [2, 8, 9, 16, 23, 32])
def test_every_width_of_the_ring(bits: int) -> None:
    vectors = small_vectors(3, 100, limit=min(2 ** (bits - 1) // 3, 2**20) + 1)
    total = vectors.sum(axis=0)
    outcome = Round(session(coordinates=100, ring_bits=bits), vectors).run()
    half = 2 ** (bits - 1)
    np.testing.assert_array_equal(outcome.sum, (total + half) % 2**bits - half)
    assert outcome.sum.min() < 0 < outcome.sum.max()


def test_the_extremes_of_the_ring_come_back() -> None:
    vectors = np.zeros((3, 2), np.int64)
    vectors[0] = [2**15 - 1, -(2**15)]
    assert Round(session(coordinates=2), vectors).run().sum.tolist() == [2**15 - 1, -(2**15)]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["curious", "active"])
def test_a_sparse_graph_with_one_in_ten_gone(setting: str) -> None:
    gone = {Phase.SHARE: [3, 9], Phase.MASK: range(20, 26), Phase.AGREE: [50], Phase.REVEAL: [60, 61]}
    one = Round(session(100, setting=setting), small_vectors(120))
    survivors = exact(one, gone)  # type: ignore[arg-type]
    assert survivors == tuple(i for i in range(120) if i not in {3, 9, *range(20, 26)})


def revealed(gone: dict[Phase, list[int]] | None = None, devices: int = N) -> Round:
    one = Round(session(), small_vectors(devices)).until(Phase.REVEAL, gone)
    one.collect(Phase.REVEAL)
    return one


def change(one: Round, index: int, owner_row: int) -> None:
    """Let a device lie in its share of one owner; `accept` lets it pass."""
    message = bytearray(one.messages[Phase.REVEAL][index])
    message[HEAD + ROW * owner_row + 3] ^= 1 << index  # different errors, which cannot cancel
    one.messages[Phase.REVEAL][index] = bytes(message)
    accept(one.session, Phase.REVEAL, one.states[Phase.REVEAL], index, bytes(message))


@pytest.mark.parametrize("liar", range(N))
@pytest.mark.parametrize("owner", [0, 3])
def test_one_wrong_share_more_than_needed_does_no_harm(liar: int, owner: int) -> None:
    one = revealed()  # six shares of each, four are needed
    change(one, liar, owner)
    np.testing.assert_array_equal(one.finish().sum, one.vectors.sum(axis=0))


@pytest.mark.parametrize(("owner", "gone"), [(2, []), (5, [5])], ids=["of a seed", "of a mask key"])
def test_a_wrong_share_that_is_needed_ends_the_round_and_names_the_device(owner: int, gone: list[int]) -> None:
    one = revealed({Phase.MASK: gone, Phase.AGREE: [0] if gone else [0, 1]})  # four shares of each
    assert len(one.messages[Phase.REVEAL]) == 4
    change(one, 3, owner)
    with pytest.raises(SecAggError, match="of a device do not give what it advertised: the round is aborted"):
        one.finish()


def test_two_wrong_shares_do_no_harm_while_enough_right_ones_are_there() -> None:
    one = revealed()
    for owner in range(N):
        change(one, 0, owner)
        change(one, 1, owner)
    np.testing.assert_array_equal(one.finish().sum, one.vectors.sum(axis=0))


def test_whoever_is_caught_with_a_wrong_share_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    one = revealed()
    tried: list[list[int]] = []
    for owner in range(N):
        change(one, 0, owner)

    def noted(points: list[int], rows: NDArray[np.integer]) -> bytes:
        tried.append(points)
        return recover(points, rows)

    monkeypatch.setattr(unmasking, "recover", noted)
    one.finish()
    first = next(place for place, points in enumerate(tried) if 1 not in points)
    assert all(points == [2, 3, 4, 5] for points in tried[first + 1 :])


def test_three_wrong_shares_of_six_end_the_round() -> None:
    one = revealed()
    for liar in (0, 1, 2):
        for owner in range(N):
            change(one, liar, owner)
    with pytest.raises(SecAggError, match="of a device do not give"):
        one.finish()


def test_a_wrong_commitment_ends_the_round() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.SHARE)
    one.collect(Phase.SHARE)
    lie = bytearray(one.messages[Phase.SHARE][4])
    lie[HEAD] ^= 1
    one.messages[Phase.SHARE][4] = bytes(lie)
    one.close(Phase.SHARE)
    for phase in (Phase.MASK, Phase.AGREE):
        one.collect(phase)
        one.close(phase)
    one.collect(Phase.REVEAL)
    with pytest.raises(SecAggError, match="of a device do not give what it advertised"):
        one.finish()


def test_too_few_reveals_end_the_round() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.REVEAL)
    one.collect(Phase.REVEAL, gone=[0, 1, 2])
    with pytest.raises(SecAggError, match="too few shares of a device"):
        one.finish()


def test_a_sum_of_another_length_is_refused() -> None:
    one = revealed()
    with pytest.raises(SecAggError, match="not as long"):
        finish(one.session, one.states[Phase.REVEAL], np.zeros(9, np.uint64), [])


def test_the_outcome_is_the_same_in_whatever_order_the_reveals_come() -> None:
    one = revealed()
    assert one.total is not None
    messages = list(one.messages[Phase.REVEAL].items())
    for order in (messages, messages[::-1], messages[1:]):
        again = finish(one.session, one.states[Phase.REVEAL], one.total, order)
        np.testing.assert_array_equal(again.sum, one.vectors.sum(axis=0))


def test_a_masked_vector_that_comes_too_late_stays_hidden() -> None:
    """All shares of its mask key are out, so all masks of pairs are known; its own is not."""
    one = Round(session(coordinates=50_000), small_vectors(N, 50_000, limit=2)).until(Phase.MASK)
    late = one.message(Phase.MASK, 5, one.replies[Phase.SHARE][5])
    one.collect(Phase.MASK, gone=[5])
    one.close(Phase.MASK)
    one.collect(Phase.AGREE)
    one.close(Phase.AGREE)
    one.collect(Phase.REVEAL)
    one.finish()
    state = RoundState.decode(one.session, one.states[Phase.REVEAL], Phase.AGREE)
    points = [1, 2, 3, 4]
    rows = [one.messages[Phase.REVEAL][place][HEAD + ROW * 5 :][3:39] for place in range(4)]
    pair = KeyPair(recover(points, np.array([np.frombuffer(row, "<u2") for row in rows])))
    assert pair.public == state.member(5).mask_key
    vector = unpack(late[HEAD + 64 :], 50_000, 16).copy()
    place = Place(one.session.id, state.root, 5)
    for other in range(5):
        add_mask(vector, place.pair_mask_key(pair.agree(state.member(other).mask_key), other))  # it took it away
    counts = np.bincount(vector >> 10, minlength=64)
    assert float(((counts - 50_000 / 64) ** 2).sum() / (50_000 / 64)) < 63 + 7 * (2 * 63) ** 0.5


def test_a_round_goes_on_in_another_process_from_bytes_alone() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.REVEAL)
    one.collect(Phase.REVEAL)
    copied = dataclasses.replace(one.session)
    assert one.total is not None
    reveals = one.messages[Phase.REVEAL].items()
    outcome = finish(copied, bytes(bytearray(one.states[Phase.REVEAL])), one.total.copy(), reveals)
    np.testing.assert_array_equal(outcome.sum, one.vectors.sum(axis=0))
