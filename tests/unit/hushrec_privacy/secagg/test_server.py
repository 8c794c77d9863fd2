"""What a device may send, what the server refuses, and when it gives a round up."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Phase, accept, advertised_pseudonym, close, finish, message_size
from hushrec_privacy.secagg.keys import KeyPair
from hushrec_privacy.secagg.roster import make_entry
from hushrec_privacy.secagg.state import RoundState

from tests.secagg_lies import HEAD, N, made_up
from tests.secagg_round import PLAN_ID, Round, enrolled, session, small_vectors

PHASES = list(Phase)


def refused(of: Round, phase: Phase, message: bytes, match: str, index: int = 0) -> None:
    with pytest.raises(SecAggError, match=match):
        accept(of.session, phase, of.states[phase], index, message)


def open_round(phase: Phase) -> tuple[Round, bytes]:
    """A round in which everybody has spoken in a phase, and what device 0 said."""
    one = Round(session(ring_bits=13), small_vectors(N)).until(phase)
    one.collect(phase)
    return one, one.messages[phase][0]


@pytest.mark.parametrize("phase", PHASES)
def test_truncated_and_longer_messages_are_refused_in_every_phase(phase: Phase) -> None:
    one, message = open_round(phase)
    for cut in {0, 1, 17, 18, len(message) // 2, len(message) - 1} - {len(message)}:
        refused(one, phase, message[:cut], "truncated")
    refused(one, phase, message + b"\0", "too long")
    refused(one, phase, message + bytes(2**20), "too long")


@pytest.mark.parametrize("phase", PHASES)
def test_another_version_phase_or_session_is_refused_in_every_phase(phase: Phase) -> None:
    one, message = open_round(phase)
    refused(one, phase, b"\2" + message[1:], "another version")
    refused(one, phase, message[:1] + bytes([message[1] % 6 + 1]) + message[2:], "another phase or session")
    refused(one, phase, message[:1] + bytes([message[1] + 128]) + message[2:], "another phase or session")
    refused(one, phase, message[:9] + bytes([message[9] ^ 4]) + message[10:], "another phase or session")


@pytest.mark.parametrize("phase", PHASES)
def test_no_message_is_longer_than_its_size_says(phase: Phase) -> None:
    one, message = open_round(phase)
    assert len(message) <= message_size(one.session, phase)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_device_that_is_not_in_the_round_is_refused(phase: Phase) -> None:
    one, message = open_round(phase)
    refused(one, phase, message, "not in this phase", index=N)
    refused(one, phase, message, "not in this phase", index=-1)


@pytest.mark.parametrize("phase", PHASES[2:])
def test_a_device_that_dropped_out_is_refused_from_then_on(phase: Phase) -> None:
    one = Round(session(), small_vectors(N)).until(phase, {Phase(phase - 1): [3]})
    one.collect(phase)
    refused(one, phase, next(iter(one.messages[phase].values())), "not in this phase", index=3)


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.MASK, Phase.AGREE])
def test_what_another_device_signed_or_another_attempt_is_refused(phase: Phase) -> None:
    earlier, _ = open_round(phase)
    one, message = open_round(phase)
    if phase is not Phase.ADVERTISE:
        refused(one, phase, message, "did not sign", index=1)
        refused(one, phase, earlier.messages[phase][0], "did not sign")
    else:
        later = dataclasses.replace(one.session, attempt=bytes(16))
        with pytest.raises(SecAggError, match="another phase or session"):
            accept(later, phase, b"", 0, message)
        renamed = message[:2] + later.id[:16] + message[HEAD:]
        with pytest.raises(SecAggError, match="not for this session"):
            accept(later, phase, b"", 0, renamed)


@pytest.mark.parametrize("offset", range(HEAD, HEAD + 274, 9))
def test_every_byte_of_an_advertisement_counts(offset: int) -> None:
    one, message = open_round(Phase.ADVERTISE)
    changed = bytearray(message)
    changed[offset] ^= 1
    refused(one, Phase.ADVERTISE, bytes(changed), "unknown mask function|not of an enrolled device")


@pytest.mark.parametrize("which", ["mask_key", "share_key"])
def test_a_key_that_makes_no_secret_is_refused_though_signed(which: str) -> None:
    one = Round(session(), small_vectors(N))
    keys: dict[str, Any] = {which: bytes(32)}
    entry = made_up(one.session, 50, **keys)
    refused(one, Phase.ADVERTISE, bytes([1, 1]) + one.session.id[:16] + entry, "make no secret")


def test_the_pseudonym_of_an_advertisement_is_read_from_its_certificate() -> None:
    one, message = open_round(Phase.ADVERTISE)
    assert advertised_pseudonym(one.session, message) == f"{1:032x}"
    with pytest.raises(SecAggError, match="truncated"):
        advertised_pseudonym(one.session, message[:-1])


@pytest.mark.parametrize(
    "places",
    [[0, 2, 3, 4, 5], [1, 2, 3, 4, 4], [2, 1, 3, 4, 5], [1, 2, 3, 4, 6]],
    ids=["itself", "twice", "out of order", "beyond"],
)
def test_other_choices_than_of_different_others_are_refused(places: list[int]) -> None:
    one, message = open_round(Phase.CHOOSE)
    lie = message[:HEAD] + b"".join(place.to_bytes(2, "big") for place in places)
    refused(one, Phase.CHOOSE, lie, "chose itself|out of order, twice, or beyond")


def test_a_vector_with_loose_bits_is_refused() -> None:
    one = Round(session(coordinates=7, ring_bits=13), small_vectors(N, 7)).until(Phase.MASK)
    one.collect(Phase.MASK)
    message = bytearray(one.messages[Phase.MASK][0])
    message[-1] |= 0x80
    refused(one, Phase.MASK, bytes(message), "after the last coordinate")


@pytest.mark.parametrize("row", range(N))
def test_a_reveal_of_the_other_secret_is_refused(row: int) -> None:
    one = Round(session(), small_vectors(N)).until(Phase.REVEAL, {Phase.MASK: [5]})
    one.collect(Phase.REVEAL)
    message = bytearray(one.messages[Phase.REVEAL][0])
    message[HEAD + 39 * row + 2] ^= 1
    refused(one, Phase.REVEAL, bytes(message), "other shares")


def test_a_reveal_of_both_secrets_or_of_one_device_less_is_refused() -> None:
    one, message = open_round(Phase.REVEAL)
    refused(one, Phase.REVEAL, message + message[-39:], "too long")
    refused(one, Phase.REVEAL, message[:-39], "truncated")
    refused(one, Phase.REVEAL, message[:-39] + message[-78:-39], "out of order, twice")


def test_a_share_beyond_the_prime_is_refused() -> None:
    one, message = open_round(Phase.REVEAL)
    refused(one, Phase.REVEAL, message[:-2] + b"\xff\xff", "beyond the prime")


# ---- closing


@pytest.mark.parametrize("phase", PHASES[:4])
def test_a_phase_with_too_few_devices_ends_the_round(phase: Phase) -> None:
    one = Round(session(min_devices=5), small_vectors(N)).until(phase)
    one.collect(phase, gone=[0, 1])
    with pytest.raises(SecAggError, match=r"4 devices .* fewer than 5: the round is aborted"):
        one.close(phase)


@pytest.mark.parametrize("phase", PHASES[2:5])
def test_a_phase_without_t_holders_ends_the_round(phase: Phase) -> None:
    one = Round(session(min_devices=2), small_vectors(N)).until(phase)
    one.collect(phase, gone=[0, 1, 2])
    with pytest.raises(SecAggError, match=r"too few neighbours .* the round is aborted"):
        one.close(phase)


def test_of_two_devices_with_one_name_or_key_the_later_stays_outside() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.ADVERTISE)
    one.collect(Phase.ADVERTISE)
    messages = list(one.messages[Phase.ADVERTISE].items())
    head, (_, first) = messages[0][1][:HEAD], messages[0]
    key = first[HEAD + 146 : HEAD + 178]
    again = make_entry(one.session, *enrolled(1), KeyPair(b"\1" * 32).public, KeyPair(b"\2" * 32).public)
    without = close(one.session, Phase.ADVERTISE, b"", messages)
    for twice in (
        first,
        head + made_up(one.session, 40, mask_key=key),
        head + made_up(one.session, 40, share_key=key),
        head + again,
    ):
        assert close(one.session, Phase.ADVERTISE, b"", [*messages, (40, twice)]) == without
    with pytest.raises(SecAggError, match="has two messages"):
        close(one.session, Phase.ADVERTISE, b"", [*messages, messages[1]])
    few = [*messages[: one.session.min_devices - 1], (40, first)]
    with pytest.raises(SecAggError, match="names and keys of their own"):
        close(one.session, Phase.ADVERTISE, b"", few)


@pytest.mark.parametrize("phase", PHASES[1:5])
def test_two_messages_of_one_device_end_the_round(phase: Phase) -> None:
    one, message = open_round(phase)
    with pytest.raises(SecAggError, match="device 0 has two messages"):
        close(one.session, phase, one.states[phase], [*one.messages[phase].items(), (0, message)])


def test_reveal_is_not_closed_but_finished() -> None:
    one, _ = open_round(Phase.REVEAL)
    with pytest.raises(SecAggError, match="ended by finish"):
        close(one.session, Phase.REVEAL, one.states[Phase.REVEAL], [])


@pytest.mark.parametrize("phase", PHASES[:5])
def test_closing_is_deterministic_in_whatever_order_messages_come(phase: Phase) -> None:
    one, _ = open_round(phase)
    messages = list(one.messages[phase].items())
    here, there = (close(one.session, phase, one.states[phase], order) for order in (messages, messages[::-1]))
    assert (here.state, here.replies) == (there.state, there.replies)
    assert (here.total is None) == (phase is not Phase.MASK)
    if here.total is not None:
        np.testing.assert_array_equal(here.total, there.total)
        assert here.total.dtype == np.uint64
        assert int(here.total.max()) < 2**13


def test_indexes_with_gaps_and_out_of_order_name_the_same_devices() -> None:
    one = Round(session(), small_vectors(N))
    one.devices = {index: one.devices[place] for place, index in enumerate([900, 7, 65_535, 0, 31, 5])}
    one.vectors = np.concatenate([small_vectors(N), np.zeros((65_536 - N, 8), np.int64)])
    outcome = one.run({Phase.MASK: [31]})
    assert outcome.survivors == (0, 5, 7, 900, 65_535)
    np.testing.assert_array_equal(outcome.sum, one.vectors[list(outcome.survivors)].sum(axis=0))


@pytest.mark.parametrize("index", [-1, 65_536])
def test_an_index_beyond_two_bytes_is_refused(index: int) -> None:
    one, message = open_round(Phase.ADVERTISE)
    refused(one, Phase.ADVERTISE, message, "advertises|index", index=index)


# ---- the state


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_state_of_another_phase_session_or_length_is_refused(phase: Phase) -> None:
    one, message = open_round(phase)
    state = one.states[phase]
    other = dataclasses.replace(one.session, attempt=bytes(16))
    for wrong in (b"", state[:-1], state + b"\0", b"\2" + state[1:], state[:1] + bytes([state[1] + 1]) + state[2:]):
        with pytest.raises(SecAggError, match="the state is not"):
            accept(one.session, phase, wrong, 0, message)
    with pytest.raises(SecAggError, match="the state is not"):
        close(other, phase if phase < Phase.REVEAL else Phase.AGREE, state, [])
    if phase is Phase.REVEAL:
        with pytest.raises(SecAggError, match="the state is not"):
            finish(other, state, np.zeros(8, np.uint64), [])


def test_a_state_holds_what_the_server_was_sent_and_nothing_else() -> None:
    one, _ = open_round(Phase.REVEAL)
    state = RoundState.decode(one.session, one.states[Phase.REVEAL], Phase.AGREE)
    assert len(one.states[Phase.REVEAL]) == 68 + N * (2 + 1 + 274 + 32 + 2 * (N - 1))
    for place in range(N):
        assert state.entry(place) == one.messages[Phase.ADVERTISE][place][HEAD:]
        assert state.rows["commitment"][place].tobytes() == one.messages[Phase.SHARE][place][HEAD : HEAD + 32]
    assert PLAN_ID in state.session.plan_id
