"""Writing an encoder and its predictor for transformers, for timm, and as torch's state dicts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from salt_plugin.checkpoints import huggingface, vjepa2
from salt_plugin.checkpoints.hf_config import CONFIG_FILE, make_config
from salt_plugin.checkpoints.hf_names import to_hf
from salt_plugin.checkpoints.hub_folder import model_card, save_encoder_folder
from salt_plugin.checkpoints.huggingface import INDEX_FILE, PROCESSOR_FILE, WEIGHTS_FILE
from salt_plugin.checkpoints.load import (
    STUDENT_FIRST,
    find_encoder,
    load_encoder,
    load_predictor,
    read_input,
)
from salt_plugin.checkpoints.own_files import PREDICTOR_FILE, read_card, read_predictor_card
from salt_plugin.checkpoints.safetensors_file import write_safetensors
from salt_plugin.errors import CheckpointError
from salt_plugin.files import write_json, write_text
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import PredictorShape

TORCH_FILE = "encoder.pt"
# What `VJEPA2Config` takes where a file says nothing.
FRAMES, SIZE = 64, 256


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: With a word on the content of each.
        encoder_only: Why there is no predictor; None where there is one.
        assumed_size: Whether height and width of a clip were not known.
        size: Height and width of a clip, in the config.
    """

    files: dict[Path, str]
    encoder_only: str | None
    assumed_size: bool
    size: int


def export_hf(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    order: Sequence[str] = STUDENT_FIRST,
    force: bool = False,
) -> Exported:
    """Writes what `VJEPA2Model.from_pretrained(folder)` loads; the weights last.

    Args:
        path: What `load_encoder` takes.
        folder: Where to.
        order: Which stage of a run directory to prefer.
        force: Whether files in the folder may be replaced.

    Raises:
        CheckpointError: There is no such encoder, or the folder is not free.
    """
    file, place = find_encoder(path, order), free_folder(folder, force)
    encoder, clip = load_encoder(file), read_input(file)
    if encoder.shape.cls_token or encoder.shape.block_causal:
        raise CheckpointError(
            f"{file} holds an encoder with a [cls] token or block-causal attention, which "
            "`VJEPA2Model` does not have; use --format timm or torch, or it as it is with "
            "salt_plugin.load_encoder(path)"
        )
    predictor, reason = _predictor(file, encoder.embed_dim)
    size = clip.get("size", SIZE)
    shape = PredictorShape() if predictor is None else predictor.shape
    state, content = to_hf(encoder.state_dict()), f"encoder {encoder.shape.name}"
    if predictor is not None and reason is None:
        state |= to_hf(predictor.state_dict())
        content += " and predictor"
    place.mkdir(parents=True, exist_ok=True)
    for name in (INDEX_FILE, PROCESSOR_FILE):
        (place / name).unlink(missing_ok=True)
    files = {place / CONFIG_FILE: "shapes"}
    config = make_config(encoder.shape, shape, clip.get("frames", FRAMES), size)
    write_json(place / CONFIG_FILE, config)
    if "mean" in clip:
        write_json(place / PROCESSOR_FILE, _processor(size, clip["mean"], clip["std"]))
        files[place / PROCESSOR_FILE] = "size and normalisation of clips"
    write_safetensors(place / WEIGHTS_FILE, state, {"format": "pt"})
    files[place / WEIGHTS_FILE] = content
    return Exported(files, reason, "size" not in clip, size)


def export_timm(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    order: Sequence[str] = STUDENT_FIRST,
    force: bool = False,
) -> Exported:
    """Writes what `timm.create_model("local-dir:FOLDER", pretrained=True)` loads; as `export_hf`.

    Raises:
        CheckpointError: As `export_hf`; or the encoder has no name in timm.
    """
    file, place = find_encoder(path, order), free_folder(folder, force)
    encoder = load_encoder(file)
    save_encoder_folder(encoder, place)
    write_text(place / "README.md", model_card(encoder))
    files = {
        place / CONFIG_FILE: "name and arguments in timm",
        place / "README.md": "model card",
        (place / WEIGHTS_FILE).with_suffix(".json"): "card",
        place / WEIGHTS_FILE: f"encoder {encoder.shape.name}",
    }
    return Exported(files, None, "size" not in encoder.card.get("input", {}), SIZE)


def export_torch(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    order: Sequence[str] = STUDENT_FIRST,
    force: bool = False,
) -> Exported:
    """Writes `encoder.pt`, state dicts for `torch.load(FILE, weights_only=True)`; as `export_hf`.

    Names and keys are those of V-JEPA 2's repository: `target_encoder`, and `predictor`.
    """
    file, place = find_encoder(path, order), free_folder(folder, force)
    encoder = load_encoder(file)
    predictor, reason = _predictor(file, encoder.embed_dim)
    state, content = {"target_encoder": encoder.state_dict()}, f"encoder {encoder.shape.name}"
    if predictor is not None:
        state["predictor"] = predictor.state_dict()
        content, reason = content + " and predictor", None
    place.mkdir(parents=True, exist_ok=True)
    unfinished = place / (TORCH_FILE + ".tmp")
    torch.save(state, unfinished)
    os.replace(unfinished, place / TORCH_FILE)
    return Exported({place / TORCH_FILE: content}, reason, False, SIZE)


def free_folder(folder: str | os.PathLike[str], force: bool) -> Path:
    """Returns the folder of an export, which may not be there yet.

    Raises:
        CheckpointError: It is a file, or holds something that may not be replaced.
    """
    place = Path(folder).expanduser()
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"{place} is a file; choose another folder (--output)")
    if place.is_dir() and any(place.iterdir()) and not force:
        raise CheckpointError(
            f"{place} is not empty; choose another folder (--output), or replace what is in it "
            "(--force)"
        )
    return place


def _predictor(file: Path, width: int) -> tuple[Predictor | None, str | None]:
    """Returns the predictor that goes with an encoder, and why it cannot be exported.

    Args:
        file: Of the encoder.
        width: Of its tokens.
    """
    holder = file
    if vjepa2.is_vjepa2(file):
        there = vjepa2.holds_predictor(file)
    elif huggingface.is_huggingface(file):
        there = huggingface.holds_predictor(file)
    else:
        holder = file.with_name(PREDICTOR_FILE)
        there = holder.is_file()
        if there:
            belongs = read_predictor_card(holder)["encoder_fingerprint"]
            if belongs != read_card(file)["fingerprint"]:
                raise CheckpointError(
                    f"{holder} belongs to another encoder than {file}; copy both again from one run"
                )
    if not there:
        return None, f"{file} has no predictor with it"
    predictor = load_predictor(holder)
    out_dim = predictor.predictor_proj.out_features
    if out_dim == width:
        return predictor, None
    return predictor, (
        f"the predictor projects to the teacher's width {out_dim}, and this layout has only the "
        f"encoder's own, {width}"
    )


def _processor(size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Returns the keys in which a processor differs from the defaults of its class."""
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": size, "width": size},
        "image_mean": list(mean),
        "image_std": list(std),
    }
