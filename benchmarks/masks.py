"""Mask sets a second: the generator against the obvious loop over clips and blocks.

    python benchmarks/masks.py [--batch-size 24] [--size 224] [--json]

Both draw V-JEPA's two mask sets for a batch (docs/benchmarks/masks.md).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from itertools import count

import torch

from salt_plugin.batch import MaskSet, mask_sets
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.shapes import EncoderShape, Grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="a loader worker has one")
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grid = EncoderShape.named("vit_large").grid(arguments.frames, arguments.size, arguments.size)
    masks, generator, steps = MultiBlockMasks(), torch.Generator().manual_seed(0), count()
    _check(masks, grid, arguments.batch_size)
    ours, loop = [], []
    for _ in range(arguments.rounds + 1):
        ours.append(
            _seconds(lambda: _ours(masks, arguments.batch_size, grid, next(steps)), repeats=50)
        )
        loop.append(_seconds(lambda: _loop(masks, arguments.batch_size, grid, generator)))
    sets = len(masks.specs) * arguments.batch_size
    result = {
        "grid": grid,
        "batch_size": arguments.batch_size,
        "ours_masks_per_s": sets / statistics.median(ours[1:]),
        "loop_masks_per_s": sets / statistics.median(loop[1:]),
        "ratio": statistics.median(b / a for a, b in zip(ours[1:], loop[1:], strict=True)),
    }
    print(f"grid {grid}, {arguments.batch_size} clips, two mask sets each, median of rounds")
    print(f"  loop {result['loop_masks_per_s']:12,.0f} masks/s")
    print(
        f"  ours {result['ours_masks_per_s']:12,.0f} masks/s: {result['ratio']:.1f} times the loop"
    )
    if arguments.json:
        print(json.dumps(result))


def _ours(masks: MultiBlockMasks, batch_size: int, grid: Grid, step: int) -> list[MaskSet]:
    """A group of so many clips."""
    return mask_sets(StepMasks(masks, grid, 0, batch_size, batch_size), step, range(batch_size))


def _loop(
    masks: MultiBlockMasks, batch_size: int, grid: Grid, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As V-JEPA's collator: a tensor for each block of each clip, multiplied together."""
    frames, height, width = grid
    sets = []
    for spec in masks.specs:
        low, high = masks.aspect_ratio
        ratio = low + (high - low) * torch.rand(1, generator=generator).item()
        area = int(height * width * spec.scale)
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        columns = min(width, max(1, round(math.sqrt(area / ratio))))
        contexts, targets = [], []
        for _ in range(batch_size):
            kept = torch.zeros(0)
            while not kept.any():
                kept = torch.ones(frames, height, width, dtype=torch.int32)
                for _ in range(spec.num_blocks):
                    block = torch.ones(frames, height, width, dtype=torch.int32)
                    top = torch.randint(0, height - rows + 1, (1,), generator=generator)
                    left = torch.randint(0, width - columns + 1, (1,), generator=generator)
                    block[:, top : top + rows, left : left + columns] = 0
                    kept *= block
            contexts.append(torch.nonzero(kept.flatten()).squeeze(1))
            targets.append(torch.argwhere(kept.flatten() == 0).squeeze(1))
        shortest = [min(map(len, lists)) for lists in (contexts, targets)]
        sets.append(
            (
                torch.stack([context[: shortest[0]] for context in contexts]),
                torch.stack([target[: shortest[1]] for target in targets]),
            )
        )
    return sets


def _check(masks: MultiBlockMasks, grid: Grid, batch_size: int) -> None:
    """Both keep the same share of tokens on average."""
    generator = torch.Generator().manual_seed(1)
    ours = [_ours(masks, batch_size, grid, step) for step in range(30)]
    loop = [_loop(masks, batch_size, grid, generator) for _ in range(30)]
    for number in range(len(masks.specs)):
        kept = [
            statistics.mean(sets[number][0].shape[1] for sets in draws) / math.prod(grid)
            for draws in (ours, loop)
        ]
        assert abs(kept[0] - kept[1]) < 0.03, kept


def _seconds(draw: Callable[[], object], repeats: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        draw()
    return (time.perf_counter() - began) / repeats


if __name__ == "__main__":
    main()
