"""Writing an encoder and its predictor in Hugging Face's layout of V-JEPA 2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_plugin.checkpoints import huggingface, vjepa2
from salt_plugin.checkpoints.card_file import write_weights
from salt_plugin.checkpoints.encoder_file import read_card
from salt_plugin.checkpoints.hf_config import (
    CONFIG_FILE,
    DEFAULTS,
    PROCESSOR_FILE,
    make_config,
)
from salt_plugin.checkpoints.hf_names import to_hf
from salt_plugin.checkpoints.load import (
    STUDENT_FIRST,
    find_encoder,
    is_huggingface,
    is_vjepa2,
    load_encoder,
    load_predictor,
    read_input,
)
from salt_plugin.checkpoints.predictor_file import PREDICTOR_FILE, read_predictor_card
from salt_plugin.errors import CheckpointError
from salt_plugin.files import write_json
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import PredictorShape


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
    target = Path(folder).expanduser()
    file = find_encoder(path, order)
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; choose another folder (--output)")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise CheckpointError(
            f"{target} is not empty; choose another folder (--output), or replace what is in it "
            "(--force)"
        )
    encoder = load_encoder(file)
    if encoder.shape.cls_token or encoder.shape.block_causal:
        raise CheckpointError(
            f"{file} holds an encoder with a [cls] token or block-causal attention, which "
            "`VJEPA2Model` does not have; use it with salt_plugin.load_encoder(path)"
        )
    predictor, reason = _predictor(file, encoder)
    clip = read_input(file)
    size = clip.get("size", DEFAULTS["crop_size"])
    shape = PredictorShape() if predictor is None else predictor.shape
    config = make_config(
        encoder.shape, shape, clip.get("frames", DEFAULTS["frames_per_clip"]), size
    )
    state = to_hf(encoder.state_dict())
    written = {CONFIG_FILE: "shapes"}
    target.mkdir(parents=True, exist_ok=True)
    (target / huggingface.INDEX_FILE).unlink(missing_ok=True)
    write_json(target / CONFIG_FILE, config)
    if "mean" in clip:
        write_json(target / PROCESSOR_FILE, _processor(size, clip["mean"], clip["std"]))
        written[PROCESSOR_FILE] = "size and normalisation of clips"
    else:
        (target / PROCESSOR_FILE).unlink(missing_ok=True)
    content = f"encoder {encoder.shape.name}"
    if predictor is not None and reason is None:
        state |= to_hf(predictor.state_dict())
        content += " and predictor"
    write_weights(target / huggingface.WEIGHTS_FILE, state, {"format": "pt"})
    written[huggingface.WEIGHTS_FILE] = content
    files = {target / name: text for name, text in written.items()}
    return Exported(files, reason, "size" not in clip, size)


def _predictor(file: Path, encoder: VideoEncoder) -> tuple[Predictor | None, str | None]:
    """Returns the predictor that goes with an encoder, and why it cannot be exported."""
    if is_vjepa2(file):
        place, there = file, vjepa2.holds_predictor(file)
    elif is_huggingface(file):
        place, there = file, huggingface.holds_predictor(file)
    else:
        place = file.with_name(PREDICTOR_FILE)
        there = place.is_file()
    if not there:
        return None, f"{file} has no predictor with it"
    if place != file:
        belongs = read_predictor_card(place)["encoder_fingerprint"]
        if belongs != read_card(file)["fingerprint"]:
            raise CheckpointError(
                f"{place} belongs to another encoder than {file}; copy both again from one run"
            )
    predictor = load_predictor(place)
    width, out_dim = encoder.embed_dim, predictor.predictor_proj.out_features
    if out_dim != width:
        return predictor, (
            f"the predictor projects to the teacher's width {out_dim}, and this layout has only "
            f"the encoder's own, {width}"
        )
    return predictor, None


def _processor(size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": int(size * 256 / 224)},
    }
