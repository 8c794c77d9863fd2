"""A guarantee is one thing: complete, immutable, and composed only with its like."""

import dataclasses
import json
import math

import pytest
from hushrec_privacy.accounting import Guarantee, banded_guarantee, compose, gaussian_guarantee, poisson_guarantee
from hushrec_privacy.accounting.guarantee import Adjacency
from hushrec_privacy.errors import ConfigError


def guarantee(epsilon: float = 0.5, adjacency: Adjacency = "zero-out", unit: str = "a user") -> Guarantee:
    return Guarantee(epsilon, 1e-7, unit, adjacency, "Gaussian", "the server", ("one",), (("rounding", 0.01),))


def test_epsilons_and_deltas_add_up() -> None:
    total = compose([guarantee(0.5), guarantee(0.25)])
    assert total.epsilon == pytest.approx(0.75)
    assert total.epsilon >= 0.75
    assert total.delta == pytest.approx(2e-7)
    assert total.assumptions == ("one",)
    assert total.slack == (("rounding", 0.01),)
    assert compose([guarantee(math.inf)]).epsilon == math.inf


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
    assert set(shown) == {field.name for field in dataclasses.fields(Guarantee)}


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
