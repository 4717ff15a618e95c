"""What the blocks of an encoder give on the way, under timm's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salt_plugin.errors import ConfigError
from salt_plugin.models.encoder import VideoEncoder

FORMATS = ("NCHW", "NLC")


def intermediates(
    encoder: VideoEncoder,
    clip_bcthw: Tensor,
    indices: int | Sequence[int] | None = None,
    *,
    norm: bool = False,
    stop_early: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Returns tokens after the last block that ran, and after each of some blocks.

    Args:
        encoder: The encoder.
        clip_bcthw: Clips, as `VideoEncoder` takes them.
        indices: The last so many blocks, or these, from 0, or from the last one as -1; None: all.
        norm: Apply the last LayerNorm to each of them, as V-JEPA 2 does for its probes.
        stop_early: Run no block after the last of them.

    Returns:
        Tokens [B, N, D] after the last LayerNorm; and a list of [B, N, D]. `[cls]` is the first,
        where there is one.

    Raises:
        ConfigError: There are no such blocks.
    """
    taken = taken_blocks(len(encoder.blocks), indices)
    grid, patches_bnp = encoder.grid(clip_bcthw), encoder.patchify(clip_bcthw)
    B, N, _ = patches_bnp.shape
    indices_bn = torch.arange(N, device=patches_bnp.device).expand(B, N)
    given = encoder.embedded([patches_bnp], grid, [indices_bn])
    found, x_td = {}, given.x_td
    for i, after_td in enumerate(encoder.blocks.each(*given)):
        x_td = after_td
        if i in taken:
            found[i] = encoder.norm(x_td) if norm else x_td
        if stop_early and i == max(taken):
            break
    tokens = [found[i].unflatten(0, given.segments[0]) for i in taken]
    return encoder.norm(x_td).unflatten(0, given.segments[0]), tokens


def taken_blocks(depth: int, indices: int | Sequence[int] | None) -> list[int]:
    """Returns the numbers, from 0, of blocks that `intermediates` names.

    Raises:
        ConfigError: There are no such blocks.
    """
    last = depth if indices is None else indices
    try:
        return [range(depth)[i] for i in (range(-last, 0) if isinstance(last, int) else last)]
    except IndexError:
        raise ConfigError(f"indices={indices}: the encoder has {depth} blocks") from None


def forward_intermediates(
    encoder: VideoEncoder,
    clip_bcthw: Tensor,
    indices: int | Sequence[int] | None = None,
    return_prefix_tokens: bool = False,
    norm: bool = False,
    stop_early: bool = False,
    output_fmt: str = "NCHW",
    intermediates_only: bool = False,
) -> Any:
    """Returns features and intermediate features, as timm's method of this name.

    Args:
        encoder: The encoder.
        clip_bcthw: Clips [B, C, T, H, W].
        indices: As of `intermediates`.
        return_prefix_tokens: Give pairs of features and `[cls]` [B, 1, D], where there is one.
        norm: As of `intermediates`.
        stop_early: As of `intermediates`.
        output_fmt: `NCHW` for [B, D, t, h, w], `NLC` for [B, N, D], both without `[cls]`.
        intermediates_only: Give the list alone.

    Returns:
        (tokens of `forward_features`, list of features), or the list.

    Raises:
        ConfigError: There is no such format.
    """
    if output_fmt not in FORMATS:
        raise ConfigError(f"output_fmt={output_fmt}: expected one of {', '.join(FORMATS)}")
    tokens_bnd, found = intermediates(
        encoder, clip_bcthw, indices, norm=norm, stop_early=stop_early
    )
    prefix, grid = encoder.num_prefix_tokens, encoder.grid(clip_bcthw)
    features = [one[:, prefix:] for one in found]
    if output_fmt == "NCHW":
        features = [one.unflatten(1, grid).movedim(-1, 1).contiguous() for one in features]
    given: list[Any] = features
    if return_prefix_tokens and prefix:
        given = [(one, all_bnd[:, :prefix]) for one, all_bnd in zip(features, found, strict=True)]
    return given if intermediates_only else (tokens_bnd, given)
