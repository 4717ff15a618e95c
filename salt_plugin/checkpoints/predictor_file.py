"""Predictor files: the weights of a student's predictor, and its card."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from salt_plugin.checkpoints.card_file import load_with_card, read_card_of, write_with_card
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import PredictorShape

PREDICTOR_FILE = "predictor.safetensors"


def save_predictor(
    predictor: Predictor, encoder: VideoEncoder, path: str | os.PathLike[str]
) -> None:
    """Writes a predictor and its card; a crash in between leaves no half file.

    Args:
        predictor: What to keep.
        encoder: Whose tokens it takes; the card holds its fingerprint.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
    """
    state = predictor.state_dict()
    card = {
        "format": 1,
        "kind": "predictor",
        "shape": asdict(predictor.shape),
        "context_dim": predictor.predictor_embed.in_features,
        "out_dim": predictor.predictor_proj.out_features,
        "fingerprint": fingerprint(state),
        "encoder_fingerprint": fingerprint(encoder.state_dict()),
    }
    write_with_card(Path(path), state, card)


def read_predictor_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the card of a predictor file.

    Raises:
        CheckpointError: The card is missing or no card of ours.
    """
    needed = ("context_dim", "out_dim", "encoder_fingerprint")
    return read_card_of(Path(path), "predictor", "dim", *needed)


def read_predictor(file: Path) -> Predictor:
    """Returns the predictor of a file that `save_predictor` wrote.

    Raises:
        CheckpointError: The file is foreign, incomplete or damaged.
    """
    card = read_predictor_card(file)
    build = partial(Predictor, card["context_dim"], card["out_dim"])
    return load_with_card(file, card, "predictor", PredictorShape, build)
