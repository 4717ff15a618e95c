"""A folder that timm, this package and Hugging Face's hub take: weights, config and model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.checkpoints.hf_config import CONFIG_FILE
from salt_plugin.checkpoints.huggingface import WEIGHTS_FILE
from salt_plugin.checkpoints.own_files import save_encoder
from salt_plugin.errors import CheckpointError
from salt_plugin.files import write_json
from salt_plugin.models.classifier import VideoClassifier
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape, as_dict

# Of a card, what the writer of a file adds.
OF_THE_FILE = ("format", "shape", "fingerprint")
SIZE = 224


def save_encoder_folder(encoder: VideoEncoder, folder: Path) -> None:
    """Writes `config.json` as timm reads it, the card, and the weights, last.

    The card tells the training of the weights that were loaded. Where they have changed since, it
    keeps only the clips.

    Args:
        encoder: Of a size that has a name.
        folder: Where to.

    Raises:
        CheckpointError: timm has no name for it, or it has a classifier.
    """
    shape = encoder.shape
    if isinstance(encoder, VideoClassifier):
        raise CheckpointError(
            "this folder holds an encoder without a classifier; timm.models.push_to_hf_hub(model, "
            "NAME) and torch.save(model.state_dict(), FILE) keep one with it"
        )
    if shape.name not in ENCODER_SIZES:
        raise CheckpointError(
            f"an encoder of width {shape.embed_dim}, {shape.depth} blocks and {shape.num_heads} "
            f"heads has no name in timm; the sizes are {', '.join(ENCODER_SIZES)}. --format torch "
            "and hf take it"
        )
    card = _card(encoder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, timm_config(shape, card.get("input", {})))
    save_encoder(encoder, folder / WEIGHTS_FILE, card)


def _card(encoder: VideoEncoder) -> dict[str, Any]:
    """Returns what still holds of the card: all of it, or of changed weights the clips alone."""
    card = dict(encoder.card)
    same = card.get("fingerprint") == fingerprint(encoder.state_dict())
    kept = set(card) - set(OF_THE_FILE) if same else {"input"}
    return {key: value for key, value in card.items() if key in kept}


def timm_config(shape: EncoderShape, clip: dict[str, Any]) -> dict[str, Any]:
    """Returns what timm's `local-dir:` and `hf-hub:` read, of a shape and the clips it saw."""
    usual = as_dict(EncoderShape.named(shape.name))
    arguments = {key: value for key, value in as_dict(shape).items() if usual.get(key) != value}
    size = clip.get("size", SIZE)
    return {
        "architecture": f"salt_{shape.name}",
        "num_classes": 0,
        "num_features": shape.embed_dim,
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [shape.in_chans, size, size],
            "mean": clip.get("mean", IMAGENET_MEAN),
            "std": clip.get("std", IMAGENET_STD),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def model_card(encoder: VideoEncoder, license: str | None = None, data: str | None = None) -> str:
    """Returns a model card in Markdown, with what the hub indexes at its top.

    Args:
        encoder: As `load_encoder` gives it.
        license: Of the weights.
        data: What it was trained on.
    """
    shape, card = encoder.shape, _card(encoder)
    clip, training = card.get("input", {}), card.get("training", {})
    about = ModelCardData(
        license=license,
        library_name="salt_plugin",
        pipeline_tag="video-classification",
        tags=["video", "self-supervised", "timm", "model_hub_mixin"],
    )
    lines = [
        "# A video encoder",
        "",
        f"A {shape.name} of {sum(p.numel() for p in encoder.parameters()):,} parameters: clips "
        f"[B, {shape.in_chans}, T, H, W] to tokens [B, N, {shape.embed_dim}], a token for each "
        f"{shape.tubelet_size} frames x {shape.patch_size} x {shape.patch_size} pixels.",
        "",
        "| | |",
        "|---|---|",
        f"| Method | {_told(card.get('method'))}, {_told(card.get('stage'))} |",
        f"| Data | {_told(data)} |",
        f"| Licence | {_told(license)} |",
        *(f"| Training: {key} | {value} |" for key, value in training.items()),
        *_bill(card),
        *_probes(card),
        *(f"| Clips: {key} | {value} |" for key, value in clip.items() if value is not None),
        "",
        "Values go to [0, 1], then by mean and deviation (Clips: mean, std).",
        "",
        "```python",
        "from salt_plugin.models import VideoEncoder",
        "",
        'encoder = VideoEncoder.from_pretrained("NAME")',
        "```",
        "",
        'In timm, with `import salt_plugin.models`: `timm.create_model("hf-hub:NAME", '
        "pretrained=True)`.",
    ]
    return f"---\n{about.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"


def _told(value: Any) -> str:
    return "not stated" if value is None else str(value)


def _bill(card: dict[str, Any]) -> list[str]:
    bill = (card.get("compute") or {}).get("bill") or {}
    parts = [f"| FLOPs: {name} | {value:.4g} |" for name, value in bill.get("parts", {}).items()]
    total = f"{bill['total']:.4g}" if bill.get("total") else "not counted"
    return [*parts, f"| FLOPs in all (1 multiply-add = 2) | {total} |"]


def _probes(card: dict[str, Any]) -> list[str]:
    """Returns rows of the accuracies that the run's summary tells of this encoder."""
    probe = card.get("probe") or {}
    found = [
        f"| Frozen, {name} on {probe.get('set')} | {value:.3f} |"
        for row in probe.get("rows", [])
        if row.get("encoder") == card.get("stage")
        for name, value in row.items()
        if isinstance(value, float)
    ]
    return found or ["| Probes | none |"]
