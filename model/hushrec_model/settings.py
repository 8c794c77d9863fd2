"""How a shop's model is trained: defaults for all shops, and the few choices that its data decides by a printed
rule."""

from dataclasses import dataclass

import numpy as np

from hushrec_model.network import EncoderShape
from hushrec_model.splits import Split

__all__ = ["Settings", "decide"]

_LONG_MEDIAN = 40  # events; above it histories of 200 pay (ML-1M: .327 against .320 HR@10), and a second layer
_STEPS = {False: 1_650, True: 2_500}  # optimiser steps to aim for, by whether histories are long
_EPOCHS = (3, 12)


@dataclass(frozen=True)
class Settings:
    """Everything that shapes one training run, besides data and time limit.

    Attributes:
        shape: Sizes of the encoder.
        tokens: Positions a batch.
        epochs: Passes over the data; the learning rate falls to 0 at the end of the last one.
        learning_rate: Highest learning rate of AdamW.
        dropout: Of input and branches.
        attention_dropout: Of attention weights.
        id_dropout: Share of ID rows that a step does without.
        seed: Of initial weights, order and dropout; never of anything that protects a shopper.
        patience: Epochs without a better validation NDCG@10 before training stops.
        teacher_epochs: Passes over the data of the teacher that is trained first; 0: no teacher.
    """

    shape: EncoderShape
    tokens: int = 1536
    epochs: int = 12
    learning_rate: float = 5e-3
    dropout: float = 0.2
    attention_dropout: float = 0.1
    id_dropout: float = 0.3
    seed: int = 0
    patience: int = 3
    teacher_epochs: int = 0


def decide(split: Split, behaviors: int, seed: int = 0, *, teacher: bool = True) -> tuple[Settings, list[str]]:
    """Choose what differs between shops from the training data.

    Args:
        split: The shop's data.
        behaviors: How many behaviours it knows.
        seed: Passed on.
        teacher: Train a teacher first.

    Returns:
        The settings, and one line for each choice that says why.
    """
    lengths = np.diff(split.train.offsets)
    median = float(np.median(lengths)) if len(lengths) else 0.0
    targets = int(np.maximum(lengths - 1, 0).sum())
    long = median >= _LONG_MEDIAN
    layers = 2 if long else 1
    tokens = 4000 if long else 1536
    epochs = int(np.clip(round(_STEPS[long] * tokens / max(targets, 1)), *_EPOCHS))
    settings = Settings(
        shape=EncoderShape((2,) * layers, (176,) * layers, 200 if long else 50, behaviors),
        tokens=tokens,
        epochs=epochs,
        learning_rate=4e-3 if long else 5e-3,
        dropout=0.1 if long else 0.2,
        seed=seed,
        teacher_epochs=epochs if teacher else 0,
    )
    lines = [
        f"history {settings.shape.max_history}: the median training sequence has {median:.0f} events "
        f"({'at least' if long else 'under'} {_LONG_MEDIAN}); with it come {layers} layer{'s' * (layers > 1)}, "
        f"dropout {settings.dropout} and batches of {tokens} positions",
        f"{epochs} epochs: about {_STEPS[long]:,} steps, but {_EPOCHS[0]} to {_EPOCHS[1]} epochs",
    ]
    if teacher:
        lines.append(f"a teacher of the same size is trained first, {settings.teacher_epochs} epochs")
    return settings, lines
