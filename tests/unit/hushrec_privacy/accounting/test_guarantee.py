"""A guarantee is one thing: complete, immutable, and composed only with its like."""

import dataclasses
import json
import math

import pytest
from hushrec_privacy.accounting import (
    Guarantee,
    PrivacyLoss,
    banded_guarantee,
    compose,
    gaussian_epsilon,
    gaussian_guarantee,
    poisson_guarantee,
)
from hushrec_privacy.accounting.guarantee import Adjacency
from hushrec_privacy.errors import ConfigError


def guarantee(
    epsilon: float = 0.5, adjacency: Adjacency = "zero-out", unit: str = "a user", rounding: float = 0.01
) -> Guarantee:
    return Guarantee(epsilon, 1e-7, unit, adjacency, "Gaussian", "the server", ("one",), (("rounding", rounding),))


def test_epsilons_and_deltas_add_up_where_nothing_else_is_known() -> None:
    total = compose([guarantee(0.5), guarantee(0.25)])
    assert total.epsilon == pytest.approx(0.75)
    assert total.epsilon >= 0.75
    assert total.delta == pytest.approx(2e-7)
    assert total.assumptions[0] == "one"
    assert total.assumptions[1].startswith("which plans or runs there are"), "several hold only if chosen beforehand"
    assert total.slack == (("rounding", 0.01),)
    assert total.loss is None
    assert compose([guarantee(math.inf)]).epsilon == math.inf
    gaussian = dataclasses.replace(guarantee(), loss=PrivacyLoss(0.1))
    assert compose([gaussian, guarantee()]).epsilon >= 1.0


def test_losses_compose_exactly_at_the_sum_of_the_deltas() -> None:
    one, other = gaussian_guarantee(3.0, 2, 1e-7), gaussian_guarantee(5.0, 4, 3e-7)
    total = compose([one, other])
    assert total.delta == pytest.approx(4e-7)
    assert total.epsilon == pytest.approx(gaussian_epsilon((2 / 9 + 4 / 25) ** 0.5, 4e-7), rel=1e-12)
    assert total.epsilon < one.epsilon + other.epsilon
    assert compose([total, one]).epsilon == pytest.approx(compose([one, other, one]).epsilon, rel=1e-12)


def test_a_total_is_never_above_the_sum() -> None:
    """Even if a loss says less than its epsilon."""
    loose = Guarantee(0.5, 1e-7, "a user", "zero-out", "Gaussian", "the server", loss=PrivacyLoss(9.0))
    assert compose([loose, loose]).epsilon == pytest.approx(1.0)


def test_deltas_that_sum_to_one_promise_nothing_but_the_sum() -> None:
    half = dataclasses.replace(guarantee(), delta=0.5, loss=PrivacyLoss(0.1))
    assert compose([half, half]).delta == 1
    assert compose([half, half]).epsilon >= 1.0


def test_of_each_rounding_the_largest_is_told() -> None:
    for first, second in ((0.01, 0.02), (0.02, 0.01)):
        assert compose([guarantee(rounding=first), guarantee(rounding=second)]).slack == (("rounding", 0.02),)


def test_unlike_ones_do_not_compose() -> None:
    with pytest.raises(ConfigError, match="different adjacency cannot be composed: add-or-remove and zero-out"):
        compose([guarantee(), guarantee(adjacency="add-or-remove")])
    with pytest.raises(ConfigError, match="different unit"):
        compose([guarantee(), guarantee(unit="a session")])
    with pytest.raises(ConfigError, match="nothing to compose"):
        compose([])


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        guarantee().epsilon = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(("epsilon", "delta"), [(math.nan, 1e-6), (-1.0, 1e-6), (1.0, math.nan), (1.0, 1.5)])
def test_nonsense_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigError):
        Guarantee(epsilon, delta, "a user", "zero-out", "none", "nobody")
    with pytest.raises(ConfigError, match="did you mean 'zero-out'"):
        Guarantee(1.0, 0.0, "a user", "zero_out", "none", "nobody")  # type: ignore[arg-type]


def test_json_holds_infinity_as_a_word() -> None:
    shown = json.loads(json.dumps(guarantee(math.inf).to_dict(), allow_nan=False))
    assert shown["epsilon"] == "inf"
    assert set(shown) == {field.name for field in dataclasses.fields(Guarantee)} - {"loss"}


def test_each_mechanism_says_what_it_assumes() -> None:
    rounds = gaussian_guarantee(8.35, 2, 1e-10)
    assert rounds.adjacency == "zero-out"
    assert "no amplification by sampling is claimed" in rounds.assumptions
    banded = banded_guarantee(2000, 200, 200, 10, 10.0, 1e-6)
    assert banded.epsilon == pytest.approx(2.3765, abs=5e-5)
    assert any("200 rounds apart" in line for line in banded.assumptions)
    central = poisson_guarantee(0.01, 10, 1.0, 1e-6)
    assert central.adjacency == "add-or-remove"
    assert any("true Poisson sampling" in line for line in central.assumptions)
    with pytest.raises(ConfigError, match="adjacency"):
        compose([rounds, central])
