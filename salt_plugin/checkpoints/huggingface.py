"""The layout of Hugging Face's `VJEPA2Model`: `config.json` and safetensors, one file or many."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from salt_plugin.checkpoints.hf_config import (
    CONFIG_FILE,
    encoder_shape,
    predictor_shape,
    read_config,
)
from salt_plugin.checkpoints.hf_names import ENCODER_PREFIX, PREDICTOR_PREFIX, from_hf, to_hf
from salt_plugin.checkpoints.strict import check_state, load_strictly
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def read_encoder(file: Path) -> VideoEncoder:
    """Returns the encoder of a file of weights, or of an index of files, in float32.

    Raises:
        CheckpointError: The config is foreign, or the tensors are not exactly those it tells.
    """
    config = read_config(file)
    try:
        encoder = VideoEncoder(encoder_shape(config))
    except ConfigError as error:
        raise CheckpointError(f"{file.with_name(CONFIG_FILE)}: {error}") from None
    state = _tensors(file, other=PREDICTOR_PREFIX)
    check_state(to_hf(encoder.state_dict()), state, file, "encoder")
    load_strictly(encoder, from_hf(state), file, "encoder")
    return encoder


def read_predictor(file: Path) -> Predictor:
    """Returns the predictor of a file of weights, or of an index of files, in float32.

    Raises:
        CheckpointError: The config is foreign, or the tensors are not exactly those it tells.
    """
    config = read_config(file)
    try:
        width = config["hidden_size"]
        predictor = Predictor(width, width, predictor_shape(config))
    except ConfigError as error:
        raise CheckpointError(f"{file.with_name(CONFIG_FILE)}: {error}") from None
    state = _tensors(file, other=ENCODER_PREFIX)
    check_state(to_hf(predictor.state_dict()), state, file, "predictor")
    load_strictly(predictor, from_hf(state), file, "predictor")
    return predictor


def holds_predictor(file: Path) -> bool:
    """Tells whether the files have a predictor."""
    return any(name.startswith(PREDICTOR_PREFIX) for name in _tensors(file, ENCODER_PREFIX))


def _tensors(file: Path, other: str) -> dict[str, Tensor]:
    """Returns all tensors but those of the other model, by the prefix of its names.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    state: dict[str, Tensor] = {}
    place = file
    try:
        places = [file]
        if file.suffix == ".json":
            shards = json.loads(file.read_text())["weight_map"].values()
            places = [file.with_name(name) for name in sorted(set(shards))]
        for place in places:
            with safe_open(place, framework="pt") as tensors:
                names = [name for name in tensors.keys() if not name.startswith(other)]  # noqa: SIM118
                state |= {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{place} cannot be read ({error}); copy it again") from None
    return state
