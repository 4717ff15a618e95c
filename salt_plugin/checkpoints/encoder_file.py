"""Encoder files: weights as safetensors, with a JSON card beside them that tells what they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import EncoderShape

ENCODER_FILE = "encoder.safetensors"
STUDENT_FIRST = ("student", "teacher")
TEACHER_FIRST = ("teacher", "student")


def save_encoder(encoder: VideoEncoder, path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Writes an encoder and its card; a crash in between leaves no half file.

    Args:
        encoder: What to keep.
        path: Where, ending in `.safetensors`; the card gets the same name with `.json`.
        card: What else to tell; shape and fingerprint are added.
    """
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    full = {"format": 1, "shape": asdict(encoder.shape), "fingerprint": fingerprint(state), **card}
    weights = Path(path)
    card_path, unfinished = weights.with_suffix(".json"), weights.with_suffix(".tmp")
    weights.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(full, indent=2) + "\n")
    os.replace(unfinished, card_path)
    save_file(state, unfinished)
    shutil.copymode(card_path, unfinished)  # safetensors makes files for the owner alone
    os.replace(unfinished, weights)


def find_encoder(path: str | os.PathLike[str], order: Sequence[str] = STUDENT_FIRST) -> Path:
    """Returns the encoder file that a path names.

    Args:
        path: An encoder file, a run directory, or a stage's folder in one.
        order: Which stage of a run directory to prefer.

    Raises:
        CheckpointError: There is none.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return given
    places = [given / ENCODER_FILE, *(given / stage / ENCODER_FILE for stage in order)]
    for place in places:
        if place.is_file():
            return place
    what = "holds no finished encoder" if given.is_dir() else "does not exist"
    raise CheckpointError(
        f"{given} {what}; expected an encoder file, or a run directory with one of "
        + ", ".join(str(place.relative_to(given)) for place in places)
    )


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the card of an encoder file.

    Raises:
        CheckpointError: The card is missing or no card of ours.
    """
    card_path = Path(path).with_suffix(".json")
    if Path(path).suffix != ".safetensors" or not card_path.is_file():
        raise CheckpointError(
            f"{path} is no encoder file of this package: expected a .safetensors file with "
            f"{card_path.name} beside it; copy both, or name a run directory"
        )
    try:
        card = json.loads(card_path.read_text())
        card["shape"]["embed_dim"], card["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{card_path} is no encoder card ({type(error).__name__}: {error}); copy it again from "
            "the run that wrote it"
        ) from None
    return card


def load_encoder(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    order: Sequence[str] = STUDENT_FIRST,
) -> VideoEncoder:
    """Loads an encoder for use on clips [B, C, T, H, W]; it gives tokens [B, N, D].

    Args:
        path: A run directory (its student, or else its teacher) or an encoder file.
        device: Where to put it.
        order: Which stage of a run directory to prefer.

    Returns:
        The encoder in evaluation mode.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
    """
    file = find_encoder(path, order)
    card = read_card(file)
    known = {field.name for field in fields(EncoderShape)}
    if card["shape"].keys() != known:
        raise CheckpointError(
            f"{file.with_suffix('.json')}: shape has the keys {sorted(card['shape'])}, expected "
            f"{sorted(known)}; the file was written by another version"
        )
    try:
        encoder = VideoEncoder(EncoderShape(**card["shape"]))
        state = load_file(file)
    except (SafetensorError, OSError, ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); copy or train it again") from None
    _load_strictly(encoder, state, file)
    if fingerprint(state) != card["fingerprint"]:
        raise CheckpointError(
            f"{file} does not match the fingerprint in {file.with_suffix('.json').name}: damaged, "
            "or the two come from different runs; copy both again"
        )
    return encoder.to(device).eval()


def _load_strictly(encoder: VideoEncoder, state: dict[str, torch.Tensor], file: Path) -> None:
    expected = encoder.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{file} does not hold this encoder: missing {missing or 'nothing'}, unexpected "
            f"{unexpected or 'nothing'}, of another shape {wrong or 'nothing'}"
        )
    encoder.load_state_dict(state)
