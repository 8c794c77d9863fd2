"""The facts of a bundle: what holds comes from its parts, and what the shop tells changes nothing of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec.bundle import Bundle
from hushrec.deployment_facts import SHOP_FACTS, deployment_facts, facts_page, read_shop_facts
from hushrec.manifest import NO_GUARANTEE, Manifest
from hushrec_privacy.accounting import poisson_guarantee
from hushrec_privacy.errors import ConfigError

from tests.tiny_bundle import tiny_bundle

GUARANTEE = poisson_guarantee(1.0, 4, 2.0, 1e-6)
PRIVACY = {**GUARANTEE.to_dict(), "run": "ab" * 32, "steps": 4, "ledger_head": "3:" + "0c" * 32}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a bundle with private parts."""
    return Bundle.open(tiny_bundle(tmp_path)).manifest


def with_origin(manifest: Manifest, origin: str, **card: Any) -> Manifest:
    """The same, but every part comes from there."""
    files = {name: msgspec.structs.replace(info, origin=origin) for name, info in manifest.files.items()}
    return msgspec.structs.replace(manifest, files=files, card={**manifest.card, **card})


def test_a_private_part_leaves_no_guarantee_whatever_the_card_says(manifest: Manifest) -> None:
    boast = msgspec.structs.replace(manifest, card={"headline": "epsilon 1", "privacy": PRIVACY})
    facts = deployment_facts(boast)
    assert (facts["headline"], facts["epsilon"], facts["variant"]) == (NO_GUARANTEE, "inf", "none")
    assert facts["private_parts"] == ["encoder.bin", "items.bin", "neighbours.bin", "params.bin"]
    assert facts["run"] is None
    assert "everything that the log says" in facts_page(facts)


def test_the_guarantee_of_one_run_is_none_for_the_parts_of_two(manifest: Manifest) -> None:
    stated = with_origin(manifest, "dp(run-1)", headline="epsilon 5", privacy=PRIVACY)
    other = msgspec.structs.replace(stated.files["encoder.bin"], origin="dp(run-2)")
    facts = deployment_facts(msgspec.structs.replace(stated, files={**stated.files, "encoder.bin": other}))
    assert (facts["headline"], facts["epsilon"], facts["run"]) == (NO_GUARANTEE, "inf", None)


def test_a_weak_guarantee_is_called_so(manifest: Manifest) -> None:
    for epsilon, weak in ((10.0, False), (10.5, True)):
        stated = with_origin(manifest, "dp(run-1)", headline="epsilon E", privacy={**PRIVACY, "epsilon": epsilon})
        assert ("promises next to nothing" in deployment_facts(stated)["headline"]) is weak


def test_a_guarantee_is_told_whole(manifest: Manifest) -> None:
    stated = with_origin(manifest, "dp(run-1)", headline="epsilon 5", privacy=PRIVACY, made_by="hushrec 1")
    facts = deployment_facts(stated)
    for name in ("epsilon", "delta", "unit", "adjacency", "mechanism", "trust", "assumptions", "run", "ledger_head"):
        assert facts[name] == PRIVACY[name]
    page = facts_page(facts)
    assert page.startswith("# Privacy of this model: epsilon 5\n")
    for text in (GUARANTEE.mechanism, GUARANTEE.trust, *GUARANTEE.assumptions, PRIVACY["ledger_head"], "hushrec 1"):
        assert str(text) in page
    printed = page.split("| Epsilon | ")[1].split(" ")[0]
    assert float(printed) >= GUARANTEE.epsilon


def test_a_guarantee_says_nothing_beside_itself(manifest: Manifest) -> None:
    more = {**PRIVACY, "headline": "safe", "private_parts": [], "origins": {}, "utility": "perfect"}
    facts = deployment_facts(with_origin(manifest, "dp(run-1)", headline="epsilon 5", privacy=more))
    assert facts["headline"] == "epsilon 5"
    assert facts["origins"]
    assert facts["utility"] != "perfect"
    part = deployment_facts(with_origin(manifest, "dp(run-1)", privacy={"unit": "one user"}))
    assert part["epsilon"] == "inf"


def test_without_a_statement_a_noised_bundle_has_no_guarantee(manifest: Manifest) -> None:
    assert deployment_facts(with_origin(manifest, "dp(run-1)"))["epsilon"] == "inf"


def test_a_bundle_without_the_log_costs_nobody_anything(manifest: Manifest) -> None:
    facts = deployment_facts(with_origin(manifest, "public", headline="public data only"))
    assert (facts["epsilon"], facts["delta"]) == (0.0, 0.0)
    assert facts["mechanism"] == "no part comes from the log"
    assert "nobody has to be" in facts["trust"]


def test_what_the_shop_tells_stands_on_the_page_and_changes_nothing_that_holds(manifest: Manifest) -> None:
    told = read_shop_facts(b'{"name": "Mugs | more", "data_curators": "The Mug Shop\\nLtd", "published": "2026-01-01"}')
    facts, without = deployment_facts(manifest, told), deployment_facts(manifest)
    assert {name for name in facts if facts[name] != without[name]} == set(told)
    page = facts_page(facts)
    assert "| Name | Mugs \\| more |" in page
    assert "| The Mug Shop Ltd |" in page
    assert "| Region | not stated |" in page
    assert without["name"] is None


def test_each_of_the_shop_s_facts_has_a_row(manifest: Manifest) -> None:
    told = {name: f"our {name}" for name in SHOP_FACTS}
    page = facts_page(deployment_facts(manifest, told))
    assert all(f"| our {name} |" in page for name in SHOP_FACTS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not json", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"nmae": "x"}', "did you mean 'name'"),
        (b'{"epsilon": "0.1"}', "must be one of name"),
        (b'{"headline": "safe"}', "must be one of name"),
        (b'{"name": 3}', "must be a text"),
        (b'{"name": ""}', "must be a text"),
        (b'{"name": "' + b"x" * 2001 + b'"}', "must be a text"),
    ],
)
def test_what_is_no_fact_of_the_shop_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_shop_facts(data)
