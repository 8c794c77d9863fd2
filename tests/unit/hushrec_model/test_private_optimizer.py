"""Noised steps through Opacus: what is added, how much of it, and that it is the step that Opacus' hooks would take."""

import copy

import numpy as np
import pytest
import torch
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.private_optimizer import PrivateOptimizer
from hushrec_model.user_sequences import UserBatch, UserSequences
from hushrec_model.user_step import Candidates, UserStep
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional

from tests.planted import sequences, small_model

ITEMS, CLIP, BATCH = 15, 0.3, 5.0
SHAPE = EncoderShape(heads=(2,), channels=(16,), max_history=8, behaviors=2)
ROWS = [[1, 2, 1, 3, 9], [5, 5, 4, 8, 7], [7, 8, 9, 10, 11], [3, 2, 15, 1, 14]]  # hooks know no padding: equal lengths


class Hooked(nn.Module):
    """The model with its table read through its module, once a user, as hooks need it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.id, self.encoder = model.items.id, model.encoder
        self.encoder.hooked = True

    def forward(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Scores of all items after each event, shape (B, L, V)."""
        table = functional.normalize(self.id(torch.arange(ITEMS).expand(len(items), -1)), dim=2, eps=1e-6)
        vectors = table.gather(1, (items[:, :-1] - 1)[:, :, None].expand(-1, -1, table.shape[2]))
        scores: Tensor = self.encoder(vectors, behaviors) @ table.transpose(1, 2)
        return scores


def users() -> UserSequences:
    return UserSequences(sequences(ROWS), SHAPE.max_history)


def by_hooks(model: Model, batch: UserBatch) -> None:
    """One step of Opacus' own optimizer under hooks, without noise."""
    module = GradSampleModule(Hooked(model).train(), loss_reduction="sum")  # hooks look in training mode only
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=BATCH
    )
    scores = module(batch.items, batch.behaviors)
    loss = functional.cross_entropy(scores.transpose(1, 2), batch.items[:, 1:] - 1, reduction="none").mean(1).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def by_ours(model: Model, noise: float = 0.0, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
    step = UserStep(model, ("encoder", "features", "rows"), CLIP)
    private = wrapped(list(step.weights.values()), noise, optimizer)
    candidates = Candidates.draw(ITEMS, torch.zeros(ITEMS + 1), torch.Generator())
    sums = step.clipped_sum(np.arange(len(ROWS)), users(), candidates)
    private.step_on({weight: sums[name] for name, weight in step.weights.items()})


def wrapped(
    weights: list[nn.Parameter], noise: float, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
) -> PrivateOptimizer:
    return PrivateOptimizer(
        optimizer(weights, lr=1.0),  # type: ignore[call-arg]
        noise_multiplier=noise,
        max_grad_norm=CLIP,
        expected_batch_size=BATCH,
        random=OsRandom(),
    )


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_without_noise_a_step_is_the_one_that_hooks_take() -> None:
    before = small_model(ITEMS, SHAPE)
    ours, hooked = copy.deepcopy(before), copy.deepcopy(before)
    by_ours(ours)
    by_hooks(hooked, users().batch(np.arange(len(ROWS))))
    for (name, mine), theirs, first in zip(
        ours.named_parameters(), hooked.parameters(), before.parameters(), strict=True
    ):
        assert "adapter" in name or not torch.equal(mine, first), name
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6, msg=name)


def noise_of(multiplier: float, size: int = 200_001) -> Tensor:
    """What one step adds to a weight, times the batch it is divided by: sum and noise, the sum being 0."""
    weight = nn.Parameter(torch.zeros(size))
    wrapped([weight], multiplier).step_on({weight: torch.zeros(size, dtype=torch.float64)})
    return -weight.detach().double() * BATCH


def scale_is(found: Tensor, scale: float) -> bool:
    """Variance within 5 standard errors, sqrt(2 / n) each: a sound one is refused once in 1.7 million runs."""
    return bool(abs(found.square().mean() / scale**2 - 1) <= 5 * (2 / len(found)) ** 0.5)


def test_the_noise_is_z_times_the_clip_norm() -> None:
    assert scale_is(noise_of(1.7), 1.7 * CLIP)


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_two_thirds_and_three_halves_of_the_noise_are_told_apart(wrong: float) -> None:
    assert not scale_is(noise_of(1.7 * wrong), 1.7 * CLIP)


def test_weights_that_no_user_touched_are_noised_too() -> None:
    model = small_model(ITEMS, SHAPE)
    before = model.items.id.weight.detach().clone()
    by_ours(model, noise=1.0)
    assert (model.items.id.weight.detach() != before).all()


def test_one_seed_twice_gives_different_noise() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = noise_of(1.0, 1000)
    torch.manual_seed(0)
    np.random.seed(0)
    assert torch.isin(first, noise_of(1.0, 1000)).sum() < 10, "two float32 meet by chance in one of 100 runs, ten never"


def test_the_sum_is_divided_by_the_expected_batch_whatever_came() -> None:
    weight = nn.Parameter(torch.zeros(3))
    wrapped([weight], 0.0).step_on({weight: torch.full((3,), 10.0, dtype=torch.float64)})
    torch.testing.assert_close(weight.detach(), torch.full((3,), -10 / BATCH))


def test_each_step_forgets_the_sum_before() -> None:
    weight = nn.Parameter(torch.zeros(1))
    private = wrapped([weight], 0.0)
    for _ in range(3):
        private.step_on({weight: torch.ones(1, dtype=torch.float64)})
    torch.testing.assert_close(weight.detach(), torch.full((1,), -3 / BATCH))
    assert weight.grad is None


def test_a_parameter_without_a_sum_is_refused_before_anything_moves() -> None:
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    with pytest.raises(ConfigError, match="1 trained parameters have no clipped sum"):
        wrapped(weights, 1.0).step_on({weights[0]: torch.ones(1)})
    assert weights[0].item() == 0


def test_a_sum_is_rounded_only_once_it_is_noised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to float32 before, a large sum would move by more than the one clipped user."""
    large = 2.0**24
    noise = torch.full((1,), -large, dtype=torch.float64).numpy()
    monkeypatch.setattr("hushrec_model.private_optimizer.float_gaussian", lambda *_: noise)
    moved = []
    for one_user in (0.0, 1.0):
        weight = nn.Parameter(torch.zeros(1))
        wrapped([weight], 1.0).step_on({weight: torch.tensor([large + one_user], dtype=torch.float64)})
        moved.append(float(weight.detach()))
    assert moved[0] == 0.0
    assert moved[1] != 0.0


def test_one_sum_is_never_noised_twice() -> None:
    weight = nn.Parameter(torch.zeros(1))
    private = wrapped([weight], 1.0)
    weight.grad = torch.ones(1)
    private.accumulate()
    private.add_noise()
    with pytest.raises(ValueError, match="haven't been cleared"):
        private.add_noise()


@pytest.mark.parametrize("name", ["noise_multiplier", "max_grad_norm", "expected_batch_size"])
@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_numbers_that_give_no_guarantee_are_refused(name: str, bad: float) -> None:
    numbers = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": 1.0, name: bad}
    with pytest.raises(ConfigError, match=name):
        PrivateOptimizer(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), random=OsRandom(), **numbers)


def test_its_text_tells_nothing() -> None:
    assert repr(wrapped([nn.Parameter(torch.ones(1))], 1.0)) == "PrivateOptimizer()"
