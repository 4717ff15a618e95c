"""What an encoder sees as colours, where a probe looks, and what is taken for what."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import Tensor

from salt_plugin.evaluation.results import ProbeReport
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.shapes import Grid

# Shares of the tokens whose colours may be cut off, so that one odd token does not grey the rest.
LOWEST, HIGHEST = 0.01, 0.99


def pca_rgb(tokens_nd: Tensor, grid: Grid) -> Tensor:
    """Colours the tokens of a clip by their first three principal components.

    Tokens of like features get like colours. Each component is stretched over [0, 1] by itself,
    from the 1st to the 99th percentile; its sign is such that the token farthest out is bright.
    So the picture does not change when the features are shifted, scaled or rotated. A component
    that does not vary is 0.5.

    Args:
        tokens_nd: Tokens of one clip, float [N, D], N at least 2.
        grid: Their grid (T, H, W), N in all.

    Returns:
        float32 [T, H, W, 3] in [0, 1], on the CPU.
    """
    tokens = tokens_nd.detach().double().cpu()
    directions_nk, sizes_k, _ = torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    components_nk = directions_nk * sizes_k
    scores_nc = F.pad(components_nk, (0, 3))[:, :3]
    farthest_c = scores_nc.gather(0, scores_nc.abs().argmax(0, keepdim=True))
    scores_nc = scores_nc * torch.where(farthest_c < 0, -1.0, 1.0)
    shares = torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)
    low_c, high_c = scores_nc.quantile(shares, dim=0)
    range_c = high_c - low_c
    varies = range_c > 1e-9 * tokens.abs().max().clamp_min(1e-30)
    stretched = ((scores_nc - low_c) / range_c.where(varies, torch.ones_like(range_c))).clamp(0, 1)
    rgb_nc = stretched.where(varies, torch.full_like(stretched, 0.5))
    return rgb_nc.reshape(*grid, 3).float()


@torch.no_grad()
def attention_of_clip(probe: AttentiveProbe, tokens_nd: Tensor, grid: Grid) -> Tensor:
    """Returns how a probe's query attends to the tokens of a clip.

    Args:
        probe: An attentive probe.
        tokens_nd: Tokens of one clip, float [N, D].
        grid: Their grid (T, H, W), N in all.

    Returns:
        The mean over heads, float32 [T, H, W], which sums to one, on the CPU.
    """
    device = next(probe.parameters()).device
    return probe.attention(tokens_nd[None].to(device))[0].mean(0).float().cpu().reshape(grid)


def confusion(report: ProbeReport, protocol: str) -> Tensor:
    """Returns test videos by true class (rows) and predicted class (columns), int64 [C, C]."""
    predicted_n = report.results[protocol].predicted_n
    known = range(len(report.classes))
    counts = confusion_matrix(report.labels_n.numpy(), predicted_n.numpy(), labels=known)
    return torch.from_numpy(counts)
