"""FLOPs of any module by tracing it once: fvcore, with handlers for the attention it lacks.

Tests compare the closed forms of `compute.cost` with these counts. Needs torch.
"""

from __future__ import annotations

from typing import Any

from fvcore.nn import FlopCountAnalysis
from torch import nn

from salt_plugin.compute.cost import FLOPS_PER_MULTIPLY_ADD

# Matrix products, convolutions and attention, by fvcore's names; all else is left out, first of
# all normalisation, where the conventions of tools differ.
COUNTED = (
    "linear",
    "addmm",
    "mm",
    "matmul",
    "bmm",
    "einsum",
    "conv",
    "scaled_dot_product_attention",
)


def count_flops(module: nn.Module, inputs: Any) -> dict[str, int]:
    """Counts the FLOPs of a forward pass, one multiply-add as two.

    Args:
        module: Any module; on the meta device even the largest needs no memory.
        inputs: Its input, or a tuple of its inputs, on the same device.

    Returns:
        FLOPs by operator, of operators that occur; their sum is the total.
    """
    analysis = FlopCountAnalysis(module, inputs)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _fused_attention)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = analysis.by_operator()
    return {name: FLOPS_PER_MULTIPLY_ADD * int(counts[name]) for name in COUNTED if counts[name]}


def _fused_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of [B, H, Q, d], [B, H, K, d] and [B, H, K, e]."""
    query, value = (inputs[i].type().sizes() for i in (0, 2))
    (b, h, q, d), (k, e) = query, value[2:]
    return int(b * h * q * k * (d + e))
