"""The narrow transformer that fills in masked tokens: SALT's predictor and pixel decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from salt_plugin.batch import MaskSet
from salt_plugin.models.attention import pack, rope_tables_of, segments_of, unpack
from salt_plugin.models.block import (
    INIT_STD,
    NORM_EPS,
    Block,
    BlockStack,
    init_weights,
    rescale_residuals,
)
from salt_plugin.shapes import Grid, PredictorShape


class Predictor(nn.Module):
    """Predicts something at masked places from encoded context, as V-JEPA 2's predictor.

    Attention does not depend on the order of tokens, so context and targets are concatenated
    as they come; the sorting of the reference code changes nothing.

    Args:
        context_dim: Width of the encoder's tokens.
        out_dim: Width of what is predicted: the teacher's latents, or a tubelet's pixels.
        shape: Width, depth and heads.
        init_std: Standard deviation of the initial weights, as in `VideoEncoder`.
    """

    def __init__(
        self,
        context_dim: int,
        out_dim: int,
        shape: PredictorShape,
        init_std: float = INIT_STD,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.predictor_embed = nn.Linear(context_dim, shape.dim)
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, shape.dim)) for _ in range(shape.num_mask_tokens)
        )
        blocks = [Block(shape.dim, shape.num_heads, shape.hidden_dim) for _ in range(shape.depth)]
        self.predictor_blocks = BlockStack(blocks)
        self.predictor_norm = nn.LayerNorm(shape.dim, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(shape.dim, out_dim)
        init_weights(self, init_std)
        rescale_residuals(blocks)

    def forward_sets(
        self,
        contexts: Sequence[Tensor],
        masks: Sequence[MaskSet],
        grid: Grid,
    ) -> list[Tensor]:
        """Predicts the targets of several mask sets in one pass.

        Args:
            contexts: For each set [B, K, context_dim], the encoder's tokens.
            masks: Where they are, and where to predict; each number has its own mask token.
            grid: The grid that the indices count in.

        Returns:
            For each set [B, M, out_dim].
        """
        context_segments = segments_of([mask.context for mask in masks])
        embedded = unpack(self.predictor_embed(pack(contexts)), context_segments)
        sequences = [
            torch.cat((context, self._queries(mask, context)), dim=1)
            for context, mask in zip(embedded, masks, strict=True)
        ]
        segments, x_td = segments_of(sequences), pack(sequences)
        places = [torch.cat((mask.context, mask.target), dim=1) for mask in masks]
        rope = rope_tables_of(places, grid, self.shape.head_dim, x_td.dtype)
        x_td = self.predictor_blocks(x_td, rope, segments)
        filled = [
            tokens[:, K:]
            for tokens, (_, K) in zip(unpack(x_td, segments), context_segments, strict=True)
        ]
        predicted = self.predictor_proj(self.predictor_norm(pack(filled)))
        return unpack(predicted, segments_of([mask.target for mask in masks]))

    def _queries(self, mask: MaskSet, context_bkd: Tensor) -> Tensor:
        token = self.mask_tokens[mask.number % len(self.mask_tokens)].to(context_bkd.dtype)
        return token.expand(*mask.target.shape, -1)

    def forward(
        self,
        context_bkd: Tensor,
        context_indices_bk: Tensor,
        target_indices_bm: Tensor,
        grid: Grid,
        mask_index: int = 0,
    ) -> Tensor:
        """Predicts the targets of one mask set.

        Args:
            context_bkd: [B, K, context_dim], the encoder's tokens.
            context_indices_bk: int64 [B, K], where they are.
            target_indices_bm: int64 [B, M], where to predict.
            grid: The grid that the indices count in.
            mask_index: Which mask set this is; each has its own mask token.

        Returns:
            [B, M, out_dim].
        """
        mask = MaskSet(context_indices_bk, target_indices_bm, mask_index)
        return self.forward_sets([context_bkd], [mask], grid)[0]
