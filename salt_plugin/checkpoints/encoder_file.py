"""Encoder files: the weights of an encoder, and its card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from salt_plugin.checkpoints.card_file import load_with_card, read_card_of, write_with_card
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import EncoderShape

ENCODER_FILE = "encoder.safetensors"


def save_encoder(encoder: VideoEncoder, path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes an encoder and its card; a crash in between leaves no half file.

    Args:
        encoder: What to keep.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
        card: What else to tell; shape and fingerprint are added.
    """
    state = encoder.state_dict()
    about = {"shape": encoder.shape.as_dict(), "fingerprint": fingerprint(state)}
    write_with_card(Path(path), state, {"format": 1, **about, **card})


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the card of an encoder file.

    Raises:
        CheckpointError: The card is missing or no card of ours.
    """
    return read_card_of(Path(path), "encoder", "embed_dim")


def read_encoder(file: Path) -> VideoEncoder:
    """Returns the encoder of a file that `save_encoder` wrote.

    Raises:
        CheckpointError: The file is foreign, incomplete or damaged.
    """
    return load_with_card(file, read_card(file), "encoder", EncoderShape, VideoEncoder)
