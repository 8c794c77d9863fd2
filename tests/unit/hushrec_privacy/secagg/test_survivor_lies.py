"""A server that lies about who shared, survived and agreed: the device leaves the round and reveals nothing."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError, SecAggError
from hushrec_privacy.secagg import Phase, SecAggDevice, accept
from hushrec_privacy.secagg.roster import Roster

from tests.secagg_lies import HEAD, SEALED, SIGNATURE, VICTIM, N, a_round, entry_at, made_up, refused, told
from tests.secagg_round import Round, device, enrolled, session, small_vectors

# ---- who shared, and the shares


def test_an_answer_that_leaves_out_the_device_itself_is_refused() -> None:
    one = a_round(Phase.MASK)
    lie = told(one, Phase.SHARE)
    lie[HEAD] &= 0b111110
    refused(one, Phase.MASK, lie, "this device is not among those")


def test_too_few_holders_that_shared_are_refused() -> None:
    one = a_round(Phase.MASK)
    lie = told(one, Phase.SHARE)[:HEAD] + bytes([0b000111]) + told(one, Phase.SHARE)[HEAD + 1 :][: 2 * SEALED]
    refused(one, Phase.MASK, lie, "too few of this device's neighbours shared")


def test_fewer_than_the_minimum_that_shared_are_refused() -> None:
    one = a_round(Phase.MASK, min_devices=N)
    lie = told(one, Phase.SHARE)[:HEAD] + bytes([0b011111]) + told(one, Phase.SHARE)[HEAD + 1 : -SEALED]
    refused(one, Phase.MASK, lie, "5 devices shared, fewer than the 6")


def test_places_beyond_the_roster_are_refused() -> None:
    one = a_round(Phase.MASK)
    lie = told(one, Phase.SHARE)
    lie[HEAD] |= 0b1000000
    refused(one, Phase.MASK, lie, "beyond the roster")


def test_shares_of_another_sender_are_refused() -> None:
    one = a_round(Phase.MASK)
    lie = told(one, Phase.SHARE)
    body = HEAD + 1
    lie[body : body + 2 * SEALED] = lie[body + SEALED : body + 2 * SEALED] + lie[body : body + SEALED]
    refused(one, Phase.MASK, lie, "cannot be opened")


def test_shares_for_another_receiver_are_refused() -> None:
    one = a_round(Phase.MASK)
    lie = told(one, Phase.SHARE)
    lie[-SEALED:] = told(one, Phase.SHARE, 1)[-SEALED:]
    refused(one, Phase.MASK, lie, "cannot be opened")


def test_devices_with_two_rosters_share_nothing() -> None:
    one = a_round(Phase.CHOOSE)
    honest = [message[HEAD:] for message in one.messages[Phase.ADVERTISE].values()]
    other = Roster.of(one.session, [*honest[:5], made_up(one.session, 99)]).encode()
    one.replies[Phase.ADVERTISE][VICTIM] = other  # the rest see device 5 where the victim sees one that is made up
    one.collect(Phase.CHOOSE)
    one.close(Phase.CHOOSE)
    lie = told(one, Phase.CHOOSE)
    lie[entry_at(4)] = made_up(one.session, 99)
    one.messages[Phase.SHARE] = {VICTIM: one.message(Phase.SHARE, VICTIM, bytes(lie))}
    for index in range(1, N):
        one.messages[Phase.SHARE][index] = one.message(Phase.SHARE, index, bytes(told(one, Phase.CHOOSE, index)))
    one.close(Phase.SHARE)
    for index in range(N):
        refused(one, Phase.MASK, told(one, Phase.SHARE, index), "cannot be opened", index)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(7, np.int64),
        np.zeros((8, 1), np.int64),
        np.zeros(8, np.int32),
        np.zeros(8, np.float64),
        np.full(8, 2**15, np.int64),
        np.full(8, -(2**15) - 1, np.int64),
    ],
    ids=["short", "two axes", "narrow", "floats", "too large", "too small"],
)
def test_a_vector_of_another_ring_is_refused_before_anything_leaves(vector: np.ndarray) -> None:
    one = a_round(Phase.MASK)
    with pytest.raises(ConfigError, match="vector"):
        one.devices[VICTIM].mask(bytes(told(one, Phase.SHARE)), vector)
    with pytest.raises(SecAggError, match="reveals nothing"):
        one.message(Phase.MASK, VICTIM, bytes(told(one, Phase.SHARE)))


# ---- who survived


def survivors(of: Round, places: list[int], index: int = VICTIM) -> bytes:
    """An answer to MASK with any set, and the true signatures of its members."""
    head = bytes([1, 128 + Phase.MASK]) + of.session.id[:16]
    signed = [of.messages[Phase.MASK][place][HEAD : HEAD + SIGNATURE] for place in places if place != index]
    return head + bytes([sum(1 << place for place in places)]) + b"".join(signed)


def test_survivors_without_the_device_itself_are_refused() -> None:
    one = a_round(Phase.AGREE)
    refused(one, Phase.AGREE, survivors(one, [1, 2, 3, 4, 5]), "this device is not among those")


def test_too_few_surviving_holders_are_refused() -> None:
    one = a_round(Phase.AGREE)
    refused(one, Phase.AGREE, survivors(one, [0, 1, 2]), "too few of this device's neighbours survived")


def test_fewer_survivors_than_the_minimum_are_refused() -> None:
    one = a_round(Phase.AGREE, min_devices=5)
    refused(one, Phase.AGREE, survivors(one, [0, 1, 2, 3]), "4 devices survived, fewer than the 5")


def test_a_survivor_that_had_dropped_out_before_is_refused() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.AGREE, {Phase.SHARE: [5]})
    lie = told(one, Phase.MASK)
    lie[HEAD] |= 0b100000
    refused(one, Phase.AGREE, lie + bytes(SIGNATURE), "had dropped out before")


@pytest.mark.parametrize("position", range(5))
def test_a_survivor_that_did_not_sign_who_shared_is_refused(position: int) -> None:
    one = a_round(Phase.AGREE)
    lie = told(one, Phase.MASK)
    lie[HEAD + 1 + SIGNATURE * position] ^= 1
    refused(one, Phase.AGREE, lie, "did not sign the same sets")


def test_a_survivor_that_signed_for_another_attempt_is_refused() -> None:
    earlier = a_round(Phase.AGREE)
    one = a_round(Phase.AGREE)
    lie = told(one, Phase.MASK)
    lie[-SIGNATURE:] = told(earlier, Phase.MASK)[-SIGNATURE:]
    refused(one, Phase.AGREE, lie, "did not sign the same sets")


def test_a_device_that_was_told_of_other_devices_that_shared_is_not_unmasked() -> None:
    one = a_round(Phase.MASK)
    fewer = told(one, Phase.SHARE)[:HEAD] + bytes([0b011111]) + told(one, Phase.SHARE)[HEAD + 1 : -SEALED]
    one.messages[Phase.MASK] = {VICTIM: one.message(Phase.MASK, VICTIM, bytes(fewer))}  # it masks with 1 to 4 only
    for index in range(1, N):
        one.messages[Phase.MASK][index] = one.message(Phase.MASK, index, bytes(told(one, Phase.SHARE, index)))
    with pytest.raises(SecAggError, match="did not sign the sets"):
        accept(one.session, Phase.MASK, one.states[Phase.MASK], VICTIM, one.messages[Phase.MASK][VICTIM])
    for index in range(1, N):
        refused(one, Phase.AGREE, survivors(one, list(range(N)), index), "did not sign the same sets", index)


# ---- the agreement


def agreement(of: Round, signatures: dict[int, bytes]) -> bytes:
    head = bytes([1, 128 + Phase.AGREE]) + of.session.id[:16]
    rows = b"".join(place.to_bytes(2, "big") + signature for place, signature in sorted(signatures.items()))
    return head + len(signatures).to_bytes(2, "big") + rows


def signatures(of: Round, places: list[int]) -> dict[int, bytes]:
    return {place: of.messages[Phase.AGREE][place][HEAD:] for place in places}


def test_fewer_than_t_signatures_are_refused() -> None:
    one = a_round(Phase.REVEAL)
    refused(one, Phase.REVEAL, agreement(one, signatures(one, [0, 1, 2])), "too few .* agree")


def test_t_signatures_are_enough() -> None:
    one = a_round(Phase.REVEAL)
    one.message(Phase.REVEAL, VICTIM, agreement(one, signatures(one, [1, 2, 3, 5])))


def test_a_signature_that_is_counted_twice_is_refused() -> None:
    one = a_round(Phase.REVEAL)
    rows = bytearray(agreement(one, signatures(one, [0, 1, 2, 3])))
    rows[-66:] = rows[-132:-66]
    refused(one, Phase.REVEAL, rows, "out of order, twice")


def test_a_signature_under_the_name_of_another_is_refused() -> None:
    one = a_round(Phase.REVEAL)
    real = signatures(one, [0, 1, 2, 3])
    refused(one, Phase.REVEAL, agreement(one, real | {3: real[2]}), "did not sign the same sets")


def test_a_signature_of_one_that_dropped_out_is_refused() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.REVEAL, {Phase.MASK: [5]})
    real = signatures(one, [0, 1, 2, 3])
    refused(one, Phase.REVEAL, agreement(one, real | {5: bytes(SIGNATURE)}), "too few .* agree")


def test_a_signature_of_the_phase_before_is_refused() -> None:
    one = a_round(Phase.REVEAL)
    real = signatures(one, [0, 1, 2, 3])
    masked = one.messages[Phase.MASK][3][HEAD : HEAD + SIGNATURE]
    refused(one, Phase.REVEAL, agreement(one, real | {3: masked}), "did not sign the same sets")


def test_devices_that_were_told_different_survivors_reveal_nothing() -> None:
    one = a_round(Phase.AGREE)
    groups = {index: [0, 1, 2, 3] if index < 3 else [0, 3, 4, 5] for index in (1, 2, 4, 5)} | {
        0: [0, 1, 2, 3],
        3: [0, 3, 4, 5],
    }
    one.messages[Phase.AGREE] = {
        index: one.message(Phase.AGREE, index, survivors(one, told_to, index)) for index, told_to in groups.items()
    }
    for index, told_to in groups.items():
        same = [other for other in told_to if groups[other] == told_to]
        assert len(same) < 4
        refused(one, Phase.REVEAL, agreement(one, signatures(one, same)), "too few .* agree", index)


def test_signatures_over_another_set_of_survivors_do_not_count() -> None:
    one = a_round(Phase.AGREE)
    told_to = {0: [0, 1, 2, 3, 4]} | {index: list(range(N)) for index in range(1, N)}
    one.messages[Phase.AGREE] = {
        index: one.message(Phase.AGREE, index, survivors(one, places, index)) for index, places in told_to.items()
    }
    refused(one, Phase.REVEAL, agreement(one, signatures(one, [0, 1, 2, 3])), "did not sign the same sets")
    one.message(Phase.REVEAL, 1, agreement(one, signatures(one, [1, 2, 3, 4])))


# ---- both secrets of one device, order, and certificates


def test_no_device_reveals_both_secrets_of_another() -> None:
    one = Round(session(), small_vectors(N)).until(Phase.REVEAL, {Phase.MASK: [5]})
    revealed = one.message(Phase.REVEAL, VICTIM, bytes(told(one, Phase.AGREE)))
    rows = [revealed[start : start + 39] for start in range(HEAD, len(revealed), 39)]
    assert [(int.from_bytes(row[:2], "big"), row[2]) for row in rows] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (5, 1),
    ]
    with pytest.raises(SecAggError, match="reveals nothing"):  # asked again, with device 4 as the one that dropped out
        one.message(Phase.REVEAL, VICTIM, bytes(told(one, Phase.AGREE)))


@pytest.mark.parametrize("asked", [p for p in Phase if p > Phase.CHOOSE])
def test_a_phase_that_is_skipped_kills_nothing_but_answers_nothing(asked: Phase) -> None:
    one = a_round(Phase.CHOOSE)
    with pytest.raises(SecAggError, match="out of order"):
        one.message(asked, VICTIM, b"")
    one.message(Phase.CHOOSE, VICTIM, bytes(told(one, Phase.ADVERTISE)))


def test_nobody_advertises_twice() -> None:
    one = a_round(Phase.CHOOSE)
    with pytest.raises(SecAggError, match="out of order"):
        one.message(Phase.ADVERTISE, VICTIM)


def test_a_session_of_another_authority_or_plan_is_refused() -> None:
    identity, certificate = enrolled(1)
    for other in ({"authority": bytes(32)}, {"plan_id": "cd" * 32}):
        with pytest.raises(SecAggError, match="not of the session's plan and authority"):
            SecAggDevice(dataclasses.replace(session(), **other), identity, certificate, cohort_floor=2)


def test_a_certificate_of_another_identity_is_refused() -> None:
    with pytest.raises(SecAggError, match="another identity"):
        SecAggDevice(session(), enrolled(1)[0], enrolled(2)[1], cohort_floor=2)


def test_a_device_shows_nothing_of_its_secrets() -> None:
    one = device(session(), 1)
    assert repr(one) == "SecAggDevice(next=ADVERTISE)"
    one.advertise()
    secret = one._mine().seed.hex()
    assert secret not in repr(vars(one))
    assert hashlib.sha256(one._mine().mask_pair.reveal()).hexdigest() not in repr(one)
