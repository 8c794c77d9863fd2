"""How a private run divides its budget."""

import numpy as np
import pytest
from hushrec_model import private_pipeline
from hushrec_model.private_counts import Counts, counts_mu
from hushrec_model.private_pipeline import PrivateRun, default_delta, default_settings
from hushrec_privacy.accounting import gaussian_mu
from hushrec_privacy.accounting.claims import poisson_guarantee
from hushrec_privacy.accounting.sampled import poisson_epsilon
from hushrec_privacy.errors import ConfigError


@pytest.mark.parametrize(("users", "epsilon", "faint"), [(2_000, 1.0, True), (100_000, 4.0, False)])
def test_tables_and_steps_together_cost_epsilon(users: int, epsilon: float, faint: bool) -> None:
    delta, items = default_delta(users), 2_000
    facts = private_pipeline._noise(epsilon, delta, users, items)
    steps = default_settings(facts["noise_multiplier"], users)
    spent = poisson_epsilon(
        steps.sampling_rate, steps.steps, steps.noise_multiplier, delta, released_mu=facts["released_mu"]
    )
    assert epsilon * 0.99 < spent <= epsilon
    assert facts["released_mu"] == counts_mu(facts["transitions_deviation"], items)
    share = facts["released_mu"] ** 2 / gaussian_mu(epsilon, delta) ** 2
    assert (facts["counts_weight"], share > 0.7) == ((4.0, True) if faint else (1.0, False))


def test_an_epsilon_that_the_counts_alone_exceed_is_refused() -> None:
    with pytest.raises(ConfigError, match="the tables of counts alone cost more"):
        private_pipeline._noise(0.1, 1e-5, 1_000, 100)


def test_a_run_says_where_tables_and_training_have_little_to_tell() -> None:
    counts = Counts(np.ones(3, np.float32), True, "leave-one-out", weight=4.0)
    settings, guarantee = default_settings(5.0, 400), poisson_guarantee(0.3, 60, 5.0, 1e-5)
    run = PrivateRun(None, settings, counts, guarantee, "0" * 64, 60, "9:ab")  # type: ignore[arg-type]
    said = "\n".join(run.decisions())
    assert "no pair of items stood out of the noise" in said
    assert "few users for so many items" in said
    assert "WARNING: fewer than 1000 users" in said
