"""Softmax losses over a large catalogue, with their gradients computed chunk by chunk so that the logits stay in cache.

Products run in bfloat16 where the processor has it. The full softmax serves up to `FULL_SOFTMAX_ITEMS` items; above
that, shared negatives drawn from count^0.5 with the logQ correction (Bengio and Senecal 2008; Yi et al. 2019, equation
4). A teacher's softmax can take the place of a share of the target (Hinton et al. 2015, arXiv:1503.02531, section 2).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FULL_SOFTMAX_ITEMS", "TEACHER_SHARE", "Lesson", "full_softmax", "product_dtype", "sampled_softmax"]

FULL_SOFTMAX_ITEMS = 50_000
_CHUNK_ROWS = 128  # users whose logits are held at once; more leave the cache (3,416 items: 58 against 190 ms a batch)
_NEVER = -1e4  # logit of what is no candidate; minus infinity times a teacher's 0 would be no number
TEACHER_SHARE = 0.5  # of what a student is pulled to; the target that came next keeps the rest


@dataclass(frozen=True)
class Lesson:
    """What a teacher makes of the histories of a batch; no gradient goes through it.

    Attributes:
        users: Its scaled user vectors, shape (N, T).
        items: Its item vectors, shape (V, T), without the padding row.
    """

    users: Tensor
    items: Tensor


def product_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


class _ChunkedSoftmax(torch.autograd.Function):
    """Mean cross-entropy of users @ items.T; both gradients are made in the forward pass, where the logits are at
    hand. With a lesson they are those of the cross-entropy against the mixture of target and teacher."""

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, target: Tensor, dtype: torch.dtype, lesson: Lesson | None
    ) -> Tensor:
        count = len(users)
        table = items.to(dtype)
        columns = table.t().contiguous()
        d_users, d_items = torch.empty_like(users), torch.zeros_like(items)
        loss = torch.zeros((), device=users.device)
        rows = torch.arange(_CHUNK_ROWS, device=users.device)
        taught = None if lesson is None else lesson.items.to(dtype).t().contiguous()
        for start in range(0, count, _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            user = users[part].to(dtype)
            wanted = target[part, None]
            logits = user @ columns
            chance = torch.softmax(logits, 1)
            loss -= (chance.gather(1, wanted).float() + 1e-30).log().sum()
            share = 0.0
            if lesson is not None and taught is not None:
                share = TEACHER_SHARE
                chance.sub_(torch.softmax(lesson.users[part].to(dtype) @ taught, 1), alpha=share)
            chance[rows[: len(user)], wanted[:, 0]] -= 1 - share  # scatter_add_ would take as long as a product
            d_users[part] = (chance @ table).float()
            d_items += (chance.t() @ user).float()
        ctx.save_for_backward(d_users / count, d_items / count)
        return loss / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_users, d_items = ctx.saved_tensors
        return d_users * grads[0], d_items * grads[0], None, None, None


def full_softmax(
    users: Tensor, items: Tensor, target: Tensor, dtype: torch.dtype = torch.float32, lesson: Lesson | None = None
) -> Tensor:
    """Mean cross-entropy against every item.

    Args:
        users: Scaled user vectors, shape (N, D), float32.
        items: Item vectors, shape (V, D), float32, without the padding row.
        target: Row of `items` that came next, shape (N,), int64.
        dtype: Type of the products; sums and gradients are float32.
        lesson: Turns the gradient, not the value, into that of the cross-entropy against `TEACHER_SHARE` of the
            teacher's softmax and the rest of the target: so the value says the same with a teacher as without.

    Returns:
        A scalar in nats.
    """
    loss: Tensor = _ChunkedSoftmax.apply(users, items, target, dtype, lesson)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(
    users: Tensor,
    items: Tensor,
    target: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    lesson: Lesson | None = None,
) -> Tensor:
    """Mean cross-entropy of the target among shared negatives, corrected for how often each is drawn.

    Args:
        users: Scaled user vectors, shape (N, D).
        items: Item vectors, shape (V, D), without the padding row.
        target: Row of `items` that came next, shape (N,), int64.
        negatives: Rows drawn for the whole batch, shape (M,), int64.
        log_q: Logarithm of each item's drawing probability, shape (V,).
        lesson: What takes `TEACHER_SHARE` of the target's place: the teacher's softmax over the same candidates.

    Returns:
        A scalar in nats.
    """
    logits = _among(users, items, target, negatives, log_q)
    first = target.new_zeros(len(target))
    if lesson is None:
        return functional.cross_entropy(logits, first)
    taught = torch.softmax(_among(lesson.users, lesson.items, target, negatives, log_q), 1)
    wanted = functional.one_hot(first, logits.shape[1])
    return functional.cross_entropy(logits, torch.lerp(wanted.to(taught.dtype), taught, TEACHER_SHARE))


def _among(users: Tensor, items: Tensor, target: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    """Corrected logits of the target, first, and of the negatives, shape (N, 1 + M)."""
    wanted = (users * items[target]).sum(1) - log_q[target]
    others = users @ items[negatives].t() - log_q[negatives]
    others = others.masked_fill(negatives[None, :] == target[:, None], _NEVER)
    return torch.cat([wanted[:, None], others], 1)
