"""The plan: one byte string, one guarantee, one signature, and a device that checks all three."""

import hashlib
import json
import math
import pickle
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec_privacy import canonical
from hushrec_privacy.accounting import banded_guarantee
from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.mechanisms.banded import NoisePlan
from hushrec_privacy.mechanisms.rounding import round_conditionally
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits, check_plan
from hushrec_privacy.plans.plan import MAX_PLAN_BYTES, Plan
from hushrec_privacy.plans.planner import Request, make_plan, reach
from hushrec_privacy.plans.ring import smallest_ring
from hushrec_privacy.plans.signing import PlanKey, verified_plan
from hushrec_privacy.randomness import OsRandom
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fleet_plans import AUTHORITY

REQUEST = Request(population=200_000, cohort=1000, rounds=2000, delta=1e-6, noise_multiplier=10.0, authority=AUTHORITY)


def plan(**changes: Any) -> Plan:
    found = make_plan(replace(REQUEST, **changes))
    assert found is not None
    return found


def test_bytes_and_back_are_the_same_plan() -> None:
    made = plan()
    assert Plan.decode(made.encode()) == made
    assert made.plan_id == hashlib.sha256(made.encode()).hexdigest()
    assert b"." not in made.encode().replace(made.epsilon.encode(), b"").replace(b'"0.1"', b"").replace(
        b'"0.000001"', b""
    )


@pytest.mark.parametrize(
    "changes", [{}, {"rounds": 50, "min_separation": 1}, {"epsilon": 4.0, "noise_multiplier": None}]
)
def test_a_plan_knows_how_loud_its_rounds_are(changes: dict[str, Any]) -> None:
    request = replace(REQUEST, **changes)
    made, found = plan(**changes), reach(request).noise_to_clip
    assert made.noise_to_clip == found
    alone = made.noise_multiplier * math.sqrt(made.coordinates) / made.cohort
    assert (found == alone) if made.bands == 1 else (alone < found < 1.3 * alone)


def test_however_long_a_plan_is_its_loudness_can_be_told() -> None:
    long = replace(plan(), rounds=10**6, bands=10**6, participations=1, min_separation=10**6)
    assert 0 < long.noise_to_clip < math.inf


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not canonical"),
        (b"[]", "no plan"),
        (b'{"kind":"other"}', "no plan"),
        (b'{"format":2,"kind":"hushrec-plan"}', "format 2"),
        (b'{"format":true,"kind":"hushrec-plan"}', "format True"),
        (b'{"format":1,"kind":"hushrec-plan"}', "fields are not those"),
        (b" " * (MAX_PLAN_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_plan_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.decode(data)


@pytest.mark.parametrize("cut", range(0, 500, 23))
def test_a_plan_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(PlanError):
        Plan.decode(plan().encode()[:cut])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rounds", 0, "rounds is 0"),
        ("rounds", True, "wrong type"),
        ("rounds", 10**9, "at most"),
        ("participations", 11, "10 fit"),
        ("bands", 2001, "above the 2000 rounds"),
        ("cohort", 5000, "can wrap around"),
        ("ring_bits", 15, "can wrap around"),
        ("min_cohort", 1001, "above the cohort"),
        ("coordinates", 2047, "next power of two"),
        ("rounded_norm_squared", 1, "below what rounding"),
        ("rounded_norm_squared", int(plan().rounded_norm_squared * (1 - 1e-6)), "below what rounding"),
        ("rotation_seed", "0" * 63, "64 hexadecimal"),
        ("parts", "adaptor", "did you mean 'adapter'"),
        ("delta", "1e-6", "decimal string"),
        ("delta", "1", "below 1"),
        ("clip_norm", "0", "above 0"),
        ("demo", 1, "wrong type"),
        ("lattice_bits", -1, "lattice_bits"),
    ],
)
def test_a_field_out_of_range_is_refused(field: str, value: object, message: str) -> None:
    document = json.loads(plan().encode()) | {field: value}
    with pytest.raises(PlanError, match=message):
        Plan.decode(canonical.encode(document))


def test_unknown_fields_are_refused() -> None:
    document = json.loads(plan().encode()) | {"more": 1}
    with pytest.raises(PlanError, match="more"):
        Plan.decode(canonical.encode(document))


def test_the_guarantee_contains_every_rounding() -> None:
    found = plan().guarantee()
    without = banded_guarantee(2000, 200, 200, 10, 10.0, 1e-6)
    assert without.epsilon < found.epsilon < without.epsilon * 1.02
    assert [name for name, _ in found.slack] == [
        "conditional rounding of updates",
        "rounding of correlated noise",
        "integer noise",
    ]
    rounding = 1 + dict(found.slack)["conditional rounding of updates"]
    finer = banded_guarantee(2000, 200, 200, 10, 10.0 / rounding, 1e-6)
    assert found.epsilon == pytest.approx(finer.epsilon, rel=2e-4), "the other two are next to nothing"


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("cohort", [100, 1000, 50_000])
def test_the_noise_of_an_epsilon_is_the_least_that_keeps_it(epsilon: float, cohort: int) -> None:
    made = plan(epsilon=epsilon, noise_multiplier=None, cohort=cohort, population=cohort * 40)
    assert made.guarantee().epsilon <= epsilon
    assert replace(made, noise_deviation=int(made.noise_deviation * 0.9999)).guarantee().epsilon > epsilon


@settings(max_examples=40)
@given(cohort=st.integers(1, 100_000), coordinates=st.integers(1, 2**20))
def test_no_sum_wraps_and_no_smaller_ring_would_do(cohort: int, coordinates: int) -> None:
    ring = smallest_ring(cohort, coordinates)
    assert cohort * ring.coordinate_limit < 2 ** (ring.bits - 1)
    assert ring.inflation <= 0.01
    assert ring.rounded_norm_squared >= ring.clip_steps**2


def test_a_thousand_devices_need_sixteen_bits() -> None:
    assert smallest_ring(1000, 2048).bits == smallest_ring(1000, 2**19).bits == 16
    with pytest.raises(ConfigError, match="smaller cohort"):
        smallest_ring(2**31, 16)


def test_rounded_updates_keep_the_plan_s_bound() -> None:
    made = plan()
    direction = np.random.default_rng(0).normal(size=made.coordinates)
    update = direction / np.linalg.norm(direction) * made.clip_steps
    rounded = round_conditionally(OsRandom(), update, clip_norm=float(made.clip_steps))
    assert int((rounded**2).sum()) <= made.rounded_norm_squared


@pytest.mark.parametrize("changes", [{}, {"parameters": 500_000}, {"rounds": 10, "min_separation": 1}])
def test_the_noise_of_every_plan_can_be_drawn(changes: dict[str, Any]) -> None:
    made = plan(**changes)
    NoisePlan(made.plan_id, made.coordinates, made.bands, made.rounds, made.noise_deviation)


@pytest.mark.parametrize("epsilon", ["1", "2.39", "2.3942", "9", "0"])
def test_another_epsilon_than_the_noise_gives_is_refused(epsilon: str) -> None:
    with pytest.raises(PlanError, match="states an epsilon"):
        replace(plan(), epsilon=epsilon).check_epsilon()


def test_noise_that_is_too_narrow_has_no_guarantee() -> None:
    with pytest.raises(PlanError, match="no guarantee"):
        replace(plan(), noise_deviation=2).check_epsilon()


def test_a_signature_holds_for_one_plan_and_one_key(tmp_path: Path) -> None:
    key, other = PlanKey.create(tmp_path / "plan.key"), PlanKey.create(tmp_path / "other.key")
    made = plan()
    signature = key.sign(made)
    assert verified_plan(made.encode(), signature, key.public()) == made
    assert PlanKey.read(tmp_path / "plan.key").sign(made) == signature
    wrong = [
        (plan(rounds=1999).encode(), signature, key.public()),
        (made.encode() + b" ", signature, key.public()),
        (made.encode(), signature[:-1], key.public()),
        (made.encode(), signature[:-1] + bytes([signature[-1] ^ 1]), key.public()),
        (made.encode(), signature, other.public()),
        (made.encode(), signature, b"short"),
        (b"", b"", b""),
    ]
    for data, signed, public in wrong:
        with pytest.raises(PlanError, match="signature"):
            verified_plan(data, signed, public)


def test_a_signature_over_bare_bytes_is_not_one_of_a_plan(tmp_path: Path) -> None:
    """Domain separation: what the key might sign elsewhere can never be passed off as a plan."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = PlanKey.create(tmp_path / "plan.key")
    bare = Ed25519PrivateKey.from_private_bytes((tmp_path / "plan.key").read_bytes()).sign(plan().encode())
    with pytest.raises(PlanError):
        verified_plan(plan().encode(), bare, key.public())


def test_a_plan_that_states_a_wrong_epsilon_is_not_signed(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="states an epsilon"):
        PlanKey.create(tmp_path / "plan.key").sign(replace(plan(), epsilon="1"))


def test_a_plan_without_an_authority_is_neither_signed_nor_joined(tmp_path: Path) -> None:
    for act in (PlanKey.create(tmp_path / "plan.key").sign, lambda made: check_plan(made, DeviceLimits())):
        act(plan())
        with pytest.raises(PlanError, match="no authority"):
            act(plan(authority=""))


def test_a_key_shows_and_copies_nothing_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan.key"
    key = PlanKey.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert repr(key) == "PlanKey()"
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(key)
    with pytest.raises(ConfigError, match="never overwritten"):
        PlanKey.create(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        PlanKey.read(path)
    with pytest.raises(ConfigError, match="32 bytes"):
        PlanKey(b"short")


def test_a_device_joins_what_its_limits_allow() -> None:
    made = plan()
    assert check_plan(made, DeviceLimits()).epsilon == made.guarantee().epsilon
    rho = made.mu() ** 2 / 2
    assert check_plan(made, DeviceLimits(lifetime_rho=rho * 1.01))
    with pytest.raises(PlanError, match="lifetime limit"):
        check_plan(made, DeviceLimits(lifetime_rho=rho * 0.99))
    with pytest.raises(PlanError, match="lifetime limit"):
        check_plan(made, DeviceLimits(lifetime_rho=rho * 1.5), spent_rho=rho)
    with pytest.raises(PlanError, match="allows 10 participations"):
        check_plan(made, DeviceLimits(participations=9))
    with pytest.raises(PlanError, match="rounds of 800 devices"):
        check_plan(made, DeviceLimits(cohort_floor=900))
    with pytest.raises(PlanError, match="states an epsilon"):
        check_plan(replace(made, epsilon="1"), DeviceLimits())
    for spent in (math.nan, -1.0):
        with pytest.raises(ConfigError):
            check_plan(made, DeviceLimits(), spent_rho=spent)


def test_a_demonstration_is_refused_and_its_limits_join_nothing_real() -> None:
    demo = plan(cohort=10, population=2000)
    assert demo.demo
    with pytest.raises(PlanError, match="DEMO"):
        check_plan(demo, DeviceLimits())
    limits = UnsafeDemoLimits(lifetime_rho=10.0)
    assert check_plan(demo, limits).epsilon > 0
    with pytest.raises(PlanError, match="demonstration limits"):
        check_plan(plan(), limits)
    with pytest.raises(ConfigError, match="at least 100"):
        DeviceLimits(cohort_floor=99)


def test_a_hidden_demonstration_is_refused_by_its_cohort() -> None:
    small = replace(plan(), cohort=50, min_cohort=40)
    with pytest.raises(PlanError, match="rounds of 40 devices"):
        check_plan(small, DeviceLimits())


def test_what_a_request_comes_to() -> None:
    found = reach(REQUEST)
    assert (found.min_separation, found.participations, found.ring_bits) == (200, 10, 16)
    assert found.sensitivity_squared == pytest.approx(27.5238497, rel=1e-8)
    assert found.false_epsilon < found.guarantee.epsilon / 10, "what amplification would have promised"
    assert found.prefix_rmse[0] < found.prefix_rmse[1] / 5
    assert found.to_dict()["epsilon"] == found.guarantee.epsilon


def test_without_noise_or_delta_there_is_no_plan_and_no_guarantee() -> None:
    for changes in ({"noise_multiplier": 0.0}, {"delta": 0.0}):
        found = reach(replace(REQUEST, **changes))  # type: ignore[arg-type]
        assert found.plan is None
        assert found.to_dict()["epsilon"] == "inf"
    with pytest.raises(ConfigError, match="no finite noise"):
        reach(replace(REQUEST, delta=0.0, epsilon=1.0, noise_multiplier=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 1.0}, "either"),
        ({"noise_multiplier": None}, "either"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"epsilon": math.nan, "noise_multiplier": None}, "epsilon"),
        ({"delta": math.nan}, "delta"),
        ({"delta": -1e-9}, "delta"),
        ({"cohort": 300_000}, "above the population"),
        ({"min_separation": 201}, "fill only 200 rounds"),
        ({"rounds": 0}, "rounds is 0"),
        ({"population": -5}, "population is -5"),
        ({"noise_multiplier": 1e9}, "cannot be drawn"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reach(replace(REQUEST, **changes))
