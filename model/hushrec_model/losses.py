"""Softmax losses over a large catalogue, with their gradients computed chunk by chunk so that the logits stay in cache.

Products run in bfloat16 where the processor has it. The full softmax serves up to `FULL_SOFTMAX_ITEMS` items; above
that, shared negatives drawn from count^0.5 with the logQ correction (Bengio and Senecal 2008; Yi et al. 2019, equation
4).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FULL_SOFTMAX_ITEMS", "full_softmax", "product_dtype", "sampled_softmax"]

FULL_SOFTMAX_ITEMS = 50_000
_CHUNK_ROWS = 128  # users whose logits are held at once; more leave the cache (3,416 items: 58 against 190 ms a batch)


def product_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


class _ChunkedSoftmax(torch.autograd.Function):
    """Mean cross-entropy of users @ items.T; both gradients are made in the forward pass, where the logits are at
    hand."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
        count = len(users)
        table = items.to(dtype)
        columns = table.t().contiguous()
        d_users, d_items = torch.empty_like(users), torch.zeros_like(items)
        loss = torch.zeros((), device=users.device)
        rows = torch.arange(_CHUNK_ROWS, device=users.device)
        for start in range(0, count, _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            user = users[part].to(dtype)
            wanted = target[part, None]
            logits = user @ columns
            chance = torch.softmax(logits, 1)
            loss -= (chance.gather(1, wanted).float() + 1e-30).log().sum()
            chance[rows[: len(user)], wanted[:, 0]] -= 1  # scatter_add_ would take as long as a product
            d_users[part] = (chance @ table).float()
            d_items += (chance.t() @ user).float()
        ctx.save_for_backward(d_users / count, d_items / count)
        return loss / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_users, d_items = ctx.saved_tensors
        return d_users * grads[0], d_items * grads[0], None, None


def full_softmax(users: Tensor, items: Tensor, target: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Mean cross-entropy against every item.

    Args:
        users: Scaled user vectors, shape (N, D), float32.
        items: Item vectors, shape (V, D), float32, without the padding row.
        target: Row of `items` that came next, shape (N,), int64.
        dtype: Type of the products; sums and gradients are float32.

    Returns:
        A scalar in nats.
    """
    loss: Tensor = _ChunkedSoftmax.apply(users, items, target, dtype)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(users: Tensor, items: Tensor, target: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    """Mean cross-entropy of the target among shared negatives, corrected for how often each is drawn.

    Args:
        users: Scaled user vectors, shape (N, D).
        items: Item vectors, shape (V, D), without the padding row.
        target: Row of `items` that came next, shape (N,), int64.
        negatives: Rows drawn for the whole batch, shape (M,), int64.
        log_q: Logarithm of each item's drawing probability, shape (V,).

    Returns:
        A scalar in nats.
    """
    wanted = (users * items[target]).sum(1) - log_q[target]
    others = users @ items[negatives].t() - log_q[negatives]
    others = others.masked_fill(negatives[None, :] == target[:, None], float("-inf"))
    return functional.cross_entropy(torch.cat([wanted[:, None], others], 1), target.new_zeros(len(target)))
