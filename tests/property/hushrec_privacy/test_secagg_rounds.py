"""A round gives the exact sum of its survivors or ends, whoever drops out and whatever bit is changed on the way."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Outcome, Phase, accept, message_size
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.secagg_round import Round, session, small_vectors

MASKED_AT = 18 + 64  # where the vector of a MASK begins: a device may add what it likes there


def drops(devices: int) -> st.SearchStrategy[dict[Phase, set[int]]]:
    """Who drops out in which phase; few in each, so that many rounds come to their end."""
    few = st.sets(st.integers(0, devices - 1), max_size=max(1, devices // 6))
    return st.fixed_dictionaries(dict.fromkeys(Phase, few))


rounds = st.integers(3, 14).flatmap(lambda n: st.tuples(st.just(n), drops(n), st.integers(2, n)))
large_rounds = st.integers(15, 40).flatmap(lambda n: st.tuples(st.just(n), drops(n), st.integers(2, n)))


def expected(devices: int, gone: dict[Phase, set[int]], least: int) -> set[int] | None:
    """Who must be in the sum; None: the round must end without one. By the counts alone, for a complete graph."""
    left, survivors = set(range(devices)), set()
    threshold = 0
    for phase in Phase:
        left = left - gone[phase]
        if phase is Phase.ADVERTISE:
            threshold = math.ceil(2 * len(left) / 3)
        if phase <= Phase.MASK and len(left) < least:
            return None
        if phase >= Phase.SHARE and len(left) < threshold:
            return None
        if phase is Phase.MASK:
            survivors = left
    return survivors


def check(devices: int, gone: dict[Phase, set[int]], least: int, bits: int, setting: str) -> None:
    one = Round(session(least, ring_bits=bits, setting=setting), small_vectors(devices, limit=2 ** (bits - 1)))
    wanted = expected(devices, gone, least)
    event("ends without a sum" if wanted is None else "gives a sum")
    if wanted is None:
        with pytest.raises(SecAggError, match="aborted"):
            one.run(gone)
        return
    outcome = one.run(gone)
    assert set(outcome.survivors) == wanted
    total, half = one.vectors[sorted(wanted)].sum(axis=0), 2 ** (bits - 1)
    np.testing.assert_array_equal(outcome.sum, (total + half) % 2**bits - half)


@settings(max_examples=40)
@given(drawn=rounds, bits=st.integers(2, 32), setting=st.sampled_from(["curious", "active"]))
def test_a_small_round_is_exact_or_ends(drawn: tuple[int, dict[Phase, set[int]], int], bits: int, setting: str) -> None:
    check(*drawn, bits, setting)


@pytest.mark.slow
@settings(max_examples=40)
@given(drawn=large_rounds, bits=st.integers(2, 32), setting=st.sampled_from(["curious", "active"]))
def test_a_larger_round_is_exact_or_ends(
    drawn: tuple[int, dict[Phase, set[int]], int], bits: int, setting: str
) -> None:
    check(*drawn, bits, setting)


class Changed(Round):
    """A round in which one byte of one message is changed; devices that refuse what they are told have dropped out."""

    def __init__(self, devices: int, phase: Phase, *, reply: bool, index: int, where: float, bit: int) -> None:
        super().__init__(session(ring_bits=16), small_vectors(devices))
        self.at, self.reply, self.index, self.where, self.bit = phase, reply, index, where, bit
        self.vector_changed = False

    def altered(self, phase: Phase, index: int, data: bytes, *, reply: bool) -> bytes:
        if (phase, reply, index) != (self.at, self.reply, self.index) or not data:
            return data
        position = int(self.where * len(data))
        self.vector_changed = phase is Phase.MASK and not reply and position >= MASKED_AT
        return data[:position] + bytes([data[position] ^ 1 << self.bit]) + data[position + 1 :]

    def collect(self, phase: Phase, gone: Iterable[int] = ()) -> None:
        assert not list(gone)
        before = Phase(max(1, phase - 1))
        answers = self.replies.get(before, dict.fromkeys(self.devices, b""))
        self.messages[phase] = {}
        for index, answer in answers.items():
            try:
                told = self.altered(before, index, answer, reply=True)
                said = self.altered(phase, index, self.message(phase, index, told), reply=False)
                accept(self.session, phase, self.states[phase], index, said)
            except SecAggError:
                continue  # a device that left, or a message that was refused
            self.messages[phase][index] = said


changes = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(Phase),
        "reply": st.booleans(),
        "index": st.integers(0, 6),
        "where": st.floats(0, 1, exclude_max=True),
        "bit": st.integers(0, 7),
    }
)


@settings(max_examples=150)
@given(change=changes)
def test_one_changed_bit_anywhere_never_gives_a_wrong_sum(change: dict[str, object]) -> None:
    one = Changed(7, **change)  # type: ignore[arg-type]
    outcome = run_or_aborted(one)
    if outcome is None:
        event("ends without a sum")
        return
    expected = one.vectors[list(outcome.survivors)].sum(axis=0)
    event(f"gives a sum of {len(outcome.survivors)}")
    if one.vector_changed:
        assert (outcome.sum != expected).sum() == 1
    else:
        np.testing.assert_array_equal(outcome.sum, expected)


def run_or_aborted(one: Round) -> Outcome | None:
    try:
        return one.run()
    except SecAggError as error:
        if "the round is aborted" not in error.message:
            raise
        return None


class Opened:
    """One honest round, run once, whose messages are changed after they were signed and accepted."""

    one: Round | None = None

    @classmethod
    def round(cls) -> Round:
        if cls.one is None:
            cls.one = Round(session(), small_vectors(5)).until(Phase.REVEAL)
            cls.one.collect(Phase.REVEAL)
        return cls.one


@settings(max_examples=500)
@given(
    phase=st.sampled_from(Phase),
    index=st.integers(0, 4),
    start=st.floats(0, 1, exclude_max=True),
    put=st.binary(max_size=40),
    cut=st.integers(0, 40),
)
def test_accept_answers_every_mutation_with_nothing_or_its_one_error(
    phase: Phase, index: int, start: float, put: bytes, cut: int
) -> None:
    one = Opened.round()
    message = one.messages[phase][index]
    at = int(start * len(message))
    changed = message[:at] + put + message[at + cut :]
    try:
        accept(one.session, phase, one.states[phase], index, changed)
    except SecAggError:
        return
    assert len(changed) == len(message) <= message_size(one.session, phase)
    if changed != message:
        assert phase in {Phase.SHARE, Phase.MASK, Phase.REVEAL}  # what is encrypted, the vector, and values of shares


@settings(max_examples=300)
@given(phase=st.sampled_from(Phase), index=st.integers(-2, 70_000), message=st.binary(max_size=400))
def test_accept_answers_anything_with_its_one_error(phase: Phase, index: int, message: bytes) -> None:
    one = Opened.round()
    with pytest.raises(SecAggError):
        accept(one.session, phase, one.states[phase], index, message)
