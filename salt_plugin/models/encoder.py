"""The video transformer that is trained, frozen and kept, and the tubelets that it reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from salt_plugin.batch import MaskSet
from salt_plugin.errors import ShapeError
from salt_plugin.models.attention import pack, rope_tables_of, segments_of, unpack
from salt_plugin.models.block import (
    INIT_STD,
    NORM_EPS,
    Block,
    BlockInput,
    BlockStack,
    init_weights,
    rescale_residuals,
)
from salt_plugin.models.block_causal import block_causal_mask
from salt_plugin.models.hub import OnTheHub
from salt_plugin.shapes import EncoderShape, Grid
from salt_plugin.transforms.preprocessing import Preprocessing

# Normalised pixels stay below 3; of 0 to 255, all but those of a black video go beyond.
MAX_NORMALIZED = 16.0
NORMALIZED = (
    "floats divided by 255 and normalised by mean and deviation, as SALTEvalTransform and "
    "Batch.normalized do"
)


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelets, stored as the Conv3d of V-JEPA's checkpoints."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        kernel = (shape.tubelet_size, shape.patch_size, shape.patch_size)
        self.proj = nn.Conv3d(shape.in_chans, shape.embed_dim, kernel, stride=kernel)

    def forward(self, patches_kp: Tensor) -> Tensor:
        """Maps [..., P] to [..., D]: the convolution at the tubelets that are kept."""
        return F.linear(patches_kp, self.proj.weight.flatten(1), self.proj.bias)


class VideoEncoder(nn.Module, OnTheHub):
    """Vision transformer over tubelets with 3D RoPE, in V-JEPA 2's layout.

    A `[cls]` token, where the shape has one, is not rotated. `forward` gives it before the tokens
    of the clip; what gives tokens at places (`forward_sets`, `forward_patches`) leaves it out.

    Args:
        shape: Width, depth, heads and tubelet.
        drop_path: Stochastic depth rate of the last block; earlier ones rise to it linearly.
        init_std: Standard deviation of the initial weights. V-JEPA's 0.02 suits its widths; a
            narrow encoder learns from the start with about 0.64 / sqrt(width).

    Attributes:
        preprocessing: The clips that it takes; `load_encoder` sets those of the encoder's card.

    Raises:
        ShapeError: In all that takes clips: they are no floats [B, C, T, H, W].
    """

    cls_token: nn.Parameter | None
    preprocessing = Preprocessing()

    def __init__(
        self, shape: EncoderShape, drop_path: float = 0.0, init_std: float = INIT_STD
    ) -> None:
        super().__init__()
        self.shape = shape
        self.embed_dim = self.num_features = shape.embed_dim
        self.patch_embed = TubeletEmbed(shape)
        cls_token = nn.Parameter(torch.zeros(1, 1, shape.embed_dim)) if shape.cls_token else None
        self.register_parameter("cls_token", cls_token)
        rates = [drop_path * i / max(1, shape.depth - 1) for i in range(shape.depth)]
        blocks = [Block(shape.embed_dim, shape.num_heads, shape.hidden_dim, rate) for rate in rates]
        self.blocks = BlockStack(blocks)
        self.norm = nn.LayerNorm(shape.embed_dim, eps=NORM_EPS)
        self._looks_at_range = True
        init_weights(self, init_std)
        if cls_token is not None:
            trunc_normal_(cls_token, std=init_std)
        rescale_residuals(blocks)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens `forward` gives before those of the clip, under timm's name."""
        return int(self.shape.cls_token)

    def grid(self, clip_bcthw: Tensor) -> Grid:
        """Returns the token grid of a batch of clips."""
        self._check_clips(clip_bcthw)
        frames, height, width = clip_bcthw.shape[-3:]
        return self.shape.grid(frames, height, width)

    def patchify(self, clip_bcthw: Tensor) -> Tensor:
        """Cuts clips [B, C, T, H, W] into this encoder's tubelets [B, N, P]."""
        self._check_clips(clip_bcthw)
        return patchify(clip_bcthw, self.shape.tubelet_size, self.shape.patch_size)

    def forward_sets(
        self, patches_bnp: Tensor, grid: Grid, masks: Sequence[MaskSet]
    ) -> list[Tensor]:
        """Encodes what mask sets keep in one pass; what is masked is never embedded.

        Args:
            patches_bnp: [B, N, P], as `patchify` gives them.
            grid: Their token grid.
            masks: Of all clips, or of some.

        Returns:
            For each [b, K, D] of its clips, after the last LayerNorm, in the order of its context.
        """
        kept = [gather_tokens(patches_bnp[mask.clips], mask.context) for mask in masks]
        encoded = self._encode(kept, grid, [mask.context for mask in masks])
        return [tokens_bkd[:, self.num_prefix_tokens :] for tokens_bkd in encoded]

    def _encode(
        self, kept: Sequence[Tensor], grid: Grid, indices: Sequence[Tensor]
    ) -> list[Tensor]:
        """Returns the tokens of each set, after `[cls]` where there is one."""
        given = self.embedded(kept, grid, indices)
        return unpack(self.norm(self.blocks(*given)), given.segments)

    def embedded(self, kept: Sequence[Tensor], grid: Grid, indices: Sequence[Tensor]) -> BlockInput:
        """Returns what goes into the first block.

        Args:
            kept: Tubelets of each set, [B, K, P].
            grid: The grid that the indices count in.
            indices: int64 [B, K] of each set.
        """
        segments = segments_of(indices)
        x_td = self.patch_embed(pack(kept))
        if self.cls_token is not None:
            cls_11d = self.cls_token.to(x_td.dtype)
            sets = unpack(x_td, segments)
            x_td = pack([torch.cat((cls_11d.expand(len(x), -1, -1), x), dim=1) for x in sets])
            # Place 0 of all three axes: not rotated.
            indices = [F.pad(index_bk, (1, 0)) for index_bk in indices]
            segments = segments_of(indices)
        rope = rope_tables_of(indices, grid, self.shape.head_dim, x_td.dtype)
        allowed = None
        if self.shape.block_causal:
            allowed = [block_causal_mask(one, grid, self.shape.cls_token) for one in indices]
        return BlockInput(x_td, rope, segments, allowed)

    def forward_patches(
        self, patches_bnp: Tensor, grid: Grid, indices_bk: Tensor | None = None
    ) -> Tensor:
        """Encodes tubelets, all or only those kept.

        Args:
            patches_bnp: [B, N, P], as `patchify` gives them.
            grid: Their token grid.
            indices_bk: int64 [B, K] of the tokens to keep; None keeps all.

        Returns:
            [B, K, D], after the last LayerNorm, in the order of the indices.
        """
        return self._all_tokens(patches_bnp, grid, indices_bk)[:, self.num_prefix_tokens :]

    def forward_cls(
        self, patches_bnp: Tensor, grid: Grid, indices_bk: Tensor | None = None
    ) -> Tensor:
        """Returns `[cls]` [B, D] of tubelets; as `forward_patches`."""
        return self._all_tokens(patches_bnp, grid, indices_bk)[:, 0]

    def _all_tokens(self, patches_bnp: Tensor, grid: Grid, indices_bk: Tensor | None) -> Tensor:
        if indices_bk is None:
            B, N, _ = patches_bnp.shape
            indices_bn = torch.arange(N, device=patches_bnp.device).expand(B, N)
            return self._encode([patches_bnp], grid, [indices_bn])[0]
        kept = gather_tokens(patches_bnp, indices_bk)
        return self._encode([kept], grid, [indices_bk])[0]

    def forward(self, clip_bcthw: Tensor, indices_bk: Tensor | None = None) -> Tensor:
        """Encodes clips [B, C, T, H, W] into tokens [B, K, D]; see `forward_patches`.

        Where there is a `[cls]` token it is the first, of [B, 1 + K, D].

        Warns once of clips whose values look like 0 to 255. On a GPU only the first call looks,
        and none in training: looking waits for the GPU.
        """
        grid = self.grid(clip_bcthw)  # first: it tells which side the tubelet does not divide
        self._check_values(clip_bcthw)
        return self._all_tokens(self.patchify(clip_bcthw), grid, indices_bk)

    def preprocess(self, frames: Any) -> Tensor:
        """Makes a clip of frames, on the encoder's device; see `Preprocessing`."""
        return self.preprocessing(frames).to(self.norm.weight.device)

    @torch.no_grad()
    def embed(self, frames: Any) -> Tensor:
        """Returns the feature of frames or of an image, as `preprocess` takes them.

        `salt_plugin.embed` takes files.

        Returns:
            `[cls]` where there is one, else the mean over all tokens, float32 [D].
        """
        tokens_1nd = self(self.preprocess(frames)).float()
        return tokens_1nd[0, 0] if self.num_prefix_tokens else tokens_1nd[0].mean(0)

    def _check_clips(self, clip_bcthw: Tensor) -> None:
        channels = self.shape.in_chans
        expected = f"expected clips [B, {channels}, T, H, W]"
        found = tuple(clip_bcthw.shape)
        if len(found) != 5:
            hint = "; add the batch: clip[None]" if len(found) == 4 else ""
            raise ShapeError(f"{expected}, found {len(found)} axes, {list(found)}{hint}")
        if found[1] != channels:
            hint = "; swap axes 1 and 2: clips.transpose(1, 2)" if found[2] == channels else ""
            raise ShapeError(f"{expected}, found {found[1]} channels, {list(found)}{hint}")
        if not clip_bcthw.is_floating_point():
            raise ShapeError(f"expected clips of {NORMALIZED}, found {clip_bcthw.dtype}")

    def _check_values(self, clip_bcthw: Tensor) -> None:
        # Not where a graph is made of what is done, nor where there are no values (meta, fake).
        if torch.compiler.is_compiling() or not self._looks_at_range or torch.jit.is_tracing():
            return
        if type(clip_bcthw) is not Tensor or clip_bcthw.is_meta or not clip_bcthw.numel():
            return
        if clip_bcthw.device.type != "cpu":
            trains = self.training and torch.is_grad_enabled()
            if trains or (clip_bcthw.is_cuda and torch.cuda.is_current_stream_capturing()):
                return
            self._looks_at_range = False
        try:
            peak = float(clip_bcthw.detach().amax())
        except RuntimeError:  # vmap has no single value
            return
        if peak > MAX_NORMALIZED:
            self._looks_at_range = False
            warnings.warn(
                f"clips look like 0 to 255 (the largest value is {peak:.4g}); expected "
                f"{NORMALIZED}",
                stacklevel=5,  # who calls the module
            )


def patchify(clip_bcthw: Tensor, tubelet_size: int, patch_size: int) -> Tensor:
    """Cuts clips into flattened tubelets.

    Args:
        clip_bcthw: [B, C, T, H, W].
        tubelet_size: Frames in a tubelet.
        patch_size: Side of a tubelet in pixels.

    Returns:
        [B, N, P] with N in row-major (t, h, w) order and P = C * tubelet_size * patch_size^2
        in the order (c, t, h, w) of a Conv3d kernel.
    """
    B, C, T, H, W = clip_bcthw.shape
    t, h, w = T // tubelet_size, H // patch_size, W // patch_size
    split = clip_bcthw.reshape(B, C, t, tubelet_size, h, patch_size, w, patch_size)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, t * h * w, -1)


def unpatchify(patches_bnp: Tensor, grid: Grid, tubelet_size: int, patch_size: int) -> Tensor:
    """Inverse of `patchify`: [B, N, P] to [B, C, T, H, W]."""
    t, h, w = grid
    B, _, P = patches_bnp.shape
    C = P // (tubelet_size * patch_size**2)
    split = patches_bnp.reshape(B, t, h, w, C, tubelet_size, patch_size, patch_size)
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(
        B, C, t * tubelet_size, h * patch_size, w * patch_size
    )


def gather_tokens(tokens_bnd: Tensor, indices_bk: Tensor) -> Tensor:
    """Picks tokens by index: [B, N, D] and int64 [B, K] to [B, K, D]."""
    B, N, _ = tokens_bnd.shape
    first_b1 = torch.arange(0, B * N, N, device=indices_bk.device).unsqueeze(1)
    # Whole rows at a time, which is several times faster than `gather` on CPUs.
    rows_kd = tokens_bnd.flatten(0, 1).index_select(0, (indices_bk + first_b1).flatten())
    return rows_kd.unflatten(0, indices_bk.shape)
