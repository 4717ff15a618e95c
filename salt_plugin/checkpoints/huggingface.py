"""The layout of Hugging Face's `VJEPA2Model`: `config.json` and safetensors, one file or many."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from salt_plugin.checkpoints.hf_config import (
    CONFIG_FILE,
    encoder_shape,
    predictor_shape,
    read_config,
)
from salt_plugin.checkpoints.hf_names import (
    ENCODER_PREFIX,
    MASK_TOKENS,
    PREDICTOR_PREFIX,
    from_hf,
    to_hf,
)
from salt_plugin.checkpoints.safetensors_file import read_safetensors
from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.files import read_json
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
        shape = encoder_shape(config)
    except ConfigError as error:
        raise CheckpointError(f"{file.with_name(CONFIG_FILE)}: {error}") from None
    state = _tensors(file, other=PREDICTOR_PREFIX)
    return load_strictly(
        lambda: VideoEncoder(shape), shape.depth, state, file, "encoder", to_hf, from_hf
    )


def read_predictor(file: Path) -> Predictor:
    """Returns the predictor of a file of weights, or of an index of files, in float32.

    Raises:
        CheckpointError: The config is foreign, or the tensors are not exactly those it tells.
    """
    config = read_config(file)
    try:
        width, shape = config["hidden_size"], predictor_shape(config)
    except ConfigError as error:
        raise CheckpointError(f"{file.with_name(CONFIG_FILE)}: {error}") from None
    state = _tensors(file, other=ENCODER_PREFIX)
    # All mask tokens are one tensor here.
    held = state[MASK_TOKENS].numel() if MASK_TOKENS in state else 0
    parts = shape.depth + max(0, shape.num_mask_tokens - held)

    def build() -> Predictor:
        return Predictor(width, width, shape)

    return load_strictly(build, parts, state, file, "predictor", to_hf, from_hf)


def holds_predictor(file: Path) -> bool:
    """Tells whether the files have a predictor."""
    return any(name.startswith(PREDICTOR_PREFIX) for name in _tensors(file, ENCODER_PREFIX))


def _tensors(file: Path, other: str) -> dict[str, Tensor]:
    """Returns all tensors but those of the other model, by the prefix of its names.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    if file.suffix != ".json":
        return read_safetensors(file, but=other)
    try:
        shards = sorted(set(read_json(file)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); copy it again") from None
    state: dict[str, Tensor] = {}
    for name in shards:
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name:
            raise CheckpointError(
                f"{file} names the file {str(name)[:120]!r}: expected names of safetensors files "
                "beside it, without a folder; do not use it, or mend its weight_map"
            )
        state |= read_safetensors(file.with_name(name), but=other)
    return state
