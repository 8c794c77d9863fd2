"""The hand-written train step against torch's gradients of the same loss, for every parameter and architecture."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hushrec import ort
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.user_sequences import UserBatch
from hushrec_model.user_step import GROUPS, Candidates, UserStep
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.train_graph import build_train_step
from numpy.typing import NDArray

from tests.encoder_reference import random_encoder
from tests.planted import small_model

ITEMS = 60
SHAPES = {
    "one layer": EncoderShape((2,), (176,), 50),
    "two layers": EncoderShape((2, 2), (176, 176), 50),
    "pruned unevenly, behaviours": EncoderShape((1, 3), (20, 75), 12, behaviors=3),
    "behaviours": EncoderShape((1,), (16,), 12, behaviors=2),
    "long histories": EncoderShape((2, 1), (64, 32), 200),
}
Floats = NDArray[np.float32]
History = tuple[list[int], list[int]]


def model_of(shape: EncoderShape) -> Model:
    made = small_model(ITEMS, shape)
    for weight in made.parameters():
        weight.requires_grad_(True)
    return made


def histories_of(shape: EncoderShape, lengths: list[int]) -> list[History]:
    """Items with repeats inside and between histories, one event longer than the encoder reads."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(1, ITEMS // 2, n + 1).tolist(), rng.integers(0, shape.behaviors, n).tolist()) for n in lengths
    ]


def by_torch(model: Model, histories: list[History], against: Candidates) -> dict[str, Floats]:
    """The mean loss over all positions of all histories, one history after the other; item rows by item."""
    step = UserStep(model, GROUPS, 1.0)
    raw = torch.cat([torch.zeros(1, 64), model.items.id.weight.detach()])
    total = sum(len(items) - 1 for items, _ in histories)
    copied, rows = copy.deepcopy(model), torch.zeros(ITEMS + 1, 64)
    for weight in copied.parameters():
        weight.data.zero_()
    for items, behaviors in histories:
        batch = UserBatch(torch.tensor([items]), torch.tensor([behaviors]), torch.ones(1, len(items) - 1).bool())
        share = (len(items) - 1) / total
        found = step.gradients(batch, against, raw)
        for name, weight in copied.named_parameters():
            if name in found.weights:
                weight.data += share * found.weights[name][0]
        rows.index_add_(0, against.items, share * found.shared[0])
        rows.index_add_(0, batch.items[0], share * found.own[0])
    return {**encoder_weights(copied).arrays(), "rows": rows.numpy()}


def by_graph(folder: Path, model: Model, histories: list[History], against: Candidates) -> dict[str, Floats]:
    weights = encoder_weights(model)
    (folder / "train_step.onnx").write_bytes(build_train_step(weights))
    session = ort.open_session(folder / "train_step.onnx")
    feed, order = fed(model, histories, against)
    found = dict(zip([out.name for out in session.get_outputs()], session.run(None, feed), strict=True))
    rows = np.zeros((ITEMS + 1, 64), np.float32)
    rows[order] = found["d.rows"]
    return {**{name: found[f"d.{name}"] for name in weights.arrays()}, "rows": rows, "loss": found["loss"]}


def fed(model: Model, histories: list[History], against: Candidates) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """What the graph is given, and the item of each row."""
    weights, candidates = encoder_weights(model), against.items.numpy()
    own = np.unique(np.concatenate([items for items, _ in histories]))
    order = np.concatenate([candidates, np.setdiff1d(own, candidates)])
    place = np.zeros(ITEMS + 1, np.int64)
    place[order] = np.arange(len(order))
    longest, total = max(len(kinds) for _, kinds in histories), sum(len(kinds) for _, kinds in histories)
    slots, kinds = np.zeros((len(histories), longest + 1), np.int64), np.zeros((len(histories), longest), np.int64)
    shares, offset = np.zeros((len(histories), longest), np.float32), against.offset.numpy()
    for row, (items, behaviors) in enumerate(histories):
        slots[row, : len(items)], kinds[row, : len(behaviors)] = place[items], behaviors
        shares[row, : len(behaviors)] = 1 / total
    feed = {
        "rows": model.items.id.weight.detach().numpy()[order - 1],
        "slots": slots,
        "shares": shares,
        "target_offset": offset[order[slots[:, 1:]]],
        "candidate_offset": offset[candidates] + np.float32(np.log(max(1, (ITEMS - 1) / len(candidates)))),
        **weights.arrays(),
    }
    return feed | ({} if weights.behaviors is None else {"behaviors": kinds}), order


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lengths", [[1], [3], ["full"], ["full", 1, 4, "full"]], ids=str)
@pytest.mark.parametrize("candidates", [20, ITEMS])
def test_every_gradient_is_that_of_torch(shape: str, lengths: list[Any], candidates: int, tmp_path: Path) -> None:
    sizes = SHAPES[shape]
    model = model_of(sizes)
    with torch.no_grad():
        model.items.id.weight.div_(torch.linalg.vector_norm(model.items.id.weight, dim=1, keepdim=True))
    histories = histories_of(sizes, [sizes.max_history if n == "full" else n for n in lengths])
    offset = torch.linspace(-1, 1, ITEMS + 1)
    against = Candidates.draw(candidates, offset, torch.Generator().manual_seed(1))
    expected, found = by_torch(model, histories, against), by_graph(tmp_path, model, histories, against)
    for name, array in expected.items():
        assert np.abs(found[name].reshape(array.shape) - array).max() <= 1e-5, name
        alone = lengths == [1] and name.endswith("bias") and "norm" not in name  # attention has nothing to choose from
        assert alone or np.abs(array).max() > 1e-4, f"{name}: no gradient to compare"


def test_the_graph_depends_on_the_shape_and_not_on_the_weights() -> None:
    assert build_train_step(random_encoder(1)) == build_train_step(random_encoder(2))
    others: list[dict[str, Any]] = [
        {"heads": (1, 2)},
        {"channels": (176, 64)},
        {"max_history": 40},
        {"behaviors": 2},
        {"behaviors": 3},
    ]
    assert len({build_train_step(random_encoder(**shape)) for shape in (*others, {})}) == 6


def test_a_row_without_a_length_of_its_own_is_taken_as_it_is(tmp_path: Path) -> None:
    """Its gradient is that of a plain product with the users that were asked for it, and nothing is divided by 0."""
    model = model_of(SHAPES["behaviours"])
    with torch.no_grad():
        model.items.id.weight.div_(torch.linalg.vector_norm(model.items.id.weight, dim=1, keepdim=True))
        model.items.id.weight[4] = 0
    histories = [([1, 5, 3], [0, 1])]
    against = Candidates(torch.tensor([2, 3, 9]), torch.zeros(ITEMS + 1))
    seen = by_graph(tmp_path, model, histories, against)
    assert all(np.isfinite(array).all() for array in seen.values())
    rate = 1e-3
    with torch.no_grad():
        model.items.id.weight[4] -= rate * torch.from_numpy(seen["rows"][5])
    after = by_graph(tmp_path, model, [([1, 5], [0])], against)["loss"]
    with torch.no_grad():
        model.items.id.weight[4] = 0
    before = by_graph(tmp_path, model, [([1, 5], [0])], against)["loss"]
    asked = by_graph(tmp_path, model, [([1, 5], [0])], against)["rows"][5]
    np.testing.assert_allclose(2 * seen["rows"][5], asked, atol=1e-5)  # one of two positions asks for it
    np.testing.assert_allclose((before - after) / rate, seen["rows"][5] @ asked, rtol=0.02)


def test_a_score_that_is_beaten_by_far_keeps_loss_and_gradients_finite(tmp_path: Path) -> None:
    model = model_of(SHAPES["behaviours"])
    with torch.no_grad():
        model.encoder.scale.weight.fill_(500)
    found = by_graph(
        tmp_path, model, [([1, 5, 3, 1], [0, 1, 0])], Candidates(torch.arange(2, 50), torch.zeros(ITEMS + 1))
    )
    assert all(np.isfinite(array).all() for array in found.values())
    assert found["loss"][0] > 20
