"""The audit of a training run: canaries that show themselves, faults that they show, and as often as its power says.

Faults are planted by patching the product's code under an unchanged auditor; randomness is fresh.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec_model import private_optimizer, training_audit
from hushrec_model.poisson import PoissonSampler
from hushrec_model.private_pipeline import default_settings
from hushrec_model.private_training import build_public_model
from hushrec_model.training_audit import Canaries, TrainingAudit, audit_settings, audit_training, score_canaries
from hushrec_model.user_sequences import UserSequences
from hushrec_model.user_step import Candidates, UserGradients, UserStep
from hushrec_privacy.audit.power import detection_power
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from scipy import stats

from tests.planted import nothing_known

Patch = pytest.MonkeyPatch
DELTA = 1e-5


def noise_halved(patch: Patch) -> None:
    def half(random: OsRandom, count: int, scale: float) -> NDArray[np.float64]:
        return float_gaussian(random, count, scale / 2)

    patch.setattr(private_optimizer, "float_gaussian", half)


def clipping_skipped(patch: Patch) -> None:
    patch.setattr(UserGradients, "norms", lambda self: torch.zeros(len(self.own), dtype=torch.float64))


def everybody_in(patch: Patch) -> None:
    patch.setattr(PoissonSampler, "draw", lambda self: np.arange(self._population))


def audit(epsilon: float, canaries: int, sampling_rate: float = 1.0, steps: int = 2) -> TrainingAudit:
    """As the command does it."""
    settings = audit_settings(epsilon, DELTA, canaries=canaries, sampling_rate=sampling_rate, steps=steps)
    return audit_training(settings, DELTA, canaries=canaries)


def test_without_noise_every_canary_that_is_in_scores_above_every_other() -> None:
    canaries = Canaries.draw(60, OsRandom())
    settings = replace(audit_settings(1.0, DELTA, canaries=60), noise_multiplier=0.0)
    scores = score_canaries(canaries, settings)
    assert scores[canaries.included].min() > 5 * np.abs(scores[~canaries.included]).max()


def test_the_auditor_s_own_gradient_is_the_one_that_the_product_clips_and_sums() -> None:
    canaries = Canaries(np.array([[1, 2], [3, 4], [5, 6]]), np.array([False, True, False]))
    settings = replace(default_settings(1.0, 10), negatives=4)
    model = build_public_model(nothing_known(canaries.catalog), settings)
    candidates = Candidates.draw(4, torch.zeros(canaries.catalog + 1), torch.Generator().manual_seed(1))
    users = UserSequences(canaries.split().train, 50)
    step = UserStep(model, settings.groups, settings.max_grad_norm)
    summed = step.clipped_sum(np.array([len(users) - 1]), users, candidates)["items.id.weight"][2:4]
    own = training_audit._gradients(model, torch.from_numpy(canaries.items[1:2]), candidates.items)[0].double()
    assert own.norm() > 10 * settings.max_grad_norm
    assert torch.cosine_similarity(summed.flatten(), own.flatten(), 0) > 0.98
    assert 0.85 * settings.max_grad_norm < summed.norm() <= settings.max_grad_norm


def test_the_shift_of_a_canary_is_the_one_that_the_noise_allows() -> None:
    found = audit(4.0, 2000)
    assert found.mu == pytest.approx(math.sqrt(2) / 1.5298, rel=1e-3)
    six_deviations = 6 * 2.2 / math.sqrt(2000)  # of a difference of means
    assert found.shift == pytest.approx(found.mu, abs=six_deviations)
    assert found.shift > 0


def test_skipped_clipping_is_seen_by_few_canaries(monkeypatch: Patch) -> None:
    clipping_skipped(monkeypatch)
    found = audit(1.0, 100)
    assert found.refuted
    assert found.shift > 10 * found.mu
    assert found.found.epsilon_lower <= found.epsilon_ceiling


def test_nobody_sampled_is_seen_in_the_schedule_of_a_run(monkeypatch: Patch) -> None:
    everybody_in(monkeypatch)
    found = audit(4.0, 400, sampling_rate=0.3, steps=8)
    assert found.shift > 2 * found.mu


def test_the_settings_are_those_of_a_private_run_but_for_noise_and_schedule() -> None:
    found, run = audit_settings(2.0, DELTA, canaries=1000, sampling_rate=0.3, steps=60), default_settings(1.0, 700)
    assert replace(found, noise_multiplier=1.0, block=run.block) == run


def test_guesses_and_power_are_fixed_by_the_settings_and_the_claim_is_the_accountant_s() -> None:
    first, second = audit(2.0, 60), audit(2.0, 60)
    assert first.found.guesses == second.found.guesses
    assert 1.99 < first.claim.epsilon <= 2.0
    assert first.claim.adjacency == "add-or-remove"
    assert first.epsilon_if_sound <= first.epsilon_if_halved <= first.epsilon_ceiling
    assert 0 <= first.chance_if_halved < 1


def test_the_result_is_json_with_the_contract_of_every_epsilon() -> None:
    told = json.loads(json.dumps(audit(2.0, 60).to_dict()))
    assert told.keys() >= {"epsilon", "delta", "adjacency", "assumptions", "epsilon_lower", "refuted", "confidence"}
    assert told.keys() >= {"canaries", "guesses", "correct", "mu", "shift", "power"}
    assert told["canaries"] == 60


def test_coins_are_fair_fresh_and_independent_of_the_items() -> None:
    first, second = (Canaries.draw(2000, OsRandom()) for _ in range(2))
    assert (first.items == second.items).all()
    assert len(np.unique(first.items)) == 4000
    assert 800 < first.included.sum() < 1200
    assert 800 < (first.included != second.included).sum() < 1200


def test_only_canaries_that_are_in_are_in_the_log() -> None:
    canaries = Canaries.draw(50, OsRandom())
    train = canaries.split().train
    assert len(train) == 200 + canaries.included.sum()
    assert (train.item[-2 * int(canaries.included.sum()) :] == canaries.items[canaries.included].ravel()).all()


def test_coins_that_leave_nobody_to_compare_give_no_shift() -> None:
    assert math.isnan(training_audit._shift(np.zeros(0), np.ones(2)))
    assert math.isnan(training_audit._shift(np.ones(2), np.ones(1)))


@pytest.mark.parametrize(
    "change", [{"canaries": 1}, {"epsilon": 0.0}, {"epsilon": math.nan}, {"steps": 0}, {"sampling_rate": 1.5}]
)
def test_what_cannot_be_audited_is_refused(change: dict[str, float]) -> None:
    given = {"epsilon": 1.0, "canaries": 10, **change}
    with pytest.raises(ConfigError):
        audit(**given)  # type: ignore[arg-type]


def test_a_run_without_noise_or_rows_is_refused() -> None:
    settings = audit_settings(1.0, DELTA, canaries=10)
    with pytest.raises(ConfigError, match="noise_multiplier"):
        audit_training(replace(settings, noise_multiplier=0.0), DELTA, canaries=10)
    with pytest.raises(ConfigError, match="rows"):
        audit_training(replace(settings, groups=("adapter",)), DELTA, canaries=10)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "factor"), [(lambda _: None, 1.0), (noise_halved, 2.0), (clipping_skipped, 5.0)])
def test_a_claim_of_epsilon_4_is_refuted_as_often_as_the_power_says(
    fault: Callable[[Patch], None], factor: float, monkeypatch: Patch
) -> None:
    """The whole path, with as many canaries as the command takes."""
    fault(monkeypatch)
    runs, audits = 6, []
    for _ in range(runs):
        audits.append(audit(4.0, 40_000))
    one = audits[0]
    assert np.mean([each.shift for each in audits]) > 0.95 * min(factor, 2) * one.mu
    power = detection_power(
        40_000, one.found.guesses, mu=0.98 * factor * one.mu, epsilon=one.claim.epsilon, delta=DELTA
    )
    refuted = sum(each.refuted for each in audits)
    print(f"refuted in {refuted} of {runs} runs, predicted {power:.3g}")
    assert stats.binomtest(refuted, runs, power).pvalue > 1e-6
