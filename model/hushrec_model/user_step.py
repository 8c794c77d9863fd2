"""The train step under user-level privacy: each user's gradient apart, clipped as a whole, summed.

Gradients are taken by `torch.func.vmap(grad)` with respect to the trained weights of the encoder and the *gathered*
item vectors, never the whole table: a user's own items, each once, and the candidates that the step scores against,
which are drawn from the catalogue without looking at any user. The norm is that of the whole gradient (flat clipping,
Abadi et al. 2016, arXiv:1607.00133, Algorithm 1), with an item that is both history and candidate counted once. Adds no
noise (see `private_optimizer.py`).

A user's loss is the mean over its positions, not the sum: clipping bounds either, but with a mean long and short
histories come out near the same norm, so one bound fits both.

Shapes: B users, L positions, K = L + 1 history slots, M candidates, D width, V items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from hushrec_privacy import checks
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hushrec_model.content_gradients import content_maps
from hushrec_model.model import Model
from hushrec_model.network import Encoder
from hushrec_model.user_sequences import UserBatch, UserSequences

__all__ = ["GROUPS", "Candidates", "UserGradients", "UserStep", "Weights", "trained_weights"]

GROUPS = ("adapter", "encoder", "features", "rows")
_MARGIN = 1e-6  # what float32 may add to a norm, taken off beforehand
_BYTES_AT_ONCE = 2**24  # of per-user gradients: more leave the cache (2,048 candidates: 2.2 against 3.9 ms a user)
_USERS_AT_ONCE = 64

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Candidates:
    """The items that one step scores every user against.

    Attributes:
        items: Distinct items, rising, 1 to V, shape (M,), int64.
        offset: Added to the score of an item when training: what is known of it already, shape (V + 1,).
    """

    items: Tensor
    offset: Tensor

    @classmethod
    def draw(cls, count: int, offset: Tensor, generator: torch.Generator) -> "Candidates":
        """Uniformly from the catalogue, without repeats; the whole catalogue if it is no larger.

        Args:
            count: M at most.
            offset: Shape (V + 1,); public, or released under its own guarantee.
            generator: May be seeded: nothing secret depends on which items these are.
        """
        items = len(offset) - 1
        if items <= count:
            return cls(torch.arange(1, items + 1), offset)
        return cls(1 + torch.randperm(items, generator=generator)[:count].sort().values, offset)


@dataclass
class UserGradients:
    """The gradients of B users, item vectors row by row.

    Attributes:
        weights: Of encoder and content tables by their names in the model, shape (B, ...) each.
        candidates: Item of each shared row, shape (M,).
        shared: Gradient of the shared rows, shape (B, M, D).
        items: Item of each history slot, shape (B, K).
        own: Gradient of the slots, shape (B, K, D); zero where an item is among the candidates or comes again.
        rows: Whether `shared` and `own` belong to a table that is trained.
    """

    weights: Weights
    candidates: Tensor
    shared: Tensor
    items: Tensor
    own: Tensor
    rows: bool = True
    _parts: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._parts = [*self.weights.values(), *((self.shared, self.own) if self.rows else ())]

    def norms(self) -> Tensor:
        """L2 norm of each user's whole gradient, shape (B,), float64; infinite or NaN if a part of it is."""
        users = len(self.own)
        flat = [part.reshape(users, -1) for part in self._parts]
        squares = [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64).square() for part in flat]
        return torch.stack(squares).sum(0).sqrt()

    def add_to(self, sums: Weights, shares: Tensor) -> None:
        """Add every user's gradient times its share, shape (B,); a share of 0 adds nothing, not even NaN."""
        left_out = shares == 0
        if bool(left_out.any()):
            for part in self._parts:
                part[left_out] = 0
        for name, part in self.weights.items():
            sums[name] += torch.tensordot(shares, part.double(), 1)
        if self.rows:
            table = sums["items.id.weight"]
            table.index_add_(0, self.candidates - 1, torch.tensordot(shares, self.shared.double(), 1).to(table.dtype))
            own = (self.own * shares[:, None, None]).flatten(0, 1)
            used = self.items.flatten() > 0
            table.index_add_(0, self.items.flatten()[used] - 1, own[used].to(table.dtype))


def trained_weights(model: Model, groups: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """The parameters of some groups, by name; all others stop to be trained.

    Args:
        model: Changed: `requires_grad` of every parameter.
        groups: Some of `GROUPS`: the adapter; the encoder without it; the tables of attributes, words, prices, vectors
            and behaviours; the item rows.

    Raises:
        ConfigError: An unknown group.
    """
    for group in groups:
        checks.one_of(GROUPS, group=group)
    found = {}
    for name, weight in model.named_parameters():
        chosen = _group(name) in groups
        weight.requires_grad_(chosen)
        if chosen:
            found[name] = weight
    return found


class UserStep:
    """Sums clipped gradients of users.

    Args:
        model: Its weights are read at every call; dropout must be 0.
        groups: What is trained, see `trained_weights`.
        max_grad_norm: C, what one user adds at most, in L2 over all trained parts together.

    Raises:
        ConfigError: C is not a finite number above 0, or a group is unknown.
    """

    def __init__(self, model: Model, groups: tuple[str, ...], max_grad_norm: float) -> None:
        checks.positive(max_grad_norm=max_grad_norm)
        self.model, self.max_grad_norm = model, max_grad_norm
        self.weights = trained_weights(model, groups)
        self._maps = {f"items.{name}": part for name, part in content_maps(model.items).items()}
        self._maps = {name: part for name, part in self._maps.items() if name in self.weights}
        self._rows = "items.id.weight" in self.weights
        prefix = "encoder."
        self._encoder = [name.removeprefix(prefix) for name in self.weights if name.startswith(prefix)]

    def gradients(self, batch: UserBatch, candidates: Candidates, raw: Tensor) -> UserGradients:
        """The gradients of some users, not clipped.

        Args:
            batch: The users.
            candidates: What they are scored against.
            raw: Item vectors before they are made unit length, shape (V + 1, D), row 0 zeros.
        """
        slot = _first_equal(batch.items)
        of_all = dict(self.model.encoder.named_parameters())
        weights = {name: of_all[name].detach() for name in self._encoder}
        one = torch.func.grad(_loss_of(self.model.encoder, candidates), argnums=(0, 1, 2))
        inputs = (batch.items, slot, batch.behaviors, batch.asked)
        found, own, shared = torch.func.vmap(one, in_dims=(None, 0, None, 0))(
            weights, raw[batch.items], raw[candidates.items], inputs
        )
        place = torch.searchsorted(candidates.items, batch.items).clamp_(max=len(candidates.items) - 1)
        both = (candidates.items[place] == batch.items)[:, :, None]
        shared.scatter_add_(1, place[:, :, None].expand_as(own), own * both)
        own = own * ~both
        of_weights = {f"encoder.{name}": grad for name, grad in found.items()}
        if self._maps:
            items = torch.cat([candidates.items.expand(len(own), -1), batch.items], 1)
            rows = torch.cat([shared, own], 1)
            of_weights |= {name: part.gradients(items, rows) for name, part in self._maps.items()}
        return UserGradients(of_weights, candidates.items, shared, batch.items, own, self._rows)

    def clipped_sum(self, users: NDArray[np.int64], sequences: UserSequences, candidates: Candidates) -> Weights:
        """Sum of the users' gradients, each scaled down until its norm is at most C.

        Guarantee:
            Adding or removing a user moves the sum by at most C in L2, over all parameters together, if every other
            user's gradient stays the same to its last bit; sums are in float64. It need not: gradients of a group are
            computed together in float32, so their last bits (about 1e-6 of C) can depend on who else is in the step. A
            user whose gradient is infinite or not a number adds nothing.

        Args:
            users: Which, shape (B,); may be empty.
            sequences: Their samples.
            candidates: Drawn once for the step.

        Returns:
            One tensor a trained parameter, of its shape, float64. Private until noise is added.
        """
        sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in self.weights.items()}
        with torch.no_grad():
            raw = self.model.items.raw()
        for group in self._groups(users, sequences, candidates):
            found = self.gradients(sequences.batch(group), candidates, raw)
            norms = found.norms() * (1 + _MARGIN)
            shares = (self.max_grad_norm / norms.clamp(min=self.max_grad_norm)).where(norms.isfinite(), 0.0)
            found.add_to(sums, shares)
        return sums

    def _groups(
        self, users: NDArray[np.int64], sequences: UserSequences, candidates: Candidates
    ) -> Iterator[NDArray[np.int64]]:
        """Users of like length together, as many as the memory for their gradients allows."""
        of_encoder = sum(self.weights[name].numel() for name in self.weights if name != "items.id.weight")
        a_user = 4 * (of_encoder + len(candidates.items) * self.model.encoder.shape.width)
        size = max(1, min(_USERS_AT_ONCE, _BYTES_AT_ONCE // a_user))
        users = users[np.argsort(sequences.length[users], kind="stable")]
        for first in range(0, len(users), size):
            yield users[first : first + size]


def _group(name: str) -> str:
    if name == "items.id.weight":
        return "rows"
    if name.startswith(("items.", "encoder.behavior.")):
        return "features"
    return "adapter" if name.startswith("encoder.adapter_") else "encoder"


def _first_equal(items: Tensor) -> Tensor:
    """For each slot the first slot with the same item, shape (B, K): the one that gathers all its gradient."""
    return (items[:, :, None] == items[:, None, :]).int().argmax(2)


def _loss_of(
    encoder: Encoder, candidates: Candidates
) -> Callable[[Weights, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]], Tensor]:
    """The loss of one user: mean cross-entropy of each next item against the candidates, in nats.

    The candidates stand for the whole catalogue: drawn uniformly, each counts (V - 1) / M times.
    """
    items, offset = candidates.items, candidates.offset
    known = offset[items] + np.log(max(1.0, (len(offset) - 2) / len(items)))

    def loss(weights: Weights, own: Tensor, shared: Tensor, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        sequence, slot, behaviors, asked = inputs
        vectors = functional.normalize(own, dim=1, eps=1e-6)[slot]
        call = (vectors[None, :-1], behaviors[None])
        user: Tensor = torch.func.functional_call(encoder, weights, call)[0]
        target = sequence[1:]
        wanted = (user * vectors[1:]).sum(1) + offset[target]
        others = user @ functional.normalize(shared, dim=1, eps=1e-6).t() + known
        others = others.masked_fill(items == target[:, None], float("-inf"))
        surprise = torch.logaddexp(wanted, torch.logsumexp(others, 1)) - wanted
        return torch.where(asked, surprise, 0.0).sum() / asked.sum().clamp(min=1)

    return loss
