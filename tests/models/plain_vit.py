"""A transformer with 3D rotary positions, written token by token and head by head.

It shares nothing with the package but the names in a state dict.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotate_token(channels: list[float], place: tuple[int, int, int]) -> list[float]:
    """Rotates one head of one token at (t, h, w) in V-JEPA 2's layout, one channel at a time."""
    d = len(channels)
    run = 2 * ((d // 3) // 2)
    rotated = list(channels)
    for axis in range(3):
        for c in range(run):
            frequency = 1.0 / 10000.0 ** ((c % (run // 2)) / (run / 2.0))
            angle = place[axis] * frequency
            here = axis * run + c
            partner = -channels[here + 1] if c % 2 == 0 else channels[here - 1]
            rotated[here] = channels[here] * math.cos(angle) + partner * math.sin(angle)
    return rotated


def place_of(index: int, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """Finds a token by counting through the grid: frames, then rows, then columns."""
    count = 0
    for t in range(grid[0]):
        for h in range(grid[1]):
            for w in range(grid[2]):
                if count == index:
                    return t, h, w
                count += 1
    raise IndexError(index)


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    standard = (x - mean) / torch.sqrt(variance + 1e-6)
    return standard * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(
    x: Tensor,
    places: list[tuple[int, int, int]],
    state: dict[str, Tensor],
    name: str,
    heads: int,
    reads: list[list[int]] | None = None,
) -> Tensor:
    """Attention of one clip [N, D], head by head, with an explicit softmax.

    `reads` lists for each token those that it attends to; all without it.
    """
    reads = reads or [list(range(len(x)))] * len(x)
    width = x.shape[1] // heads
    q, k, v = linear(x, state, f"{name}.qkv").chunk(3, dim=1)
    mixed = []
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        rotated = [
            torch.tensor(
                [
                    rotate_token(row, place)
                    for row, place in zip(part[:, mine].tolist(), places, strict=True)
                ],
                dtype=x.dtype,
            )
            for part in (q, k)
        ]
        scores = rotated[0] @ rotated[1].T / math.sqrt(width)
        rows = []
        for row, read in zip(scores, reads, strict=True):
            weights = torch.exp(row[read] - row[read].max())
            rows.append(weights / weights.sum() @ v[read, mine])
        mixed.append(torch.stack(rows))
    return linear(torch.cat(mixed, dim=1), state, f"{name}.proj")


def block(
    x: Tensor,
    places: list[tuple[int, int, int]],
    state: dict[str, Tensor],
    name: str,
    heads: int,
    reads: list[list[int]] | None = None,
) -> Tensor:
    normed = layer_norm(x, state, f"{name}.norm1")
    x = x + attention(normed, places, state, f"{name}.attn", heads, reads)
    hidden = linear(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2.0)))
    return x + linear(hidden, state, f"{name}.mlp.fc2")
