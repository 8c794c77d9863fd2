"""Pruning removes the share that was asked for, the least important first, and computes what zeros would compute."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec_model.model import Model
from hushrec_model.network import HEAD_WIDTH, Block, EncoderShape
from hushrec_model.splits import Split
from hushrec_model.training import build_model, train_model
from hushrec_privacy.errors import ConfigError
from hushrec_quantize.prune import CHANNEL_STEP, encoder_parameters, prune
from torch import Tensor
from torch.nn import functional

from tests.planted import SETTINGS, chain, nothing_known, sequences, small_model, split_of

ITEMS = 12
SPLIT = split_of(chain(30, ITEMS, 9))
ONE = EncoderShape((3,), (96,), 8)
TWO = EncoderShape((2, 3), (96, 64), 8, behaviors=2)
SHAPES = pytest.mark.parametrize("shape", [ONE, TWO], ids=["one layer", "two layers"])


def users(model: Model) -> Tensor:
    items = torch.randint(1, ITEMS + 1, (6, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.as_tensor(model.encoder(functional.embedding(items, model.table()), items % 2))


def kept(small: Block, large: Block) -> tuple[list[int], list[int]]:
    """Heads and channels of the large block that the small one still has, told by their weights."""

    def columns(one: Tensor, other: Tensor, width: int) -> list[int]:
        groups = torch.split(other, width, 1)
        parts = torch.split(one, width, 1)
        return [next(i for i, group in enumerate(groups) if torch.equal(group, part)) for part in parts]

    return (
        columns(small.merge.weight, large.merge.weight, HEAD_WIDTH),
        columns(small.contract.weight, large.contract.weight, 1),
    )


def silenced(model: Model, small: Model, layers: list[int]) -> Model:
    """The model with what pruning removed set to zero where it enters the residual stream."""
    quiet = copy.deepcopy(model)
    left = dict(zip(layers, small.encoder.layers, strict=True))
    with torch.no_grad():
        for number, block in enumerate(quiet.encoder.layers):
            heads, channels = kept(left[number], block) if number in left else ([], [])
            for head in set(range(block.heads)) - set(heads):
                block.merge.weight[:, head * HEAD_WIDTH : (head + 1) * HEAD_WIDTH] = 0
            block.contract.weight[:, [c for c in range(block.channels) if c not in channels]] = 0
    return quiet


@SHAPES
@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_the_share_is_reached_within_one_head_or_group_of_channels(shape: EncoderShape, share: float) -> None:
    model = small_model(ITEMS, shape)
    before, after = encoder_parameters(model.encoder), encoder_parameters(prune(model, SPLIT, share).encoder)
    unit = 4 * HEAD_WIDTH * 64 + shape.max_history
    assert 0 <= (before - after) - share * before < unit + 1


@SHAPES
@pytest.mark.parametrize("share", [0.1, 0.3, 0.44])
def test_a_pruned_model_computes_what_the_whole_one_does_without_those_parts(shape: EncoderShape, share: float) -> None:
    model = small_model(ITEMS, shape)
    small = prune(model, SPLIT, share)
    assert encoder_parameters(small.encoder) < encoder_parameters(model.encoder)
    quiet = silenced(model, small, list(range(len(shape.heads))))
    torch.testing.assert_close(users(small), users(quiet), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(users(small), users(model), atol=1e-3)


@pytest.mark.parametrize("share", [0.45, 0.6])
def test_from_a_high_share_on_a_whole_layer_goes_first(share: float) -> None:
    model = small_model(ITEMS, TWO)
    small = prune(model, SPLIT, share)
    assert len(small.encoder.layers) == 1
    matches = []
    for layer in (0, 1):
        try:
            quiet = silenced(model, small, [layer])
        except StopIteration:  # the layer that is left is not this one
            continue
        matches.append(torch.allclose(users(small), users(quiet), atol=1e-5))
    assert matches == [True]
    assert len(prune(small_model(ITEMS, ONE), SPLIT, share).encoder.layers) == 1


@pytest.mark.parametrize("gone", [0, 1])
def test_the_layer_that_does_nothing_is_the_one_that_goes(gone: int) -> None:
    model = small_model(ITEMS, TWO)
    with torch.no_grad():
        model.encoder.layers[gone].merge.weight.mul_(1e-6)
        model.encoder.layers[gone].contract.weight.mul_(1e-6)
    torch.testing.assert_close(users(prune(model, SPLIT, 0.45)), users(model), atol=1e-3, rtol=1e-3)


@SHAPES
def test_nothing_removed_is_the_same_model_in_a_copy(shape: EncoderShape) -> None:
    model = small_model(ITEMS, shape)
    same = prune(model, SPLIT, 0.0)
    assert same is not model
    assert same.encoder.shape == shape
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in same.state_dict().items())
    with torch.no_grad():
        same.encoder.scale.weight.add_(1)
    assert model.encoder.scale.weight != same.encoder.scale.weight


@SHAPES
def test_however_high_the_share_each_layer_left_keeps_a_head_and_its_last_channels(shape: EncoderShape) -> None:
    small = prune(small_model(ITEMS, shape), SPLIT, 0.99)
    assert small.encoder.shape.heads == (1,)
    assert small.encoder.shape.channels == (CHANNEL_STEP,)
    assert torch.isfinite(users(small)).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"prune is .*; it must be at least 0 and below 1"):
        prune(small_model(ITEMS), SPLIT, share)


@SHAPES
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_model_given_stays_as_it_is(shape: EncoderShape, share: float) -> None:
    model = small_model(ITEMS, shape)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    prune(model, SPLIT, share)
    assert model.encoder.shape == shape
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training


def test_useless_parts_go_first() -> None:
    model = small_model(ITEMS, ONE)
    with torch.no_grad():
        block = model.encoder.layers[0]
        block.merge.weight[:, HEAD_WIDTH : 2 * HEAD_WIDTH] *= 1e-4
        block.contract.weight[:, 1::2] *= 1e-4
    useless = 4 * HEAD_WIDTH * 64 + 8 + 3 * 48 * 64
    small = prune(model, SPLIT, useless / encoder_parameters(model.encoder) - 1e-3)
    heads, channels = kept(small.encoder.layers[0], block)
    assert heads == [0, 2]
    assert channels == list(range(0, 96, 2))


def basket_split() -> Split:
    """Half of the shoppers came once: no batch of their windows has a target."""
    rows = [[1, 2, 3, 4, 5], [6, 7, 8]] * 60
    baskets = [[0, 0, 1, 1, 2], [0, 0, 0]] * 60
    return replace(SPLIT, train=sequences(rows, baskets=baskets))


def test_batches_without_a_target_do_not_blind_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(ITEMS, ONE)
    with torch.no_grad():
        model.encoder.layers[0].merge.weight[:, 2 * HEAD_WIDTH :] *= 1e-4
        model.encoder.layers[0].contract.weight[:, 48:] *= 1e-4
    plan = "hushrec_model.batches.Windows.plan"
    monkeypatch.setattr(plan, lambda windows, _tokens, _rng: np.arange(len(windows._length))[:, None])
    small = prune(model, basket_split(), 0.3)
    heads, channels = kept(small.encoder.layers[0], model.encoder.layers[0])
    assert heads == [0, 1]
    assert set(range(48)) <= set(channels)


def test_pruning_repeats_with_its_seed() -> None:
    one, two = (prune(small_model(ITEMS, TWO), SPLIT, 0.3, seed=3) for _ in range(2))
    assert torch.equal(users(one), users(two))


def test_a_pruned_model_can_be_trained_saved_and_built_again() -> None:
    small = prune(small_model(ITEMS, TWO), SPLIT, 0.3)
    settings = replace(SETTINGS, shape=small.encoder.shape, epochs=1)
    tuned = train_model(SPLIT, nothing_known(ITEMS), settings, start=copy.deepcopy(small)).model
    assert not torch.equal(users(tuned), users(small))
    again = build_model(SPLIT, nothing_known(ITEMS), settings)
    again.load_state_dict(tuned.state_dict())
    torch.testing.assert_close(users(again.eval()), users(tuned))
