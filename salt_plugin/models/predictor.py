"""The narrow transformer that fills in masked tokens: SALT's predictor and pixel decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from salt_plugin.models.block import INIT_STD, NORM_EPS, Block, init_weights, rescale_residuals
from salt_plugin.models.rope import rope_tables
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
        self.predictor_blocks = nn.ModuleList(blocks)
        self.predictor_norm = nn.LayerNorm(shape.dim, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(shape.dim, out_dim)
        init_weights(self, init_std)
        rescale_residuals(blocks)

    def forward(
        self,
        context_bkd: Tensor,
        context_indices_bk: Tensor,
        target_indices_bm: Tensor,
        grid: Grid,
        mask_index: int = 0,
    ) -> Tensor:
        """Predicts at the target places.

        Args:
            context_bkd: [B, K, context_dim], the encoder's tokens.
            context_indices_bk: int64 [B, K], where they are.
            target_indices_bm: int64 [B, M], where to predict.
            grid: The grid that the indices count in.
            mask_index: Which mask set this is; each has its own mask token.

        Returns:
            [B, M, out_dim].
        """
        B, K, _ = context_bkd.shape
        M = target_indices_bm.shape[1]
        context = self.predictor_embed(context_bkd)
        queries = self.mask_tokens[mask_index % len(self.mask_tokens)].to(context.dtype)
        x = torch.cat((context, queries.expand(B, M, -1)), dim=1)
        indices = torch.cat((context_indices_bk, target_indices_bm), dim=1)
        cos, sin = rope_tables(indices, grid, self.shape.head_dim, x.dtype)
        for block in self.predictor_blocks:
            x = block(x, cos, sin)
        return self.predictor_proj(self.predictor_norm(x[:, K:]))
