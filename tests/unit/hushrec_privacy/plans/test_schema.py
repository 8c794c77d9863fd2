"""The schema: what the vector consists of, read strictly, and a plan that fits it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hushrec_privacy import canonical
from hushrec_privacy.accounting.claims import CURIOUS_TRUST, ROUNDS_TRUST
from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.plans.plan import MAX_PARAMETERS, Plan
from hushrec_privacy.plans.schema import GAIN, DirectPayload, Segment, Vector

from tests.fleet_plans import COUNTS, FEATURES, a_fleet_plan

ROW: dict[str, Any] = {
    "name": "trending",
    "length": 40,
    "clip": "3",
    "purpose": "which items were looked at",
    "days": 7,
}
DIRECT: dict[str, Any] = FEATURES.direct[0].to_dict()


def test_bytes_and_back_are_the_same_plan_for_every_purpose() -> None:
    for plan in (a_fleet_plan(), a_fleet_plan(vector=COUNTS), a_fleet_plan(vector=FEATURES)):
        assert Plan.decode(plan.encode()) == plan
        assert plan.check_epsilon().epsilon > 0
    assert [segment.name for segment in a_fleet_plan().schema] == ["update"]
    assert a_fleet_plan(vector=COUNTS).parameters == 44


def test_counts_are_read_round_by_round_so_their_noise_is_independent() -> None:
    assert a_fleet_plan(vector=COUNTS).bands == 1
    assert a_fleet_plan().bands == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Trending"}, "lower-case"),
        ({"name": "trending "}, "lower-case"),
        ({"name": ""}, "lower-case"),
        ({"name": "-a"}, "lower-case"),
        ({"name": "a" * 41}, "at most 40"),
        ({"length": 0}, "length is 0"),
        ({"length": True}, "wrong type"),
        ({"length": 2**40}, "at most"),
        ({"clip": 3}, "wrong type"),
        ({"clip": "0"}, "above 0"),
        ({"clip": "1e3"}, "decimal string"),
        ({"clip": "1" + "0" * 31}, "1e-30 to 1e30"),
        ({"purpose": ""}, "sentence"),
        ({"purpose": "a\nb"}, "printable"),
        ({"purpose": "a\u202eb"}, "printable"),
        ({"purpose": "a" * 161}, "160"),
        ({"days": -1}, "days is -1"),
        ({"days": 3661}, "at most 3660"),
        ({"more": 1}, "exactly these fields"),
    ],
)
def test_a_segment_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    assert Segment.from_dict(ROW) == COUNTS.schema[0].from_dict(ROW)
    with pytest.raises(ConfigError, match=message):
        Segment.from_dict({**ROW, **changes})
    document = {"purpose": "counts", "schema": [{**ROW, **changes}]}
    with pytest.raises(ConfigError, match=message):
        Vector.from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": "0"}, "above 0"),
        ({"delta": "0"}, "above 0"),
        ({"delta": "1"}, "below 1"),
        ({"releases": 0}, "releases is 0"),
        ({"releases": 10_001}, "at most 10000"),
        ({"keep_days": 0}, "keep_days is 0"),
        ({"keep_days": 3661}, "at most 3660"),
        ({"clip": "-1"}, "decimal string"),
    ],
)
def test_a_direct_payload_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    assert DirectPayload.from_dict(DIRECT) == FEATURES.direct[0]
    with pytest.raises(ConfigError, match=message):
        DirectPayload.from_dict({**DIRECT, **changes})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "no JSON"),
        ("[]", "must be an object"),
        ('{"purpose": "counts"}', "must be an object"),
        ('{"purpose": 1, "schema": []}', "a word"),
        ('{"purpose": "counts", "schema": {}}', "lists"),
        ('{"purpose": "counts", "schema": []}', "1 to 16 segments"),
        ('{"purpose": "counts", "schema": [1]}', "exactly these fields"),
        ('{"purpose": "count", "schema": []}', "did you mean 'counts'"),
        ('{"purpose": "update", "schema": []}', "counts, features"),
    ],
)
def test_a_schema_file_that_says_something_else_is_refused(document: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Vector.from_json(document.encode())


def test_rows_that_do_not_fit_each_other_are_refused() -> None:
    one = COUNTS.schema[0]
    with pytest.raises(ConfigError, match="one name"):
        Vector("counts", (one, one))
    with pytest.raises(ConfigError, match="one name"):
        Vector("features", (one,), (replace(FEATURES.direct[0], name="trending"),))
    with pytest.raises(ConfigError, match="only a plan for features"):
        Vector("counts", (one,), FEATURES.direct)
    with pytest.raises(ConfigError, match="named 'update'"):
        Vector("counts", (replace(one, name="update"),))
    with pytest.raises(ConfigError, match="16 segments"):
        Vector("counts", tuple(replace(one, name=f"c{n}") for n in range(17)))


EVALUATED = Segment("evaluation", 3, "1.5", "how well the model does on this device's latest events")
COMPARED = Segment("gain", 2, "0.5", "whether a new model would do better on them")


@pytest.mark.parametrize(
    ("purpose", "schema", "message"),
    [
        ("counts", (COMPARED,), "needs a plan for counts that has the segment 'evaluation'"),
        ("counts", (COUNTS.schema[0], COMPARED), "needs a plan for counts that has the segment 'evaluation'"),
        ("features", (EVALUATED, COMPARED), "needs a plan for counts"),
        ("counts", (EVALUATED, replace(COMPARED, length=3)), "2 numbers"),
        ("counts", (EVALUATED, replace(COMPARED, length=1)), "2 numbers"),
    ],
)
def test_a_gain_stands_beside_the_evaluation_that_gives_its_scale(
    purpose: str, schema: tuple[Segment, ...], message: str
) -> None:
    assert Vector("counts", (EVALUATED, COMPARED)).schema[1].name == GAIN
    with pytest.raises(ConfigError, match=message):
        Vector(purpose, schema)


def test_no_direct_payload_is_named_gain() -> None:
    with pytest.raises(ConfigError, match="'gain' needs a plan for counts"):
        Vector("features", (EVALUATED,), (replace(FEATURES.direct[0], name=GAIN),))


def test_only_a_plan_with_a_gain_compares() -> None:
    assert a_fleet_plan(vector=Vector("counts", (EVALUATED, COMPARED))).compares
    for other in (None, Vector("counts", (EVALUATED,)), COUNTS, FEATURES):
        assert not a_fleet_plan(vector=other).compares


UPDATE_PLAN, COUNTS_PLAN = a_fleet_plan(), a_fleet_plan(vector=COUNTS)


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        (UPDATE_PLAN, {"purpose": "counts"}, "named 'update'"),
        (UPDATE_PLAN, {"purpose": "updates"}, "did you mean 'update'"),
        (UPDATE_PLAN, {"schema": []}, "1 to 16"),
        (UPDATE_PLAN, {"schema": {}}, "wrong type"),
        (UPDATE_PLAN, {"schema": [{**UPDATE_PLAN.schema[0].to_dict(), "clip": "0.2"}]}, "clip is clip_norm"),
        (UPDATE_PLAN, {"schema": [{**UPDATE_PLAN.schema[0].to_dict(), "length": 2047}]}, "2047 numbers"),
        (UPDATE_PLAN, {"schema": [*UPDATE_PLAN.to_dict()["schema"], ROW]}, "one segment"),
        (UPDATE_PLAN, {"direct": [DIRECT]}, "only a plan for features"),
        (UPDATE_PLAN, {"parts": "none"}, "parts is 'none'"),
        (UPDATE_PLAN, {"local_steps": 0}, "local_steps is 0"),
        (UPDATE_PLAN, {"local_steps": 10_001}, "at most 10000"),
        (UPDATE_PLAN, {"local_rate": "0"}, "above 0"),
        (UPDATE_PLAN, {"local_rate": 1}, "wrong type"),
        (UPDATE_PLAN, {"candidates": 0}, "candidates is 0"),
        (UPDATE_PLAN, {"secagg": "none"}, "active, curious"),
        (UPDATE_PLAN, {"authority": "AB" * 32}, "authority"),
        (UPDATE_PLAN, {"authority": "ab"}, "authority"),
        (UPDATE_PLAN, {"lattice_bits": 40, "ring_bits": 32}, "62 is the most"),
        (COUNTS_PLAN, {"purpose": "update"}, "one segment"),
        (COUNTS_PLAN, {"bands": 2}, "it must be 1"),
        (COUNTS_PLAN, {"parts": "adapter"}, "parts must be 'none'"),
        (COUNTS_PLAN, {"local_steps": 1}, "only a plan for updates trains"),
        (COUNTS_PLAN, {"local_rate": "0.1"}, "only a plan for updates trains"),
    ],
)
def test_a_plan_whose_schema_does_not_fit_is_refused(made: Plan, changes: dict[str, Any], message: str) -> None:
    document = json.loads(made.encode()) | changes
    with pytest.raises(PlanError, match=message):
        Plan.decode(canonical.encode(document))


def test_a_vector_too_large_for_a_round_is_refused_when_the_plan_is_made() -> None:
    assert a_fleet_plan(parameters=MAX_PARAMETERS, parts="full").coordinates == 2**19
    with pytest.raises(ConfigError, match="more than a round can carry"):
        a_fleet_plan(parameters=MAX_PARAMETERS + 1, parts="full")
    with pytest.raises(ConfigError, match="more than a round can carry"):
        a_fleet_plan(vector=Vector("counts", (replace(COUNTS.schema[0], length=MAX_PARAMETERS + 1),)))


def test_a_plan_says_which_server_its_guarantee_withstands() -> None:
    assert a_fleet_plan().guarantee().trust == ROUNDS_TRUST
    assert a_fleet_plan(secagg="curious").guarantee().trust == CURIOUS_TRUST
    with pytest.raises(ConfigError, match="active, curious"):
        a_fleet_plan(secagg="none")


def test_a_request_with_a_wrong_authority_is_refused() -> None:
    with pytest.raises(ConfigError, match="authority"):
        a_fleet_plan(authority="AB" * 32)
