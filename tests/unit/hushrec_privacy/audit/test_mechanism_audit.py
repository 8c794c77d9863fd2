"""The auditor passes the product's code and catches faults planted in it, with fresh randomness.

A planted fault patches the product's code; the auditor and what it is told stay the same.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec_privacy.audit import mechanism as mechanism_module
from hushrec_privacy.audit.draws import noise_reuse, noise_scale, noise_shape
from hushrec_privacy.audit.findings import MechanismAudit
from hushrec_privacy.audit.mechanism import AuditedMechanism, MechanismClaim, audit_mechanism
from hushrec_privacy.audit.rounds import AuditedRounds
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms import banded, clipping, rounding
from hushrec_privacy.mechanisms.banded import NoisePlan
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from scipy import stats

from tests.fixed_random import FixedRandom

ID, DRAWS, SIGMA, CLIP = "0d" * 32, 100_000, 1000, 2.0
CLAIM = MechanismClaim(
    sigma=SIGMA,
    rounds=6,
    bands=3,
    participations=2,
    separation=3,
    clip_norm=CLIP,
    norm_bound=rounding.rounded_norm_bound(256 * CLIP * (1 + 1e-6), 1000),
    batches=400,
    population=5000,
    sampling_rate=0.1,
)
Source = Callable[[], OsRandom]


class Record:
    """A participant's record of rounds, a line each; stands in for the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def admit(self, number: int) -> bool:
        """Twice at most, three rounds apart."""
        taken = [int(line) for line in self._path.read_text().split()] if self._path.exists() else []
        if len(taken) >= CLAIM.participations or (taken and number - taken[-1] < CLAIM.separation):
            return False
        with self._path.open("a") as file:
            file.write(f"{number}\n")
        return True


class Shop(AuditedRounds):
    """The product's rounds, a participant's record, and Poisson sampling."""

    def __init__(self, folder: Path, source: Source = OsRandom) -> None:
        self._record_path = folder / "record"
        plan = NoisePlan(ID, DRAWS, CLAIM.bands, CLAIM.rounds, SIGMA)
        super().__init__(folder, plan, clip_norm=CLIP, scale=256.0, source=source)

    def restart(self) -> None:
        """Nothing but the folder stays."""
        super().restart()
        self._record = Record(self._record_path)

    def admit(self, number: int) -> bool:
        """Ask the record."""
        return self._record.admit(number)

    def batch_size(self) -> int:
        """Everyone tosses a coin."""
        return int((self._random.uniform(CLAIM.population) < CLAIM.sampling_rate).sum())


_folders = itertools.count()


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., MechanismAudit]:
    """One audit of a new shop."""

    def run(source: Source = OsRandom) -> MechanismAudit:
        folder = tmp_path / str(next(_folders))
        folder.mkdir()
        shop = Shop(folder, source)
        return audit_mechanism(shop.mechanism(admit=shop.admit, batch_size=shop.batch_size), CLAIM)

    return run


def _sources(seed: int) -> Source:
    numbers = itertools.count()
    return lambda: FixedRandom(1000 * seed + next(numbers))


def test_a_sound_mechanism_passes_and_says_what_was_found(audit: Callable[..., MechanismAudit]) -> None:
    result = audit(_sources(1))
    names = ["noise-scale", "noise-shape", "noise-reuse", "sampling", "clipping", "participation"]
    assert [finding.name for finding in result.findings] == names
    assert result.passed, result.to_dict()
    scale, _, _, sampling, clipped, taken = result.findings
    assert scale.interval[0] < scale.estimate < scale.interval[1]
    assert scale.interval[0] > 0.99 * SIGMA
    assert scale.interval[1] < 1.01 * SIGMA
    assert sampling.claimed == pytest.approx(450)
    assert 0.99 * 512 < clipped.estimate <= clipped.claimed
    assert (taken.claimed, taken.estimate) == (2, 2)


def test_the_result_is_json_and_holds_no_draws(audit: Callable[..., MechanismAudit]) -> None:
    told = json.loads(json.dumps(audit(_sources(2)).to_dict()))
    assert set(told) == {"passed", "level", "draws", "findings"}
    assert told["draws"] == DRAWS
    assert len(json.dumps(told)) < 2000


@pytest.mark.slow
def test_sound_runs_raise_false_alarms_as_often_as_the_level_says(audit: Callable[..., MechanismAudit]) -> None:
    results = [audit(_sources(100 + run)) for run in range(200)]
    alarms = sum(not result.passed for result in results)
    print(f"{alarms} false alarms in 200 sound runs")
    assert stats.binomtest(alarms, 200, 0.05).pvalue > 0.01  # the keys are fixed: it passes always or never
    for kind in range(4):
        p_values = [result.findings[kind].p_value for result in results]
        assert stats.kstest(p_values, "uniform").pvalue > 1e-3


# ------------------------------------------------------------------------------------------------------ planted faults


def _noise_halved(patch: pytest.MonkeyPatch) -> None:
    def half(source: OsRandom, count: int, p: int, q: int = 1) -> NDArray[np.int64]:
        return sample_discrete_gaussian(source, count, p, 2 * q)

    patch.setattr(banded, "sample_discrete_gaussian", half)


def _noise_two_per_cent_short(patch: pytest.MonkeyPatch) -> None:
    def short(source: OsRandom, count: int, p: int, q: int = 1) -> NDArray[np.int64]:
        return sample_discrete_gaussian(source, count, 98 * p, 100 * q)

    patch.setattr(banded, "sample_discrete_gaussian", short)


def _noise_of_another_shape(patch: pytest.MonkeyPatch) -> None:
    def uniform(source: OsRandom, count: int, p: int, q: int = 1) -> NDArray[np.int64]:
        width = int(p / q * 12**0.5)  # the same deviation
        return source.below(width, count) - width // 2

    patch.setattr(banded, "sample_discrete_gaussian", uniform)


def _clipping_skipped(patch: pytest.MonkeyPatch) -> None:
    def whole(source: OsRandom, vector: NDArray[np.float64], **_: float) -> NDArray[np.int64]:
        del source
        return np.rint(np.clip(vector, -(2.0**40), 2.0**40)).astype(np.int64)

    patch.setattr(clipping, "clip_update", lambda update, **_: update)
    patch.setattr(rounding, "round_conditionally", whole)  # it alone would refuse the update


def _participation_uncounted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "admit", lambda *_: True)


def _participation_forgotten_by_a_restart(patch: pytest.MonkeyPatch) -> None:
    kept, start = Record.admit, Record.__init__

    def forget(record: Record, path: Path) -> None:
        path.unlink(missing_ok=True)
        start(record, path)

    patch.setattr(Record, "__init__", forget)
    assert Record.admit is kept


def _noise_reused_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    key = OsRandom().words(4).tobytes()  # fresh, but the same after each start
    patch.setattr("hushrec_privacy.randomness.os.urandom", lambda count: key[:count])


def _batches_fixed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shop, "batch_size", lambda _: int(CLAIM.population * CLAIM.sampling_rate))


FAULTS: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    _noise_halved: "noise-scale",
    _noise_two_per_cent_short: "noise-scale",
    _noise_of_another_shape: "noise-shape",
    _clipping_skipped: "clipping",
    _participation_uncounted: "participation",
    _participation_forgotten_by_a_restart: "participation",
    _noise_reused_after_a_restart: "noise-reuse",
    _batches_fixed: "sampling",
}
FAULT_CASES = pytest.mark.parametrize(
    ("plant", "name"), FAULTS.items(), ids=lambda case: getattr(case, "__name__", case)
)


def _caught(audit: Callable[..., MechanismAudit], name: str) -> bool:
    result = audit()
    (finding,) = (finding for finding in result.findings if finding.name == name)
    return not result.passed and not finding.passed


@FAULT_CASES
def test_a_planted_fault_is_caught_by_the_test_made_for_it(
    audit: Callable[..., MechanismAudit],
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
) -> None:
    plant(monkeypatch)
    assert _caught(audit, name)


@pytest.mark.slow
@FAULT_CASES
def test_a_planted_fault_is_caught_in_twenty_of_twenty_runs(
    audit: Callable[..., MechanismAudit],
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
) -> None:
    plant(monkeypatch)
    caught = sum(_caught(audit, name) for _ in range(20))
    print(f"{plant.__name__}: caught in {caught} of 20")
    assert caught == 20


# -------------------------------------------------------------------------------------------------- the auditor itself


def _normal(rng: np.random.Generator, deviation: float) -> Callable[[int], NDArray[np.float64]]:
    return lambda _: rng.normal(0, deviation, DRAWS)


def test_too_much_noise_and_one_per_cent_too_little_are_not_as_claimed() -> None:
    rng = np.random.default_rng(1)
    for deviation in (0.99, 1.01, 2 / 3, 3 / 2):
        assert not audit_mechanism(AuditedMechanism(_normal(rng, deviation)), MechanismClaim(sigma=1.0)).passed
    assert audit_mechanism(AuditedMechanism(_normal(rng, 1.0)), MechanismClaim(sigma=1.0)).passed


def test_independent_noise_does_not_pass_as_correlated_nor_the_reverse() -> None:
    rng = np.random.default_rng(2)
    claim = MechanismClaim(sigma=1.0, rounds=4, bands=2, participations=2, separation=2)
    assert not audit_mechanism(AuditedMechanism(_normal(rng, 1.0)), claim).passed


def test_no_noise_at_all_is_caught() -> None:
    result = audit_mechanism(AuditedMechanism(lambda _: np.zeros(DRAWS)), MechanismClaim(sigma=1.0, rounds=2))
    assert [finding.passed for finding in result.findings] == [False, False, False]


def test_a_contribution_that_is_refused_adds_nothing() -> None:
    def refused(_: NDArray[np.float32]) -> NDArray[np.float64]:
        raise ConfigError("no")

    mechanism = AuditedMechanism(_normal(np.random.default_rng(3), 1.0), contribute=refused)
    finding = audit_mechanism(mechanism, MechanismClaim(sigma=1.0, clip_norm=1.0)).findings[-1]
    assert (finding.name, finding.passed, finding.estimate) == ("clipping", True, 0.0)


def test_a_contribution_that_is_not_finite_is_caught() -> None:
    mechanism = AuditedMechanism(_normal(np.random.default_rng(4), 1.0), contribute=lambda u: u * np.nan)
    assert not audit_mechanism(mechanism, MechanismClaim(sigma=1.0, clip_norm=1.0)).findings[-1].passed


def test_participations_too_near_to_each_other_are_caught() -> None:
    claim = MechanismClaim(sigma=1.0, rounds=6, participations=2, separation=3)
    mechanism = AuditedMechanism(_normal(np.random.default_rng(5), 1.0), admit=lambda number: number in (1, 3))
    assert not audit_mechanism(mechanism, claim).findings[-1].passed


@pytest.mark.parametrize("rows", [[np.zeros(99_999)], [np.zeros((1, DRAWS))], [np.zeros(DRAWS), np.zeros(DRAWS + 1)]])
def test_too_few_or_uneven_draws_are_refused(rows: list[NDArray[np.float64]]) -> None:
    drawn: Iterator[NDArray[np.float64]] = iter(rows)
    with pytest.raises(ConfigError, match="draw must return"):
        audit_mechanism(AuditedMechanism(lambda _: next(drawn)), MechanismClaim(sigma=1.0, rounds=len(rows)))


def test_sampling_without_a_claim_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        audit_mechanism(AuditedMechanism(lambda _: np.zeros(DRAWS), batch_size=lambda: 1), MechanismClaim(sigma=1.0))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    with pytest.raises(ConfigError, match="level"):
        audit_mechanism(AuditedMechanism(lambda _: np.zeros(DRAWS)), MechanismClaim(sigma=1.0), level=level)


@pytest.mark.parametrize(
    "fields",
    [
        {"sigma": 0.0},
        {"rounds": 0},
        {"rounds": 6, "participations": 3, "separation": 3},
        {"rounds": 2, "bands": 3},
        {"batches": 1, "population": 5000, "sampling_rate": 0.1},
        {"batches": 10, "population": 20, "sampling_rate": 0.1},
        {"batches": 10, "population": 5000, "sampling_rate": float("nan")},
    ],
    ids=str,
)
def test_a_claim_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        MechanismClaim(**({"sigma": 1.0} | fields))


def test_each_p_value_of_sound_noise_is_uniform() -> None:
    rng, found = np.random.default_rng(6), []
    for _ in range(800):
        rows = rng.normal(0, 2.0, (3, 5000))
        findings = (noise_scale(rows[0], 2.0, 0.05), noise_shape(rows[0], 0.05), noise_reuse(rows, 0.05))
        found.append([finding.p_value for finding in findings])
    for p_values in zip(*found, strict=True):
        assert stats.kstest(p_values, "uniform").pvalue > 1e-6


def test_the_tests_share_the_level_so_that_together_they_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism_module, "MIN_DRAWS", 2000)
    rng, runs, claim = np.random.default_rng(7), 400, MechanismClaim(sigma=1.0, rounds=2)
    alone = MechanismClaim(sigma=1.0)
    for stated in (claim, alone):
        fair = AuditedMechanism(lambda _: rng.normal(0, 1, 2000))
        alarms = sum(not audit_mechanism(fair, stated, level=0.5).passed for _ in range(runs))
        assert stats.binomtest(alarms, runs, 0.5).pvalue > 1e-6
