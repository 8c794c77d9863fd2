"""The clipped sum of users' gradients, against one backward pass a user over the plain model.

Bounds are relative to the length of the gradient they belong to. What has to hold to 3e-7 holds to 1e-10 in float64,
where it is tested. float32 cannot show it: there the loop over users is itself 5e-7 from the truth.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec_model import user_step
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.user_sequences import UserSequences
from hushrec_model.user_step import GROUPS, Candidates, UserStep
from hushrec_privacy.errors import ConfigError
from torch import Tensor
from torch.nn import functional

from tests.planted import all_known, sequences, small_model

ITEMS = 40
SHAPE = EncoderShape(heads=(2, 1), channels=(16, 32), max_history=8, behaviors=3)
ROWS = [[1, 2, 1, 3, 9], [5, 5, 40], [7, 8, 9, 10, 11, 12, 13, 14, 15, 1], [30, 31]]
BEHAVIORS = [[0, 1, 2, 0, 1], [1, 1, 1], [0] * 10, [2, 0]]
FEW, ALL = 12, ITEMS
HUGE = 1e9
FLOAT64, FLOAT32 = 1e-10, 2e-6

Gradients = dict[str, Tensor]


def users() -> UserSequences:
    return UserSequences(sequences(ROWS, behaviors=BEHAVIORS), SHAPE.max_history)


def model(kind: torch.dtype = torch.float64) -> Model:
    made = small_model(ITEMS, SHAPE, all_known(ITEMS)).to(kind)
    for weight in made.parameters():
        weight.requires_grad_(True)
    return made


def candidates(count: int, kind: torch.dtype = torch.float64) -> Candidates:
    offset = torch.linspace(-1, 1, ITEMS + 1, dtype=kind)
    return Candidates.draw(count, offset, torch.Generator().manual_seed(5))


def by_loop(made: Model, against: Candidates) -> list[Gradients]:
    """One backward pass a user, through the whole table, with the loss written out."""
    found = []
    for user in range(len(ROWS)):
        made.zero_grad()
        batch = users().batch(np.array([user]))
        table = made.items()
        hidden = made.encoder(functional.embedding(batch.items[:, :-1], table), batch.behaviors)[0]
        loss = torch.zeros((), dtype=table.dtype)
        for position, target in enumerate(batch.items[0, 1:].tolist()):
            others = torch.tensor([item for item in against.items.tolist() if item != target])
            extra = np.log(max(1.0, (ITEMS - 1) / len(against.items)))
            scores = torch.cat(
                [
                    hidden[position] @ table[[target]].t() + against.offset[[target]],
                    hidden[position] @ table[others].t() + against.offset[others] + extra,
                ]
            )
            loss = loss + functional.cross_entropy(scores[None], torch.tensor([0]))
        (loss / (len(batch.items[0]) - 1)).backward()  # type: ignore[no-untyped-call]
        grads = {name: weight.grad for name, weight in made.named_parameters()}
        found.append({name: torch.zeros(()) if grad is None else grad.clone() for name, grad in grads.items()})
    return found


def by_step(made: Model, against: Candidates, groups: tuple[str, ...] = GROUPS) -> list[Gradients]:
    """The gradients of all users taken together, then one user's share of the sum at a time."""
    step = UserStep(made, groups, HUGE)
    raw = functional.pad(made.items.id.weight + made.items.content(), (0, 0, 1, 0)).detach()
    found = []
    for user in range(len(ROWS)):
        grads = step.gradients(users().batch(np.arange(len(ROWS))), against, raw)
        sums = {name: torch.zeros_like(weight) for name, weight in step.weights.items()}
        grads.add_to(sums, functional.one_hot(torch.tensor(user), len(ROWS)).double())
        found.append(sums)
    return found


def farthest(found: list[Gradients], wanted: list[Gradients]) -> tuple[float, str]:
    """Largest distance of one user's gradient of one parameter, over the length of that gradient.

    Lengths below a millionth of the user's whole gradient count as that: some gradients are 0 but for rounding.
    """
    gaps = []
    for mine, theirs in zip(found, wanted, strict=True):
        least = 1e-6 * float(whole(theirs).norm())
        gaps += [(float((mine[name] - theirs[name]).norm() / max(theirs[name].norm(), least)), name) for name in mine]
    return max(gaps)


def whole(grads: Gradients) -> Tensor:
    """All gradients of one user in one row, float64."""
    return torch.cat([grads[name].flatten().double() for name in sorted(grads)])


@pytest.mark.parametrize("count", [FEW, ALL])
def test_every_parameter_has_each_user_s_own_gradient(count: int) -> None:
    wanted = by_loop(model(), candidates(count))
    found = by_step(model(), candidates(count))
    assert found[0].keys() == wanted[0].keys() == dict(model().named_parameters()).keys()
    for name in wanted[0]:
        assert max(float(grads[name].abs().max()) for grads in wanted) > 0, name
    assert farthest(found, wanted)[0] <= FLOAT64


@pytest.mark.parametrize("count", [FEW, ALL])
def test_float32_keeps_each_user_s_gradient_to_its_own_rounding(count: int) -> None:
    exact = by_step(model(), candidates(count))
    found = by_step(model(torch.float32), candidates(count, torch.float32))
    loop = by_loop(model(torch.float32), candidates(count, torch.float32))

    for mine, theirs, true in zip(found, loop, exact, strict=True):
        length = whole(true).norm()
        assert (whole(mine) - whole(theirs)).norm() <= FLOAT32 * length
        assert (whole(mine) - whole(true)).norm() <= FLOAT32 * length


@pytest.mark.parametrize("groups", [("rows",), ("features",), ("encoder",), ("adapter", "features")])
def test_part_of_the_parameters_have_the_same_gradients(groups: tuple[str, ...]) -> None:
    wanted = by_loop(model(), candidates(FEW))
    found = by_step(model(), candidates(FEW), groups)
    assert found[0]
    assert farthest(found, wanted)[0] <= FLOAT64


def test_a_table_used_beside_its_gradient_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the scores read the table in a way that leaves no gradient, as a functional use under hooks does."""
    honest = user_step._loss_of

    def planted(*given: object) -> Callable[..., Tensor]:
        loss = honest(*given)  # type: ignore[arg-type]
        return lambda weights, own, shared, inputs: loss(weights, own, shared.detach() + 0 * shared, inputs)

    monkeypatch.setattr(user_step, "_loss_of", planted)
    gap, name = farthest(by_step(model(), candidates(FEW)), by_loop(model(), candidates(FEW)))
    assert gap > 0.1
    assert name.startswith("items.")


def test_the_norm_counts_an_item_once_that_is_history_and_candidate() -> None:
    made, against = model(), candidates(ALL)
    wanted = [torch.cat([grad.flatten() for grad in grads.values()]).norm() for grads in by_loop(made, against)]
    raw = functional.pad(made.items.id.weight + made.items.content(), (0, 0, 1, 0)).detach()
    found = UserStep(made, GROUPS, 1.0).gradients(users().batch(np.arange(len(ROWS))), against, raw).norms()
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-12, atol=0)


def length(sums: Gradients) -> float:
    return float(torch.cat([part.flatten() for part in sums.values()]).norm())


@pytest.mark.parametrize("bound", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("groups", [GROUPS, ("features",), ("encoder", "rows")])
def test_no_user_moves_the_sum_by_more_than_the_bound(groups: tuple[str, ...], bound: float) -> None:
    step, everybody = UserStep(model(torch.float32), groups, bound), np.arange(len(ROWS))
    against = candidates(FEW, torch.float32)
    together = step.clipped_sum(everybody, users(), against)
    for user in everybody:
        rest = step.clipped_sum(np.delete(everybody, user), users(), against)
        moved = length({name: together[name] - rest[name] for name in rest})
        assert moved <= bound * (1 + 1e-6)
        assert moved > 0.999 * bound  # all of these users are above it


def test_a_gradient_below_the_bound_is_left_as_it_is() -> None:
    made, against = model(), candidates(FEW)
    found = UserStep(made, GROUPS, HUGE).clipped_sum(np.arange(len(ROWS)), users(), against)
    wanted = by_loop(made, against)
    for name, total in found.items():
        torch.testing.assert_close(total, sum(grads[name] for grads in wanted), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_user_whose_gradient_is_no_number_adds_nothing(bad: float) -> None:
    against = Candidates(torch.arange(1, FEW + 1), torch.zeros(ITEMS + 1))
    step = UserStep(model(torch.float32), ("encoder", "rows"), 1.0)
    only = 31  # the last user's; no other has it, and it is no candidate
    assert only not in against.items
    others = step.clipped_sum(np.arange(3), users(), against)
    with torch.no_grad():
        step.weights["items.id.weight"][only - 1] = bad
    found = step.clipped_sum(np.arange(4), users(), against)
    for name, total in others.items():
        assert total.isfinite().all()
        torch.testing.assert_close(found[name], total, rtol=1e-5, atol=1e-7)


def test_nobody_at_all_sums_to_zero() -> None:
    found = UserStep(model(), GROUPS, 1.0).clipped_sum(np.zeros(0, np.int64), users(), candidates(FEW))
    assert length(found) == 0


def test_groups_of_any_size_give_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    step, everybody = UserStep(model(), GROUPS, 1.0), np.arange(len(ROWS))
    at_once = step.clipped_sum(everybody, users(), candidates(FEW))
    monkeypatch.setattr(user_step, "_USERS_AT_ONCE", 1)
    for name, total in step.clipped_sum(everybody, users(), candidates(FEW)).items():
        torch.testing.assert_close(total, at_once[name], rtol=1e-9, atol=1e-12)


def test_candidates_are_distinct_and_do_not_look_at_users() -> None:
    drawn = candidates(FEW)
    assert len(set(drawn.items.tolist())) == FEW
    assert torch.equal(drawn.items, candidates(FEW).items)
    assert candidates(1000).items.tolist() == list(range(1, ITEMS + 1))


def test_every_item_is_a_candidate_as_often_as_every_other() -> None:
    generator, offset = torch.Generator().manual_seed(0), torch.zeros(ITEMS + 1)
    drawn = torch.cat([Candidates.draw(FEW, offset, generator).items for _ in range(4000)]).bincount(minlength=41)[1:]
    assert (drawn - 1200).abs().max() <= 6 * (4000 * 0.3 * 0.7) ** 0.5  # seeded


def test_what_is_not_trained_gets_no_sum() -> None:
    step = UserStep(model(), ("rows",), 1.0)
    assert set(step.clipped_sum(np.arange(2), users(), candidates(FEW))) == {"items.id.weight"}
    trained = [name for name, weight in step.model.named_parameters() if weight.requires_grad]
    assert trained == ["items.id.weight"]


def test_a_model_without_behaviours_or_content_works_alike() -> None:
    plain = small_model(ITEMS, replace(SHAPE, behaviors=1))
    assert length(UserStep(plain, GROUPS, 1.0).clipped_sum(np.arange(4), users(), candidates(FEW, torch.float32))) > 0


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(ConfigError, match="max_grad_norm"):
        UserStep(model(), GROUPS, bound)


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="encodr"):
        UserStep(model(), ("encodr",), 1.0)
