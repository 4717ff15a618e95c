"""How an encoder grows while it is trained: its loss beside what its frozen features are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.checkpoints import load_encoder, read_card
from salt_plugin.errors import CheckpointError
from salt_plugin.evaluation.spectrum import effective_rank, spread
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.run_directory import RunDirectory

Score = Callable[[VideoEncoder], float]
Features = Callable[[VideoEncoder], Tensor]


class TrackPoint(NamedTuple):
    """One encoder of a run.

    Attributes:
        step: Optimiser steps done.
        loss: Training loss at that step, as on the encoder's card.
        accuracy: What the score gave.
        effective_rank: Of the features; see `spectrum.effective_rank`.
        spread: Of the features; see `spectrum.spread`.
    """

    step: int
    loss: float
    accuracy: float
    effective_rank: float
    spread: float


def kept_encoders(run: RunDirectory) -> dict[int, Path]:
    """Returns the encoders that a run kept, by step.

    Raises:
        ConfigError: The folder holds no run.
        CheckpointError: It kept none.
    """
    kept = run.result.kept_encoders()
    if not kept:
        raise CheckpointError(
            f"{run.result.encoders} holds no encoders: the run kept none on its way; train with "
            "method.encoders_every_n_steps=N"
        )
    return kept


def track(
    kept: Mapping[int, Path],
    score: Score,
    features: Features,
    device: str | torch.device = "cpu",
) -> Iterator[TrackPoint]:
    """Measures encoders one after the other.

    Args:
        kept: Encoder files by step, as `kept_encoders` gives them.
        score: Returns an encoder's accuracy.
        features: Returns an encoder's features, float [N, D].
        device: Where the encoders are put.

    Raises:
        CheckpointError: A file is damaged.
    """
    for step, path in kept.items():
        encoder = load_encoder(path, device)
        features_nd = features(encoder)
        yield TrackPoint(
            step=step,
            loss=read_card(path)["loss"],
            accuracy=score(encoder),
            effective_rank=effective_rank(features_nd),
            spread=spread(features_nd),
        )
