"""Files of this package: weights as safetensors, and a card in JSON that describes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from salt_plugin.checkpoints.safetensors_file import read_safetensors, write_safetensors
from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json, write_json
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.head import Head
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import EncoderShape, HeadShape, PredictorShape, as_dict

ENCODER_FILE = "encoder.safetensors"
PREDICTOR_FILE = "predictor.safetensors"
HEAD_FILE = "head.safetensors"

Module = TypeVar("Module", bound=nn.Module)


def save_encoder(encoder: VideoEncoder, path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes an encoder and its card; a crash in between leaves no half file.

    Args:
        encoder: What to keep.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
        card: What else to tell; shape and fingerprint are added.
    """
    _save(encoder, Path(path), card)


def save_predictor(
    predictor: Predictor, encoder: VideoEncoder, path: str | os.PathLike[str]
) -> None:
    """Writes a predictor and its card; a crash in between leaves no half file.

    Args:
        predictor: What to keep.
        encoder: Whose tokens it takes; the card holds its fingerprint.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
    """
    card = {
        "kind": "predictor",
        "context_dim": predictor.predictor_embed.in_features,
        "out_dim": predictor.predictor_proj.out_features,
        "encoder_fingerprint": fingerprint(encoder.state_dict()),
    }
    _save(predictor, Path(path), card)


def save_head(head: Head, encoder: VideoEncoder, path: str | os.PathLike[str]) -> None:
    """Writes the classifier on an encoder and its card; a crash in between leaves no half file.

    Args:
        head: What to keep.
        encoder: Whose tokens it reads; the card holds its shape and fingerprint.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
    """
    card = {
        "kind": "head",
        "encoder": as_dict(encoder.shape),
        "names": head.names,
        "encoder_fingerprint": fingerprint(encoder.state_dict()),
    }
    _save(head, Path(path), card)


def _save(model: VideoEncoder | Predictor | Head, path: Path, card: dict[str, Any]) -> None:
    """Writes the card, then the weights."""
    state = model.state_dict()
    full = {"format": 1, "shape": as_dict(model.shape), "fingerprint": fingerprint(state), **card}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), full)
    write_safetensors(path, state)


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the card of an encoder file.

    Raises:
        CheckpointError: The card is missing or no card of ours.
    """
    return _card(Path(path), "encoder", "embed_dim")


def read_predictor_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the card of a predictor file.

    Raises:
        CheckpointError: The card is missing or no card of ours.
    """
    return _card(Path(path), "predictor", "dim", "context_dim", "out_dim", "encoder_fingerprint")


def _card(path: Path, kind: str, width: str, *needed: str) -> dict[str, Any]:
    """Returns the card beside a file, which has a key for the width in its shape, and others."""
    card_path = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not card_path.is_file():
        raise CheckpointError(
            f"{path} is no {kind} file of this package: expected a .safetensors file with "
            f"{card_path.name} beside it; copy both, or name a run directory. V-JEPA 2's own files "
            "are known by .pt, .pth or .tar, Hugging Face's by config.json beside them"
        )
    try:
        card = read_json(card_path)
        card["shape"][width]
        for key in ("fingerprint", *needed):
            card[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{card_path} is no {kind} card ({type(error).__name__}: {error}); copy it again from "
            "the run that wrote it"
        ) from None
    return card


def read_encoder(file: Path) -> VideoEncoder:
    """Returns the encoder of a file that `save_encoder` wrote.

    Raises:
        CheckpointError: The file is foreign, incomplete or damaged.
    """
    card = read_card(file)
    return _load(file, card, "encoder", lambda: VideoEncoder(EncoderShape(**card["shape"])))


def read_predictor(file: Path) -> Predictor:
    """Returns the predictor of a file that `save_predictor` wrote.

    Raises:
        CheckpointError: The file is foreign, incomplete or damaged.
    """
    card = read_predictor_card(file)
    widths = card["context_dim"], card["out_dim"]
    return _load(
        file, card, "predictor", lambda: Predictor(*widths, PredictorShape(**card["shape"]))
    )


def read_head(file: Path) -> Head:
    """Returns the classifier of a file that `save_head` wrote.

    Raises:
        CheckpointError: The file is foreign, incomplete or damaged.
    """
    card = _card(file, "head", "pool", "encoder", "names", "encoder_fingerprint")
    encoder, shape = EncoderShape(**card["encoder"]), HeadShape(**card["shape"])
    return _load(file, card, "head", lambda: Head(encoder, shape, card["names"]))


def _load(file: Path, card: dict[str, Any], kind: str, build: Callable[[], Module]) -> Module:
    """Returns the model of a file, checked by key, shape and fingerprint."""
    state = read_safetensors(file)
    module = load_strictly(build, state, file, kind)
    if fingerprint(state) != card["fingerprint"]:
        raise CheckpointError(
            f"{file} does not match the fingerprint in {file.with_suffix('.json').name}: damaged, "
            "or the two come from different runs; copy both again"
        )
    return module
