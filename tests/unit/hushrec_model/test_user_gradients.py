"""The gradient of each user apart, taken by Opacus' hooks and by torch.func, against a loop over users.

Differential privacy clips every user's gradient: a part that goes missing there is a part that is not trained, or not
protected. Shapes: B users, L events, D width.
"""

from collections.abc import Callable

import pytest
import torch
from hushrec_model.network import Encoder, EncoderShape
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional

from tests.planted import small_model

# torch remarks on hooks of modules whose inputs are integers; they are the embeddings here, and they are compared
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

Gradients = dict[str, Tensor]
Loss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
USERS, EVENTS, ITEMS = 3, 5, 11
SHAPE = EncoderShape(heads=(2, 1), channels=(16, 32), max_history=8, behaviors=3)
TABLE = functional.normalize(torch.randn(ITEMS, 64, generator=torch.Generator().manual_seed(3)), dim=-1)


def by_loop(module: nn.Module, inputs: tuple[Tensor, ...], loss: Loss) -> Gradients:
    """One backward pass a user, shape (B, ...) each."""
    found: dict[str, list[Tensor]] = {}
    for user in range(len(inputs[0])):
        module.zero_grad()
        loss(module, tuple(value[user : user + 1] for value in inputs)).backward()  # type: ignore[no-untyped-call]
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                grad = torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
                found.setdefault(name, []).append(grad)
    return {name: torch.stack(grads) for name, grads in found.items()}


def by_hooks(module: nn.Module, inputs: tuple[Tensor, ...], loss: Loss) -> Gradients:
    """One backward pass for all users, under Opacus."""
    hooked = GradSampleModule(module, loss_reduction="sum")
    loss(hooked, inputs).backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad_sample for name, weight in module.named_parameters() if weight.requires_grad}  # type: ignore[attr-defined]


def by_functions(module: nn.Module, inputs: tuple[Tensor, ...], loss: Loss) -> Gradients:
    """vmap(grad), as the train step takes them."""
    weights = {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}

    def of_one(weights: Gradients, *one: Tensor) -> Tensor:
        def call(*inputs: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(module, weights, inputs)
            return result

        return loss(call, tuple(value[None] for value in one))  # type: ignore[arg-type]

    found: Gradients = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, *[0] * len(inputs)))(weights, *inputs)
    return found


class Tied(nn.Module):
    """An item table that is read through its module, and scored with through `score`."""

    def __init__(self, score: Callable[[Tensor, nn.Embedding], Tensor]) -> None:
        super().__init__()
        self.item, self.score = nn.Embedding(ITEMS, 4), score

    def forward(self, items: Tensor) -> Tensor:
        """Scores of all items, shape (B, ITEMS)."""
        return self.score(self.item(items).sum(1), self.item)


def through_weight(user: Tensor, item: nn.Embedding) -> Tensor:
    return user @ item.weight.t()


def through_module(user: Tensor, item: nn.Embedding) -> Tensor:
    rows = item(torch.arange(ITEMS).expand(len(user), -1))
    return torch.einsum("bd,bvd->bv", user, rows)


def detached(user: Tensor, item: nn.Embedding) -> Tensor:
    return user @ item.weight.detach().t()


def next_item_loss(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    items = inputs[0]
    return functional.cross_entropy(module(items[:, :-1]), items[:, -1], reduction="sum")


def tied(score: Callable[[Tensor, nn.Embedding], Tensor]) -> Tied:
    torch.manual_seed(0)
    return Tied(score)


HISTORIES = (torch.tensor([[1, 2, 3, 4], [5, 5, 1, 2], [0, 9, 10, 9]]),)


def test_a_weight_used_beside_its_module_loses_its_scoring_gradient_under_hooks() -> None:
    """No error and no warning: only the gradient of the table as input is left."""
    whole = by_loop(tied(through_weight), HISTORIES, next_item_loss)["item.weight"]
    hooked = by_hooks(tied(through_weight), HISTORIES, next_item_loss)["item.weight"]
    assert not torch.allclose(hooked, whole, atol=1e-3)
    input_only = by_loop(tied(detached), HISTORIES, next_item_loss)["item.weight"]
    torch.testing.assert_close(hooked, input_only)


def test_a_weight_used_through_its_module_both_times_keeps_both_gradients() -> None:
    whole = by_loop(tied(through_weight), HISTORIES, next_item_loss)["item.weight"]
    torch.testing.assert_close(by_hooks(tied(through_module), HISTORIES, next_item_loss)["item.weight"], whole)


def encoder(*, hooked: bool) -> Encoder:
    """Every weight random, the adapter trained too."""
    made = small_model(ITEMS, SHAPE).encoder.train()
    made.hooked = hooked
    for weight in made.parameters():
        weight.requires_grad_(True)
    return made


def events() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    vectors = functional.normalize(torch.randn(USERS, EVENTS, 64, generator=generator), dim=-1)
    return vectors.requires_grad_(), torch.randint(0, 3, (USERS, EVENTS), generator=generator)


def user_loss(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the next event at every position, against a fixed table."""
    scores = module(*inputs) @ TABLE.t()
    wanted = torch.arange(EVENTS).expand(len(scores), -1) % ITEMS
    return functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="sum")


@pytest.mark.parametrize("way", [by_hooks, by_functions])
def test_every_weight_of_the_encoder_has_each_user_s_own_gradient(way: Callable[..., Gradients]) -> None:
    wanted = by_loop(encoder(hooked=False), events(), user_loss)
    found = way(encoder(hooked=way is by_hooks), events(), user_loss)
    assert found.keys() == wanted.keys() == dict(encoder(hooked=True).named_parameters()).keys()
    for name, grads in wanted.items():
        assert grads.abs().max() > 0, name
        torch.testing.assert_close(found[name], grads, atol=1e-5, rtol=1e-4, msg=name)


def test_for_hooks_the_distances_need_an_axis_of_users() -> None:
    """Without it Opacus takes the positions for users."""
    wanted = by_loop(encoder(hooked=False), events(), user_loss)["blocks.0.distance.weight"]
    found = by_hooks(encoder(hooked=False), events(), user_loss)["blocks.0.distance.weight"]
    assert found.shape != wanted.shape


def test_no_weight_of_the_encoder_lies_beside_a_module_that_hooks_see() -> None:
    assert not [name for name, _ in encoder(hooked=False).named_parameters(recurse=False)]
    for block in encoder(hooked=False).layers:
        assert not [name for name, _ in block.named_parameters(recurse=False)]


def test_the_axis_of_users_changes_no_result() -> None:
    with torch.no_grad():
        torch.testing.assert_close(encoder(hooked=True)(*events()), encoder(hooked=False)(*events()))
