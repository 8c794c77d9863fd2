"""The page of the plan's format: its example is a plan, and no field is missing."""

import re
from dataclasses import fields
from pathlib import Path

from hushrec_privacy.plans.plan import MAX_PLAN_BYTES, PARTS, SECAGG, Plan
from hushrec_privacy.plans.schema import PURPOSES, DirectPayload, Segment

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")


def test_the_example_is_a_plan_with_the_id_that_the_page_tells() -> None:
    found = re.search(r"^```json plan\n(.*)\n```", PAGE, re.MULTILINE)
    assert found
    plan = Plan.decode(found[1].encode())
    plan.check_epsilon()
    assert f"Its id is `{plan.plan_id}`" in PAGE


def test_every_field_and_word_of_the_format_is_on_the_page() -> None:
    for kind in (Plan, Segment, DirectPayload):
        assert [field.name for field in fields(kind) if f"`{field.name}`" not in PAGE] == []
    assert [word for word in (*PURPOSES, *PARTS, *SECAGG) if f"`{word}`" not in PAGE] == []
    assert f"at most {MAX_PLAN_BYTES:,} bytes" in PAGE
