"""What an evaluation takes, before it starts."""

from __future__ import annotations

import torch

from salt_plugin.compute.cost import encoder_forward
from salt_plugin.compute.counter import count_flops
from salt_plugin.config import ProbeConfig
from salt_plugin.config.evaluation import VJEPA2
from salt_plugin.evaluation.cache import cache_root
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import SPLITS
from salt_plugin.evaluation.lists import Lists
from salt_plugin.models import VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.report.units import flops

BACKWARD = 3  # a step costs as much as three forward passes


def demands(encoder: FrozenEncoder, lists: Lists, config: ProbeConfig) -> str:
    """Returns a sentence: what features take on disk, or with `vjepa2` what there is to compute.

    Args:
        encoder: Takes clips of the configuration.
        lists: As `read_lists` gives them.
        config: Of the evaluation; a control takes the same once more.
    """
    videos = {name: len(one.paths) for name in SPLITS if (one := getattr(lists, name)) is not None}
    tokens, classes = encoder.tokens(config.frames, config.size), len(lists.classes)
    if VJEPA2 not in config.protocols:
        views = {name: 1 if name == "train" else config.segments * config.crops for name in videos}
        listed = ", ".join(f"{name} {n:,} x {views[name]}" for name, n in videos.items())
        clips = sum(n * views[name] for name, n in videos.items())
        what = "tokens take up to" if "attentive" in config.protocols else "means take less than"
        size = 2 * clips * tokens * encoder.embed_dim
        return f"features of {listed} views: {what} {_bytes(size)} in {cache_root(config.cache)}"
    one_clip = _encoder_flops(encoder, config, tokens)
    heads = sum(len(group.rates) * len(group.decays) for group in config.heads)
    with torch.device("meta"):
        probe = AttentiveProbe(encoder.embed_dim, classes)
        read = torch.empty(1, config.segments * config.layers * tokens, encoder.embed_dim)
        one_head = sum(count_flops(probe, read).values())
    train, tested = videos.pop("train"), sum(videos.values()) * config.crops
    encoding = config.segments * one_clip * (config.epochs * train + tested)
    probing = heads * one_head * (BACKWARD * config.epochs * train + tested)
    return (
        f"{config.epochs} epochs of {train:,} videos x {config.segments} segments, {heads} probes: "
        f"about {flops(encoding)} of the encoder and {flops(probing)} of the probes, no cache"
    )


def _encoder_flops(encoder: FrozenEncoder, config: ProbeConfig, tokens: int) -> int:
    if isinstance(encoder.model, VideoEncoder):
        return encoder_forward(encoder.model.shape, tokens - encoder.num_prefix_tokens)
    clip = torch.zeros(1, 3, config.frames, config.size, config.size, device=encoder.device)
    return sum(count_flops(encoder.model, clip).values())


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
