"""The one way to weights: finds the file that a path names, and reads it by its layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from salt_plugin.checkpoints import huggingface, own_files, vjepa2
from salt_plugin.checkpoints.hf_config import CONFIG_FILE, Size
from salt_plugin.checkpoints.huggingface import is_huggingface
from salt_plugin.checkpoints.own_files import ENCODER_FILE, HEAD_FILE, PREDICTOR_FILE, read_card
from salt_plugin.checkpoints.vjepa2 import is_vjepa2
from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.head import Head
from salt_plugin.models.predictor import Predictor
from salt_plugin.transforms.preprocessing import Preprocessing

STUDENT_FIRST = ("student", "teacher")
# Of a run directory, beside the folders of its stages.
SUMMARY_FILE = "summary.json"


class SeenClip(BaseModel):
    """The clips that an encoder was trained on, as far as its card or config describes them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    frames: Size = 1
    size: Size = 1
    step: Size = 1
    fps: Annotated[float, Field(gt=0)] | None = None
    mean: list[float] = []
    std: list[Annotated[float, Field(gt=0)]] = []


def find_encoder(path: str | os.PathLike[str], order: Sequence[str] = STUDENT_FIRST) -> Path:
    """Returns the encoder file that a path names.

    Args:
        path: An encoder file of any layout, a run directory, a stage's folder in one, or a folder
            in Hugging Face's layout.
        order: Which stage of a run directory to prefer.

    Raises:
        CheckpointError: There is none.
    """
    return _find(Path(path).expanduser(), "an encoder", ENCODER_FILE, order)


def find_predictor(path: str | os.PathLike[str]) -> Path:
    """Returns the predictor file that a path names; as `find_encoder`.

    Raises:
        CheckpointError: There is none.
    """
    return _find(Path(path).expanduser(), "a predictor", PREDICTOR_FILE, ("student",))


def _find(given: Path, kind: str, name: str, order: Sequence[str]) -> Path:
    if given.is_file():
        return given
    places = [given / name, *(given / stage / name for stage in order)]
    foreign = [given / huggingface.WEIGHTS_FILE, given / huggingface.INDEX_FILE]
    if name == ENCODER_FILE and foreign[0].with_suffix(".json").is_file():
        places.append(foreign[0])
    for place in [*places, *(place for place in foreign if is_huggingface(place))]:
        if place.is_file():
            return place
    found = f"holds no finished {kind.split()[1]}" if given.is_dir() else "does not exist"
    raise CheckpointError(
        f"{given} {found}; expected {kind} file, or a run directory with one of "
        + ", ".join(str(place.relative_to(given)) for place in places)
        + f", or a Hugging Face folder with {CONFIG_FILE} and {huggingface.WEIGHTS_FILE}, or a .pt "
        "file of V-JEPA 2"
    )


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
        The encoder in evaluation mode, with the preprocessing of its card; foreign weights in
        float32.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
    """
    file = find_encoder(path, order)
    if is_vjepa2(file):
        encoder = vjepa2.read_encoder(file, num_heads)
    else:
        encoder = (huggingface if is_huggingface(file) else own_files).read_encoder(file)
    encoder.card = card_of(file)
    encoder.preprocessing = Preprocessing(**read_input(file))
    return encoder.to(device).eval()


def card_of(file: Path) -> dict[str, Any]:
    """Returns what is known of an encoder: its card with the run's probe, or its clips.

    Args:
        file: As `find_encoder` gives it, of any layout.

    Raises:
        CheckpointError: The card is missing or damaged.
    """
    if is_vjepa2(file) or is_huggingface(file):
        return {"input": read_input(file)}
    card, summary = read_card(file), file.parent.parent / SUMMARY_FILE
    # It may be another program's file of this name, and weights are loaded without it.
    with suppress(OSError, ValueError, TypeError, KeyError):
        card.setdefault("probe", read_json(summary)["probe"])
    return card


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
    else:
        predictor = (huggingface if is_huggingface(file) else own_files).read_predictor(file)
    return predictor.to(device).eval()


def load_head(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Head:
    """Loads the classifier that fine-tuning has left beside its encoder.

    Args:
        path: A run directory, the folder of its stage, or a file of a classifier.
        device: Where to put it.

    Returns:
        The classifier in evaluation mode; `head(encoder(clips))` are logits [B, C] of the classes
        `head.names`.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
    """
    file = _find(Path(path).expanduser(), "a head", HEAD_FILE, ("student",))
    return own_files.read_head(file).to(device).eval()


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
    clip = huggingface.read_clip(file) if is_huggingface(file) else read_card(file).get("input", {})
    try:
        return SeenClip.model_validate(clip).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointError(
            f"{file}: the clips described beside it are {str(clip)[:99]} ({wrong}): expected whole "
            "numbers for frames, size and step, null or a number for fps, and a number for each "
            "colour in mean and std; copy it again"
        ) from None


class Start(BaseModel):
    """How the weights of a run began, where they were not those of a file.

    Attributes:
        seed: Of the stage.
        std: Standard deviation.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    std: Annotated[float, Field(gt=0)]


def read_start(file: Path) -> Start | None:
    """Returns how the weights of an encoder began, by its card; None where it does not say.

    Args:
        file: As `find_encoder` gives it.

    Raises:
        CheckpointError: The card is damaged.
    """
    if is_vjepa2(file) or is_huggingface(file):
        return None
    training = read_card(file).get("training")
    found = training.get("start") if isinstance(training, dict) else None
    try:
        return None if found is None else Start.model_validate(found)
    except ValidationError:
        raise CheckpointError(
            f"{file.with_suffix('.json')}: training.start is {str(found)[:99]}: expected seed, a "
            "whole number, and std, above 0; copy the card again"
        ) from None


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
