"""The captured round is what the product reads and writes, and what a second implementation makes of its bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec_privacy.secagg import Phase, Session, accept, close, finish
from hushrec_privacy.secagg.keys import KeyPair, Place

from tests.secagg_reference import BASE, Captured, hkdf, lagrange_at_0, x25519

FILE = Path(__file__).parent / "secagg" / "round.json"
STORED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
SESSION = Session.decode(bytes.fromhex(STORED["session"]))


def stored(kind: str, phase: Phase) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(data) for index, data in STORED[kind].get(phase.name, {}).items()}


def state_before(phase: Phase) -> bytes:
    return bytes.fromhex(STORED["states"][Phase(phase - 1).name]) if phase > Phase.ADVERTISE else b""


@pytest.fixture(scope="module")
def captured() -> Captured:
    kinds = ("messages", "answers")
    messages, answers = ({int(phase): stored(kind, phase) for phase in Phase} for kind in kinds)
    return Captured(bytes.fromhex(STORED["session"]), messages, answers)


@pytest.mark.parametrize("phase", list(Phase))
def test_the_server_accepts_every_message(phase: Phase) -> None:
    for index, message in stored("messages", phase).items():
        accept(SESSION, phase, state_before(phase), index, message)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase < Phase.REVEAL])
def test_closing_a_phase_gives_the_stored_answers_and_state(phase: Phase) -> None:
    closed = close(SESSION, phase, state_before(phase), stored("messages", phase).items())
    assert closed.replies == stored("answers", phase)
    assert closed.state == state_before(Phase(phase + 1))
    if closed.total is not None:
        assert closed.total.tolist() == STORED["masked sum"]


def test_the_outcome_is_the_stored_one() -> None:
    reveals = stored("messages", Phase.REVEAL).items()
    outcome = finish(SESSION, state_before(Phase.REVEAL), np.array(STORED["masked sum"], np.uint64), reveals)
    assert outcome.sum.tolist() == STORED["sum"] == np.array(STORED["vectors"])[[0, 2, 3, 4, 5, 6]].sum(axis=0).tolist()
    assert list(outcome.survivors) == STORED["survivors"] == [0, 2, 3, 4, 5, 6]


def test_a_second_implementation_comes_to_the_same_sum(captured: Captured) -> None:
    assert captured.total() == STORED["sum"]


def test_a_second_implementation_finds_every_signature_right(captured: Captured) -> None:
    assert captured.check_signatures() == 7 + 6 + 6


def test_a_second_implementation_opens_every_share_and_recovers_every_secret(captured: Captured) -> None:
    drawn = STORED["secrets (seed, mask key, share key)"]
    secrets = {int(i): [bytes.fromhex(secret) for secret in three] for i, three in drawn.items()}
    opened = captured.opened_shares({i: three[2] for i, three in secrets.items()})
    assert len(opened) == 7
    for owner, (seed, mask_key, share_key) in secrets.items():
        for first in (0, 1):  # five of the six shares that others hold
            chosen = dict(list(opened[owner].items())[first : first + 5])
            assert lagrange_at_0({x: pair[0] for x, pair in chosen.items()}) == seed
            assert lagrange_at_0({x: pair[1] for x, pair in chosen.items()}) == mask_key
        assert x25519(mask_key, BASE) == captured.entries[owner][146:178]
        assert x25519(share_key, BASE) == captured.entries[owner][178:210]


def test_the_product_opens_the_same_shares_and_masks_with_the_same_keys(captured: Captured) -> None:
    drawn = STORED["secrets (seed, mask key, share key)"]
    secrets = {int(i): [bytes.fromhex(secret) for secret in three] for i, three in drawn.items()}
    opened = captured.opened_shares({i: three[2] for i, three in secrets.items()})
    for holder, (_, mask_key, share_key) in secrets.items():
        here = Place(captured.id, captured.root, holder)
        for owner in set(secrets) - {holder}:
            entry = captured.entries[owner]
            position = holder - (holder > owner)  # the owner has no share of its own among them
            sealed = captured.messages[3][owner][18 + 32 + 88 * position :][:88]
            shares = here.open(KeyPair(share_key).agree(entry[178:210]), owner, sealed)
            assert np.frombuffer(shares, "<u2").tolist() == [v for pair in opened[owner][holder + 1] for v in pair]
            agreed = x25519(mask_key, entry[146:178])
            assert KeyPair(mask_key).agree(entry[146:178]) == agreed
            assert here.pair_mask_key(agreed, owner) == captured.pair_key(agreed, holder, owner)


def test_the_second_implementation_is_right_about_x25519_and_hkdf() -> None:
    # RFC 7748, section 5.2, first vector; RFC 5869, appendix A.1, first 32 bytes
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


def test_a_changed_vector_is_seen_by_the_second_implementation(captured: Captured) -> None:
    changed = dict(captured.messages[4])
    changed[0] = changed[0][:-2] + bytes([changed[0][-2] ^ 1]) + changed[0][-1:]
    other = Captured(captured.session, captured.messages | {4: changed}, captured.replies)
    assert other.total() != STORED["sum"]
