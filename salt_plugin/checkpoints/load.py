"""The one door to weights: finds the file that a path names, and reads it by its layout."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from salt_plugin.checkpoints import encoder_file, huggingface, predictor_file, vjepa2
from salt_plugin.checkpoints.encoder_file import ENCODER_FILE, read_card
from salt_plugin.checkpoints.hf_config import CONFIG_FILE, LARGEST, PROCESSOR_FILE, read_config
from salt_plugin.checkpoints.predictor_file import PREDICTOR_FILE
from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor

STUDENT_FIRST = ("student", "teacher")
TEACHER_FIRST = ("teacher", "student")
SIZES = ("frames", "size", "step")


def find_encoder(path: str | os.PathLike[str], order: Sequence[str] = STUDENT_FIRST) -> Path:
    """Returns the encoder file that a path names.

    Args:
        path: An encoder file of any layout, a run directory, a stage's folder in one, or a folder
            in Hugging Face's layout.
        order: Which stage of a run directory to prefer.

    Raises:
        CheckpointError: There is none.
    """
    return _find(Path(path).expanduser(), "encoder", ENCODER_FILE, order)


def find_predictor(path: str | os.PathLike[str]) -> Path:
    """Returns the predictor file that a path names; as `find_encoder`.

    Raises:
        CheckpointError: There is none.
    """
    return _find(Path(path).expanduser(), "predictor", PREDICTOR_FILE, ("student",))


def load_encoder(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    order: Sequence[str] = STUDENT_FIRST,
    num_heads: int | None = None,
) -> VideoEncoder:
    """Loads an encoder for use on clips [B, C, T, H, W]; it gives tokens [B, N, D].

    Args:
        path: A run directory (its student, or else its teacher), an encoder file, a folder in
            Hugging Face's layout of V-JEPA 2, or a `.pt` file of V-JEPA 2's repository (its
            target encoder, or else its encoder).
        device: Where to put it.
        order: Which stage of a run directory to prefer.
        num_heads: Attention heads of a `.pt` file of a size that V-JEPA 2 did not release; files
            of other layouts tell it themselves.

    Returns:
        The encoder in evaluation mode; foreign weights in float32.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
    """
    file = find_encoder(path, order)
    if is_vjepa2(file):
        encoder = vjepa2.read_encoder(file, num_heads)
    elif is_huggingface(file):
        encoder = huggingface.read_encoder(file)
    else:
        encoder = encoder_file.read_encoder(file)
    return encoder.to(device).eval()


def load_predictor(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    num_heads: int | None = None,
) -> Predictor:
    """Loads a student's predictor, or one of V-JEPA 2.

    Args:
        path: A run directory, the folder of a student, a predictor file, a folder in Hugging
            Face's layout of V-JEPA 2, or a `.pt` file of V-JEPA 2's repository.
        device: Where to put it.
        num_heads: Attention heads of a `.pt` file whose predictor is not V-JEPA 2's 384 wide.

    Returns:
        The predictor in evaluation mode; foreign weights in float32.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
    """
    file = find_predictor(path)
    if is_vjepa2(file):
        predictor = vjepa2.read_predictor(file, num_heads)
    elif is_huggingface(file):
        predictor = huggingface.read_predictor(file)
    else:
        predictor = predictor_file.read_predictor(file)
    return predictor.to(device).eval()


def read_input(file: Path) -> dict[str, Any]:
    """Returns what is known of the clips that an encoder file was trained on.

    Args:
        file: As `find_encoder` gives it.

    Returns:
        `frames`, `size`, `step`, `fps`, `mean` and `std`, as far as the file or those beside it
        tell them.

    Raises:
        CheckpointError: The file beside it is damaged.
    """
    if is_vjepa2(file):
        return {}
    if is_huggingface(file):
        config = read_config(file)
        clip = {"frames": config["frames_per_clip"], "size": config["crop_size"]}
        return _checked(clip | _processor(file.with_name(PROCESSOR_FILE)), file)
    return _checked(read_card(file).get("input", {}), file)


def read_bill(file: Path) -> int | None:
    """Returns the FLOPs that an encoder has cost in all, its teacher's included.

    Args:
        file: As `find_encoder` gives it.

    Returns:
        The total of the bill on its card; None where nobody has counted it.

    Raises:
        CheckpointError: The card is damaged.
    """
    if is_vjepa2(file) or is_huggingface(file):
        return None
    compute = read_card(file).get("compute") or {}
    try:
        total = compute.get("bill", {}).get("total")
        return None if total is None else int(total)
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{file.with_suffix('.json')}: compute.bill.total is no number of FLOPs ({error}); "
            "copy the card again"
        ) from None


def _checked(clip: Any, file: Path) -> dict[str, Any]:
    """Returns what a card or a config tells of clips, if it is of the kind that clips have."""
    good = isinstance(clip, dict) and all(
        type(clip.get(key, 1)) is int and 0 < clip.get(key, 1) < LARGEST for key in SIZES
    )
    if good:
        for key in ("mean", "std"):
            values = clip.get(key, [1.0])
            good = good and isinstance(values, list) and all(map(_is_finite, values))
        fps = clip.get("fps")
        good = good and 0 not in clip.get("std", [])
        good = good and (fps is None or (_is_finite(fps) and fps > 0))
    if not good:
        raise CheckpointError(
            f"{file}: the clips told of beside it are {str(clip)[:200]}: expected whole numbers "
            "for frames, size and step, null or a number for fps, and a number for each colour in "
            "mean and std; copy it again"
        )
    return dict(clip)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < math.inf


def _processor(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        processor = read_json(file)
        return {"mean": list(processor["image_mean"]), "std": list(processor["image_std"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} tells no image_mean and image_std ({type(error).__name__}: {error}); copy it "
            "again, or remove it to normalise as for ImageNet"
        ) from None


def is_vjepa2(file: Path) -> bool:
    """Tells whether a file is in the layout of V-JEPA 2's repository, by its name."""
    return file.suffix in vjepa2.SUFFIXES


def is_huggingface(file: Path) -> bool:
    """Tells whether a file of weights is in Hugging Face's layout: no card, but a config."""
    has_card = file.suffix == ".safetensors" and file.with_suffix(".json").is_file()
    weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
    return weights and not has_card and file.with_name(CONFIG_FILE).is_file()


def _find(given: Path, kind: str, name: str, order: Sequence[str]) -> Path:
    if given.is_file():
        return given
    places = [given / name, *(given / stage / name for stage in order)]
    foreign = [given / huggingface.WEIGHTS_FILE, given / huggingface.INDEX_FILE]
    for place in [*places, *(place for place in foreign if is_huggingface(place))]:
        if place.is_file():
            return place
    what = f"holds no finished {kind}" if given.is_dir() else "does not exist"
    article = "an" if kind == "encoder" else "a"
    raise CheckpointError(
        f"{given} {what}; expected {article} {kind} file, or a run directory with one of "
        + ", ".join(str(place.relative_to(given)) for place in places)
        + f", or a Hugging Face folder with {CONFIG_FILE} and {huggingface.WEIGHTS_FILE}, or a .pt "
        "file of V-JEPA 2"
    )
