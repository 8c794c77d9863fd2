"""The page of the plan's format: its example is a plan, and no field is missing."""

import math
import re
from dataclasses import fields
from pathlib import Path

from hushrec.federated_counts import is_counted
from hushrec_privacy.plans.plan import MAX_PLAN_BYTES, PARTS, SECAGG, Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, PURPOSES, TRENDING, DirectPayload, Segment, Vector

from tests.fleet_plans import a_fleet_plan

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")


def test_the_example_is_a_plan_with_the_id_that_the_page_tells() -> None:
    found = re.search(r"^```json plan\n(.*)\n```", PAGE, re.MULTILINE)
    assert found
    plan = Plan.decode(found[1].encode())
    plan.check_epsilon()
    assert f"Its id is `{plan.plan_id}`" in PAGE


def test_the_example_of_a_vector_makes_a_plan_that_compares() -> None:
    found = re.search(r"^```json vector\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    plan = a_fleet_plan(vector=Vector.from_json(found[1].encode()))
    assert plan.compares
    clips = {segment.name: float(segment.clip) for segment in plan.schema}
    assert clips[EVALUATION] >= math.sqrt(3), "it takes nothing from an evaluation, as the page says"


def test_what_hushrec_counts_by_itself_is_on_the_page() -> None:
    rows = PAGE.split("| counted by hushrec |")[1].split("\n\n")[0]
    assert [name for name in (TRENDING, EVALUATION, GAIN) if f"| `{name}`" not in rows] == []
    assert all(is_counted(name) for name in (TRENDING, EVALUATION, GAIN))


def test_every_field_and_word_of_the_format_is_on_the_page() -> None:
    for kind in (Plan, Segment, DirectPayload):
        assert [field.name for field in fields(kind) if f"`{field.name}`" not in PAGE] == []
    assert [word for word in (*PURPOSES, *PARTS, *SECAGG) if f"`{word}`" not in PAGE] == []
    assert f"at most {MAX_PLAN_BYTES:,} bytes" in PAGE
