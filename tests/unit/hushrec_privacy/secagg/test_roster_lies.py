"""A server that lies about who takes part: the device leaves the round and reveals nothing."""

import dataclasses
from collections.abc import Callable

import pytest
from hushrec_privacy.enrolment import AuthorityKey
from hushrec_privacy.secagg import Phase
from hushrec_privacy.secagg.keys import KeyPair
from hushrec_privacy.secagg.roster import Roster, make_entry

from tests.secagg_lies import HEAD, ROW, VICTIM, N, a_round, entry_at, made_up, refused, told
from tests.secagg_round import AUTHORITY, PLAN_ID, Round, device, enrolled, session, small_vectors

# ---- the roster


def rows_of(roster: bytes | bytearray) -> list[bytes]:
    body = bytes(roster[HEAD + 2 :])
    return [body[start : start + 48] for start in range(0, len(body), 48)]


def roster_of(head: bytes | bytearray, rows: list[bytes]) -> bytes:
    return bytes(head[:HEAD]) + len(rows).to_bytes(2, "big") + b"".join(rows)


def test_a_roster_without_the_device_is_refused() -> None:
    one = a_round(Phase.CHOOSE)
    roster = told(one, Phase.ADVERTISE)
    refused(one, Phase.CHOOSE, roster_of(roster, rows_of(roster)[1:]), "own entry")


def test_a_roster_with_another_entry_for_the_device_is_refused() -> None:
    one = a_round(Phase.CHOOSE)
    roster = told(one, Phase.ADVERTISE)
    roster[HEAD + 2 + 16] ^= 1
    refused(one, Phase.CHOOSE, roster, "own entry")


@pytest.mark.parametrize("part", [slice(0, 16), slice(16, 48)], ids=["pseudonym", "entry"])
def test_a_roster_that_names_a_device_twice_is_refused(part: slice) -> None:
    one = a_round(Phase.CHOOSE)
    roster = told(one, Phase.ADVERTISE)
    rows = [bytearray(row) for row in rows_of(roster)]
    rows[2][part] = rows[3][part]
    refused(one, Phase.CHOOSE, roster_of(roster, [bytes(row) for row in rows]), "a device twice")


def test_a_roster_below_the_sessions_minimum_is_refused() -> None:
    one = a_round(Phase.CHOOSE, min_devices=N)
    roster = told(one, Phase.ADVERTISE)
    refused(one, Phase.CHOOSE, roster_of(roster, rows_of(roster)[:-1]), "5 devices are on the roster, fewer than the 6")


def test_a_roster_below_the_devices_own_floor_is_refused_whatever_the_session_says() -> None:
    one = a_round(Phase.ADVERTISE)
    one.devices[VICTIM] = device(one.session, 1, cohort_floor=N + 1)
    one.collect(Phase.ADVERTISE)
    one.close(Phase.ADVERTISE)
    refused(one, Phase.CHOOSE, told(one, Phase.ADVERTISE), "fewer than the 7")


@pytest.mark.parametrize("phase", [Phase.CHOOSE, Phase.SHARE, Phase.MASK, Phase.AGREE, Phase.REVEAL])
@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (lambda data: data[:-1], "truncated|beyond"),
        (lambda data: data[:17], "truncated"),
        (lambda _: b"", "truncated"),
        (lambda data: data + b"\0", "too long"),
        (lambda data: bytes([data[0] + 1]) + data[1:], "another version"),
        (lambda data: data[:1] + bytes([data[1] ^ 128]) + data[2:], "another phase or session"),
        (lambda data: data[:2] + bytes([data[2] ^ 1]) + data[3:], "another phase or session"),
    ],
    ids=["cut", "cut in the header", "empty", "longer", "version", "kind", "session"],
)
def test_a_malformed_answer_is_refused_in_every_phase(
    phase: Phase, alter: Callable[[bytes], bytes], match: str
) -> None:
    one = a_round(phase)
    refused(one, phase, alter(bytes(told(one, Phase(phase - 1)))), match)


@pytest.mark.parametrize("phase", [Phase.CHOOSE, Phase.SHARE, Phase.MASK, Phase.AGREE, Phase.REVEAL])
def test_an_answer_of_an_earlier_attempt_is_refused_in_every_phase(phase: Phase) -> None:
    earlier = a_round(phase)
    one = Round(dataclasses.replace(session(), attempt=b"another attempt."), small_vectors(N)).until(phase)
    lie = bytes(told(one, Phase(phase - 1))[:HEAD]) + bytes(told(earlier, Phase(phase - 1))[HEAD:])
    assert lie[:2] == bytes(told(earlier, Phase(phase - 1)))[:2]
    refused(one, phase, lie, "own entry|not the one|cannot be opened|did not sign")


# ---- the opened entries


def test_an_entry_of_another_place_is_refused() -> None:
    one = a_round(Phase.SHARE)
    lie = told(one, Phase.CHOOSE)
    lie[entry_at(0)], lie[entry_at(1)] = lie[entry_at(1)], lie[entry_at(0)]
    refused(one, Phase.SHARE, lie, "not the one that the roster fixed")


@pytest.mark.parametrize("offset", [0, 1, 40, 60, 100, 150, 180, 230], ids=str)
def test_an_entry_that_was_changed_after_the_roster_is_refused(offset: int) -> None:
    one = a_round(Phase.SHARE)
    lie = told(one, Phase.CHOOSE)
    lie[entry_at(2).start + offset] ^= 1
    refused(one, Phase.SHARE, lie, "not the one that the roster fixed")


def with_entry(entry: bytes, place: int = 3) -> tuple[Round, bytes]:
    """A round in which the server fixed a roster with that entry at a place, and opens it to the victim."""
    one = a_round(Phase.CHOOSE)
    honest = {index: message[HEAD:] for index, message in one.messages[Phase.ADVERTISE].items()}
    entries = [entry if index == place else honest[index] for index in range(N)]
    one.message(Phase.CHOOSE, VICTIM, Roster.of(one.session, entries).encode())
    rows = b"".join(p.to_bytes(2, "big") + b"\1" + entries[p] for p in range(1, N))
    return one, bytes([1, 128 + Phase.CHOOSE]) + one.session.id[:16] + (N - 1).to_bytes(2, "big") + rows


def test_the_lies_below_start_from_an_honest_answer() -> None:
    one, answer = with_entry(made_up(session(), 99))
    one.message(Phase.SHARE, VICTIM, answer)


def test_a_device_that_no_authority_certified_is_refused() -> None:
    one, lie = with_entry(made_up(session(), 99, AuthorityKey(b"\5" * 32)))
    refused(one, Phase.SHARE, lie, "not of an enrolled device")


def test_a_certificate_of_another_plan_is_refused() -> None:
    identity, certificate = enrolled(99, "cd" * 32)
    entry = make_entry(session(), identity, certificate, KeyPair(b"\1" * 32).public, KeyPair(b"\2" * 32).public)
    one, lie = with_entry(entry)
    refused(one, Phase.SHARE, lie, "not of an enrolled device")


def test_keys_that_were_advertised_in_an_earlier_attempt_are_refused() -> None:
    one, lie = with_entry(made_up(dataclasses.replace(session(), attempt=bytes(16)), 99))
    refused(one, Phase.SHARE, lie, "not for this session")


@pytest.mark.parametrize("start", [146, 178], ids=["mask key", "share key"])
def test_keys_that_the_server_swapped_before_the_roster_are_refused(start: int) -> None:
    entry = bytearray(made_up(session(), 99))
    entry[start : start + 32] = KeyPair(b"\3" * 32).public
    one, lie = with_entry(bytes(entry))
    refused(one, Phase.SHARE, lie, "not for this session")


def test_a_certificate_with_the_signature_of_another_identity_is_refused() -> None:
    identity, _ = enrolled(98)
    _, certificate = enrolled(99)
    entry = make_entry(session(), identity, certificate, KeyPair(b"\1" * 32).public, KeyPair(b"\2" * 32).public)
    one, lie = with_entry(entry)
    refused(one, Phase.SHARE, lie, "not for this session")


@pytest.mark.parametrize("function", [0, 2, 255])
def test_an_unknown_mask_function_is_refused_though_signed(function: int) -> None:
    identity, certificate = enrolled(99)
    signed = bytes([function]) + certificate + KeyPair(b"\1" * 32).public + KeyPair(b"\2" * 32).public
    one, lie = with_entry(signed + identity.sign(b"hushrec secagg advertise v1", session().id + signed))
    refused(one, Phase.SHARE, lie, "unknown mask function")


def test_one_key_for_two_purposes_is_refused() -> None:
    one, lie = with_entry(made_up(session(), 99, share_key=KeyPair(b"\1" * 32).public))
    refused(one, Phase.SHARE, lie, "one key for two purposes")


def test_a_key_that_makes_no_secret_is_refused() -> None:
    one, lie = with_entry(made_up(session(), 99, share_key=bytes(32)))
    refused(one, Phase.SHARE, lie, "makes no secret")


def test_one_identity_under_two_pseudonyms_is_refused() -> None:
    identity, _ = enrolled(2)  # it is on the roster at place 1
    certificate = AUTHORITY.certify(PLAN_ID, "f" * 32, identity.public())
    entry = make_entry(session(), identity, certificate, KeyPair(b"\1" * 32).public, KeyPair(b"\2" * 32).public)
    one, lie = with_entry(entry)
    refused(one, Phase.SHARE, lie, "same identity or key")


def test_one_key_of_two_devices_is_refused() -> None:
    probe = a_round(Phase.CHOOSE)
    copied = probe.messages[Phase.ADVERTISE][1][HEAD + 146 : HEAD + 178]
    honest = {index: message[HEAD:] for index, message in probe.messages[Phase.ADVERTISE].items()}
    entries = [made_up(probe.session, 99, mask_key=copied) if index == 3 else honest[index] for index in range(N)]
    probe.message(Phase.CHOOSE, VICTIM, Roster.of(probe.session, entries).encode())
    rows = b"".join(p.to_bytes(2, "big") + b"\1" + entries[p] for p in range(1, N))
    lie = bytes([1, 128 + Phase.CHOOSE]) + probe.session.id[:16] + (N - 1).to_bytes(2, "big") + rows
    refused(probe, Phase.SHARE, lie, "same identity or key")


def test_a_pseudonym_that_the_roster_does_not_have_is_refused() -> None:
    one = a_round(Phase.CHOOSE)
    honest = Roster.of(one.session, [message[HEAD:] for message in one.messages[Phase.ADVERTISE].values()])
    renamed = dataclasses.replace(honest, pseudonyms=(*honest.pseudonyms[:3], b"x" * 16, *honest.pseudonyms[4:]))
    one.message(Phase.CHOOSE, VICTIM, renamed.encode())
    one.collect(Phase.CHOOSE, gone=[VICTIM])
    one.messages[Phase.CHOOSE][VICTIM] = one.messages[Phase.CHOOSE][1][:HEAD] + b"".join(
        place.to_bytes(2, "big") for place in range(1, N)
    )
    one.close(Phase.CHOOSE)
    refused(one, Phase.SHARE, told(one, Phase.CHOOSE), "another pseudonym")


def test_a_neighbour_that_stays_closed_is_refused() -> None:
    one = a_round(Phase.SHARE)
    whole = told(one, Phase.CHOOSE)
    lie = whole[:HEAD] + (N - 2).to_bytes(2, "big") + whole[HEAD + 2 : -ROW]
    refused(one, Phase.SHARE, lie, "not those of this device's neighbours")


def test_the_device_itself_is_no_neighbour_of_its_own() -> None:
    one = a_round(Phase.SHARE)
    whole = told(one, Phase.CHOOSE)
    own = VICTIM.to_bytes(2, "big") + b"\1" + one.messages[Phase.ADVERTISE][VICTIM][HEAD:]
    refused(
        one, Phase.SHARE, whole[:HEAD] + N.to_bytes(2, "big") + own + whole[HEAD + 2 :], "not those of this device's"
    )


def test_entries_out_of_order_are_refused() -> None:
    one = a_round(Phase.SHARE)
    whole = told(one, Phase.CHOOSE)
    first, second = whole[HEAD + 2 : HEAD + 2 + ROW], whole[HEAD + 2 + ROW : HEAD + 2 + 2 * ROW]
    refused(one, Phase.SHARE, whole[: HEAD + 2] + second + first + whole[HEAD + 2 + 2 * ROW :], "out of order")
