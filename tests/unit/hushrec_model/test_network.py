"""The encoder: causal, unchanged by padding, an identity adapter, user vectors of the learned length."""

import pytest
import torch
from hushrec_model.network import Encoder, EncoderShape
from torch import Tensor


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(EncoderShape(behaviors=3)).eval()
    for block in encoder.layers:
        torch.nn.init.normal_(block.distance.weight)
    return encoder


def _vectors(batch: int, length: int, seed: int = 0) -> Tensor:
    made = torch.randn(batch, length, 64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=-1)


def test_a_later_event_never_changes_an_earlier_user_vector(encoder: Encoder) -> None:
    vectors, behaviors = _vectors(2, 7), torch.zeros(2, 7, dtype=torch.int64)
    before = encoder(vectors, behaviors)
    changed = vectors.clone()
    changed[:, 5:] = _vectors(2, 2, seed=9)
    after = encoder(changed, behaviors)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_an_earlier_event_does_change_a_later_user_vector(encoder: Encoder) -> None:
    vectors, behaviors = _vectors(1, 4), torch.zeros(1, 4, dtype=torch.int64)
    changed = vectors.clone()
    changed[:, 0] = _vectors(1, 1, seed=5)[:, 0]
    assert not torch.allclose(encoder(vectors, behaviors)[:, 3], encoder(changed, behaviors)[:, 3], atol=1e-4)


def test_padding_on_the_right_changes_nothing_before_it(encoder: Encoder) -> None:
    vectors, behaviors = _vectors(3, 4), torch.ones(3, 4, dtype=torch.int64)
    padded = torch.cat([vectors, torch.zeros(3, 6, 64)], 1)
    longer = encoder(padded, torch.cat([behaviors, torch.zeros(3, 6, dtype=torch.int64)], 1))
    torch.testing.assert_close(encoder(vectors, behaviors), longer[:, :4])


def test_the_behaviour_of_an_event_matters(encoder: Encoder) -> None:
    vectors = _vectors(1, 3)
    viewed, bought = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[0, 0, 2]])
    assert not torch.allclose(encoder(vectors, viewed)[:, 2], encoder(vectors, bought)[:, 2], atol=1e-4)


def test_every_user_vector_has_the_length_of_the_scale(encoder: Encoder) -> None:
    lengths = encoder(_vectors(2, 5), torch.zeros(2, 5, dtype=torch.int64)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full((2, 5), 20.0))


def test_the_adapter_starts_as_the_identity_and_is_not_trained_centrally(encoder: Encoder) -> None:
    vectors, behaviors = _vectors(1, 3), torch.zeros(1, 3, dtype=torch.int64)
    before = encoder(vectors, behaviors)
    torch.nn.init.normal_(encoder.adapter_down.weight)
    torch.testing.assert_close(before, encoder(vectors, behaviors))
    assert not encoder.adapter_up.weight.requires_grad
    torch.nn.init.normal_(encoder.adapter_up.weight)
    assert not torch.allclose(before, encoder(vectors, behaviors), atol=1e-3)


def test_the_distance_between_two_events_moves_the_attention(encoder: Encoder) -> None:
    vectors = _vectors(1, 2)
    gap = torch.cat([vectors[:, :1], _vectors(1, 3, seed=3), vectors[:, 1:]], 1)
    near = encoder(vectors, torch.zeros(1, 2, dtype=torch.int64))[:, -1]
    far = encoder(gap, torch.zeros(1, 5, dtype=torch.int64))[:, -1]
    assert not torch.allclose(near, far, atol=1e-4)
