"""The layout of Hugging Face's `VJEPA2Model`: `config.json` and safetensors, one file or many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from salt_plugin.checkpoints.hf_config import CONFIG_FILE, read_config
from salt_plugin.checkpoints.hf_names import ENCODER_PREFIX, PREDICTOR_PREFIX, from_hf, to_hf
from salt_plugin.checkpoints.safetensors_file import read_safetensors
from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PROCESSOR_FILE = "video_preprocessor_config.json"


def is_huggingface(file: Path) -> bool:
    """Tells whether a file of weights is in Hugging Face's layout: no card, but a config."""
    has_card = file.suffix == ".safetensors" and file.with_suffix(".json").is_file()
    weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
    return weights and not has_card and file.with_name(CONFIG_FILE).is_file()


def read_encoder(file: Path) -> VideoEncoder:
    """Returns the encoder of a file of weights, or of an index of files, in float32.

    Raises:
        CheckpointError: The config is foreign, or the tensors are not exactly those it states.
    """
    config = read_config(file)
    state = _tensors(file, other=PREDICTOR_PREFIX)
    return load_strictly(
        lambda: VideoEncoder(config.encoder_shape()), state, file, "encoder", to_hf, from_hf
    )


def read_predictor(file: Path) -> Predictor:
    """Returns the predictor of a file of weights, or of an index of files, in float32.

    Raises:
        CheckpointError: The config is foreign, or the tensors are not exactly those it states.
    """
    config = read_config(file)
    width = config.hidden_size
    state = _tensors(file, other=ENCODER_PREFIX)
    return load_strictly(
        lambda: Predictor(width, width, config.predictor_shape()),
        state,
        file,
        "predictor",
        to_hf,
        from_hf,
    )


def read_clip(file: Path) -> dict[str, Any]:
    """Returns what the config and the video processor beside the weights say of clips.

    Raises:
        CheckpointError: One of them is damaged.
    """
    config, processor_file = read_config(file), file.with_name(PROCESSOR_FILE)
    clip: dict[str, Any] = {"frames": config.frames_per_clip, "size": config.crop_size}
    if not processor_file.is_file():
        return clip
    try:
        processor = read_json(processor_file)
        return clip | {"mean": processor["image_mean"], "std": processor["image_std"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{processor_file} has no image_mean and image_std ({type(error).__name__}: {error}); "
            "copy it again, or remove it to normalise as for ImageNet"
        ) from None


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
