"""The chunked softmax against torch's own cross-entropy, and the sampled one against the full one."""

import pytest
import torch
from hushrec_model import losses
from hushrec_model.losses import TEACHER_SHARE, Lesson, full_softmax, product_dtype, sampled_softmax
from torch import Tensor


def _problem(count: int = 37, items: int = 211) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    users = torch.randn(count, 64, generator=generator).requires_grad_()
    table = torch.nn.functional.normalize(torch.randn(items, 64, generator=generator), dim=1).requires_grad_()
    return users, table, torch.randint(0, items, (count,), generator=generator)


@pytest.mark.parametrize("rows", [1, 10, 500])
def test_the_chunked_softmax_equals_cross_entropy_in_value_and_gradient(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ROWS", rows)
    users, table, target = _problem()
    plain = torch.nn.functional.cross_entropy(users @ table.t(), target)
    wanted = torch.autograd.grad(plain, (users, table))
    loss = full_softmax(users, table, target)
    found = torch.autograd.grad(loss * 2, (users, table))
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, 2 * theirs, atol=1e-6, rtol=1e-4)


def test_bfloat16_products_stay_near_the_float_gradient() -> None:
    users, table, target = _problem()
    wanted = torch.autograd.grad(full_softmax(users, table, target), users)[0]
    found = torch.autograd.grad(full_softmax(users, table, target, torch.bfloat16), users)[0]
    assert torch.nn.functional.cosine_similarity(wanted.flatten(), found.flatten(), dim=0) > 0.99


def test_a_target_of_vanishing_chance_gives_a_finite_loss() -> None:
    users = torch.full((1, 64), -50.0)
    table = torch.cat([torch.ones(1, 64), -torch.ones(5, 64)])
    assert torch.isfinite(full_softmax(users, table, torch.tensor([0])))


def test_sampling_every_item_evenly_gives_the_full_softmax() -> None:
    users, table, target = _problem()
    every, even = torch.arange(len(table)), torch.full((len(table),), 0.5)
    sampled = sampled_softmax(users, table, target, every, even)
    torch.testing.assert_close(sampled, full_softmax(users, table, target))


def test_the_correction_undoes_frequent_sampling() -> None:
    """An item drawn twice as often counts half as much each time: the sum over draws stays what it was."""
    users, table, target = _problem(items=6)
    target = torch.zeros_like(target)
    once = sampled_softmax(users, table, target, torch.tensor([1, 2]), torch.zeros(6))
    log_q = torch.zeros(6)
    log_q[1] = torch.log(torch.tensor(2.0))
    twice = sampled_softmax(users, table, target, torch.tensor([1, 1, 2]), log_q)
    torch.testing.assert_close(once, twice)


def test_products_are_bfloat16_only_where_the_processor_has_it() -> None:
    assert product_dtype("cpu") in (torch.bfloat16, torch.float32)


def _lesson(users: Tensor, table: Tensor) -> Lesson:
    """A teacher of another width."""
    generator = torch.Generator().manual_seed(4)
    return Lesson(torch.randn(len(users), 16, generator=generator), torch.randn(len(table), 16, generator=generator))


@pytest.mark.parametrize("rows", [10, 500])
def test_a_lesson_turns_the_gradient_and_leaves_the_value(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ROWS", rows)
    users, table, target = _problem()
    lesson = _lesson(users, table)
    taught = torch.softmax(lesson.users @ lesson.items.t(), 1)
    mixed = (1 - TEACHER_SHARE) * torch.nn.functional.one_hot(target, len(table)) + TEACHER_SHARE * taught
    wanted = torch.autograd.grad(torch.nn.functional.cross_entropy(users @ table.t(), mixed), (users, table))
    loss = full_softmax(users, table, target, lesson=lesson)
    torch.testing.assert_close(loss, full_softmax(users, table, target))
    for ours, theirs in zip(torch.autograd.grad(loss, (users, table)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_lesson_on_every_item_sampled_evenly_is_the_full_one() -> None:
    users, table, target = _problem()
    lesson = _lesson(users, table)
    every, even = torch.arange(len(table)), torch.full((len(table),), 0.5)
    sampled = torch.autograd.grad(sampled_softmax(users, table, target, every, even, lesson), (users, table))
    wanted = torch.autograd.grad(full_softmax(users, table, target, lesson=lesson), (users, table))
    for ours, theirs in zip(sampled, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
