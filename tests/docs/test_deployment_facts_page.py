"""docs/deployment-facts.md claims no field that the card, its page, or the report does not have."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec.bundle import Bundle
from hushrec.deployment_facts import _SECTIONS, SHOP_FACTS, deployment_facts, facts_page, read_shop_facts
from hushrec_privacy.accounting import poisson_guarantee
from hushrec_privacy.ledger import Ledger, MemoryLedgerStore
from hushrec_privacy.ledger.openings import run_id, training_opening
from hushrec_privacy.report.spending import spending_report

from tests.tiny_bundle import tiny_bundle

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deployment-facts.md").read_text(encoding="utf-8")
SHOP = re.findall(r"^```json shop\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
ELSEWHERE = {"assumptions", "slack", "origins"}  # lists of their own on the page, or for programs


def rows(section: str) -> dict[str, str]:
    """Each field of a table, and where the page says it is."""
    part = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", part, re.MULTILINE)[2:])  # below the head


CARD = {**rows("A registry of deployments"), **rows("The privacy label")}
KEYS = sorted({key for where in CARD.values() for key in re.findall(r"`([a-z_]+)`", where.partition("not on")[0])})


@pytest.fixture(params=["private", "dp(run)", "public"])
def facts(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    manifest = Bundle.open(tiny_bundle(tmp_path)).manifest
    files = {name: msgspec.structs.replace(info, origin=request.param) for name, info in manifest.files.items()}
    privacy = {**poisson_guarantee(1.0, 4, 2.0, 1e-6).to_dict(), "run": "ab" * 32, "ledger_head": "3:" + "0c" * 32}
    card = {**manifest.card, "made_by": "hushrec", **({"privacy": privacy} if request.param == "dp(run)" else {})}
    return deployment_facts(msgspec.structs.replace(manifest, files=files, card=card), read_shop_facts(SHOP.encode()))


def test_the_tables_are_read() -> None:
    assert len(rows("A registry of deployments")) > 25
    assert len(rows("NIST SP 800-226")) > 10
    assert {"epsilon", "delta", "unit", "actors", "justification"} <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_field_that_is_claimed_is_on_the_card_and_its_page(key: str, facts: dict[str, Any]) -> None:
    assert key in facts
    titles = {name: title for section in _SECTIONS.values() for name, title in section.items()}
    assert key in titles or key in ELSEWHERE
    value = facts[key]
    if key in titles:
        assert f"| {titles[key]} | " in facts_page(facts)
        without_a_run = key in ("run", "ledger_head") and facts["variant"] == "none"
        assert value is not None or without_a_run


def test_what_is_not_claimed_says_why() -> None:
    for where in CARD.values():
        assert "`" in where or where.startswith("not on the card: ") or "as above" in where


def test_every_row_of_the_card_is_in_the_tables() -> None:
    shown = {name for section in _SECTIONS.values() for name in section} - {"headline"}
    assert shown <= set(KEYS)
    assert set(SHOP_FACTS) <= shown


def test_every_field_of_the_report_is_there_and_named_here() -> None:
    store = MemoryLedgerStore()
    opened = training_opening(run_id(kind="training"), sampling_rate=1.0, noise_multiplier=2.0, steps=4, delta=1e-6)
    ledger = Ledger.begin(store)
    ledger.open_plan(opened)
    ledger.spend(opened.plan, 1)
    named = {key for where in rows("NIST SP 800-226").values() for key in re.findall(r"`([a-z ]+)`", where)}
    named.discard("hushrec privacy audit")
    assert named == set(spending_report(store).nist_fields())
