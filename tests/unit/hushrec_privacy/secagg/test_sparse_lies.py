"""A sparse graph before an active server: it cannot choose neighbours, cut a device off, or split the fleet in two."""

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Phase, neighbourhood
from hushrec_privacy.secagg.state import RoundState
from hushrec_privacy.secagg.wire import write_set

from tests.secagg_lies import HEAD, ROW, SIGNATURE
from tests.secagg_round import Round, session, small_vectors

N = 100
NUMBERS = neighbourhood(N, "active")


@pytest.fixture
def masked() -> Round:
    """A round of 100 devices in which AGREE is open."""
    return Round(session(50), small_vectors(N)).until(Phase.AGREE)


def graph(one: Round) -> RoundState:
    return RoundState.decode(one.session, one.states[Phase.AGREE], Phase.MASK)


def survivors(one: Round, index: int, members: set[int]) -> bytes:
    """An answer to MASK with any set, and the true signatures of its members."""
    told = np.array([place in members for place in range(N)])
    signed = [one.messages[Phase.MASK][int(p)][HEAD : HEAD + SIGNATURE] for p in graph(one).choosers(index) if told[p]]
    return bytes([1, 128 + Phase.MASK]) + one.session.id[:16] + write_set(told) + b"".join(signed)


@pytest.mark.slow
def test_a_device_whose_holders_are_declared_dropped_is_not_unmasked(masked: Round) -> None:
    """With all its neighbours' mask keys known and its seed revealed, the server would have its vector."""
    victim, state = 0, graph(masked)
    holders = set(state.holders()[victim].tolist())
    told = set(range(N)) - set(list(holders)[: NUMBERS.chosen - NUMBERS.threshold + 1])  # t - 1 holders are left
    with pytest.raises(SecAggError, match=r"too few of this device's neighbours survived"):
        masked.message(Phase.AGREE, victim, survivors(masked, victim, told))
    left = [place for place in sorted(told) if len(told & set(state.holders()[place].tolist())) >= NUMBERS.threshold]
    signed = {place for place in left if place != victim}
    for place in signed:
        masked.message(Phase.AGREE, place, survivors(masked, place, told))
    # The victim's seed is never recovered: fewer than t of its holders are alive to reveal a share of it.
    assert len(holders & signed) < NUMBERS.threshold


@pytest.mark.slow
def test_two_halves_that_are_told_of_themselves_alone_reveal_nothing(masked: Round) -> None:
    state, halves = graph(masked), [set(range(0, N, 2)), set(range(1, N, 2))]
    signed: dict[int, set[int]] = {}
    for half in halves:
        for place in half:
            if len(half & set(state.holders()[place].tolist())) < NUMBERS.threshold:
                with pytest.raises(SecAggError, match=r"too few of this device's neighbours survived"):
                    masked.message(Phase.AGREE, place, survivors(masked, place, half))
            else:
                masked.message(Phase.AGREE, place, survivors(masked, place, half))
                signed[place] = half
    ready = [p for p, half in signed.items() if enough_signed(state, p, half & signed.keys())]
    assert not ready  # nobody can be shown t signatures of its holders


def enough_signed(state: RoundState, place: int, signers: set[int]) -> bool:
    return len(set(state.holders()[place].tolist()) & signers) >= NUMBERS.threshold


def test_a_server_cannot_choose_neighbours() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.CHOOSE)
    said = [one.message(Phase.CHOOSE, index, one.replies[Phase.ADVERTISE][index]) for index in (0, 1)]
    again = Round(session(), small_vectors(N)).until(Phase.CHOOSE)
    said.append(again.message(Phase.CHOOSE, 0, again.replies[Phase.ADVERTISE][0]))
    chosen = [np.frombuffer(message[HEAD:], ">u2") for message in said]
    assert all(len(set(places.tolist())) == NUMBERS.chosen for places in chosen)
    assert (chosen[0] != chosen[2]).any()  # same device, same place: chosen by its own coins


def test_every_other_is_chosen_equally_often() -> None:
    counts = np.zeros(N)
    one = Round(session(), small_vectors(N)).until(Phase.CHOOSE)
    for index in range(N):
        places = np.frombuffer(one.message(Phase.CHOOSE, index, one.replies[Phase.ADVERTISE][index])[HEAD:], ">u2")
        counts[(places.astype(int) - index) % N] += 1
    assert counts[0] == 0
    expected = N * NUMBERS.chosen / (N - 1)
    assert np.abs(counts[1:] - expected).max() < 6.5 * np.sqrt(expected * (1 - NUMBERS.chosen / (N - 1)))


def opened(one: Round) -> bytearray:
    return bytearray(one.replies[Phase.CHOOSE][0])


def flagged(answer: bytearray) -> list[int]:
    count = int.from_bytes(answer[HEAD : HEAD + 2], "big")
    return [HEAD + 2 + ROW * position + 2 for position in range(count)]


@pytest.mark.slow
def test_a_stranger_that_neither_chose_nor_was_chosen_is_refused() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.SHARE)
    answer = opened(one)
    chosen = set(np.frombuffer(one.messages[Phase.CHOOSE][0][HEAD:], ">u2").tolist())
    at = next(f for f in flagged(answer) if int.from_bytes(answer[f - 2 : f], "big") not in chosen)
    answer[at] = 0
    with pytest.raises(SecAggError, match="not those of this device's neighbours"):
        one.message(Phase.SHARE, 0, bytes(answer))


@pytest.mark.slow
def test_more_choosers_than_chance_allows_are_refused() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.SHARE)
    rows = [p.to_bytes(2, "big") + b"\1" + one.messages[Phase.ADVERTISE][p][HEAD:] for p in range(1, N)]
    answer = bytes(opened(one)[:HEAD]) + len(rows).to_bytes(2, "big") + b"".join(rows)
    with pytest.raises(SecAggError, match="than chance allows"):
        one.message(Phase.SHARE, 0, answer)


def test_too_many_choosers_of_one_device_end_the_round() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.CHOOSE)
    one.collect(Phase.CHOOSE)
    everybody = [p.to_bytes(2, "big") for p in range(NUMBERS.chosen + 1)]
    for index in range(N):  # a coalition that chooses the first 26
        places = [place for number, place in enumerate(everybody) if number != index][: NUMBERS.chosen]
        one.messages[Phase.CHOOSE][index] = one.messages[Phase.CHOOSE][index][:HEAD] + b"".join(places)
    with pytest.raises(SecAggError, match="a device was chosen by too many others; the round is aborted"):
        one.close(Phase.CHOOSE)
