"""The encoder's weights go into named arrays and come back."""

import numpy as np
import pytest
from hushrec.weights.encoder import EncoderWeights
from hushrec_privacy.errors import ConfigError

from tests.encoder_reference import random_encoder

SHAPES = [
    {"heads": (2,), "channels": (16,), "max_history": 8},
    {"heads": (1, 3), "channels": (20, 75), "max_history": 12, "behaviors": 3},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_come_back_as_the_same_weights(shape: dict[str, object]) -> None:
    weights = random_encoder(**shape)  # type: ignore[arg-type]
    again = EncoderWeights.of(weights.arrays())
    assert (again.max_history, again.parameters, len(again.layers)) == (
        weights.max_history,
        weights.parameters,
        len(weights.layers),
    )
    for name, array in weights.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    assert list(again.arrays()) == list(weights.arrays())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_trained_value_is_in_an_array(shape: dict[str, object]) -> None:
    weights = random_encoder(**shape)  # type: ignore[arg-type]
    assert sum(array.size for array in weights.arrays().values()) == weights.parameters


@pytest.mark.parametrize("missing", ["0.w1", "1.bias", "norm_scale", "adapter_up", "scale"])
def test_a_missing_array_is_named(missing: str) -> None:
    arrays = random_encoder(max_history=8).arrays()
    del arrays[missing]
    with pytest.raises(ConfigError, match=missing):
        EncoderWeights.of(arrays)


def test_arrays_of_another_shape_or_without_layers_are_refused() -> None:
    arrays = random_encoder(max_history=8).arrays()
    with pytest.raises(ConfigError, match="wo"):
        EncoderWeights.of({**arrays, "1.wo": arrays["1.wo"][:-1]})
    with pytest.raises(ConfigError, match="no layers"):
        EncoderWeights.of({name: array for name, array in arrays.items() if not name[0].isdigit()})
