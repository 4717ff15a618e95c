from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from salt_plugin.compute.cost import Tokens, encoder_forward
from salt_plugin.compute.mask_lengths import draw_lengths
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.masks import MaskGenerator, MultiBlockMasks, TubeMasks
from salt_plugin.shapes import EncoderShape, Grid

MULTIBLOCK = {"_target_": "salt_plugin.masks.MultiBlockMasks"}
TUBE = {"_target_": "salt_plugin.masks.TubeMasks"}


def _measured(masks: MaskGenerator, grid: Grid, batch_size: int, draws: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.array(
        [
            [
                (mask.context.shape[1], mask.target.shape[1])
                for mask in masks(batch_size, grid, generator)
            ]
            for _ in range(draws)
        ]
    )


def _mean_cost(lengths: np.ndarray) -> float:
    large = EncoderShape.named("vit_large")
    return float(np.mean([sum(encoder_forward(large, int(k)) for k in d[:, 0]) for d in lengths]))


@pytest.mark.parametrize(
    ("grid", "batch_size", "draws"),
    [
        ((8, 14, 14), 1, 3000),
        ((8, 14, 14), 24, 600),
        ((8, 16, 16), 8, 800),
        ((4, 4, 4), 16, 3000),
        ((3, 5, 9), 4, 3000),
    ],
)
def test_means_are_those_of_the_masks_that_train(grid: Grid, batch_size: int, draws: int) -> None:
    drawn = np.array(draw_lengths(MULTIBLOCK, grid, batch_size, draws, seed=0))
    measured = _measured(MultiBlockMasks(), grid, batch_size, draws)
    # A hundredth of the clip, and four standard errors of their difference.
    tokens = np.prod(grid)
    assert np.abs(drawn.mean(0) - measured.mean(0)).max() < 0.01 * tokens
    error = np.sqrt((drawn.var(0) + measured.var(0)) / draws)
    assert (np.abs(drawn.mean(0) - measured.mean(0)) <= 4 * error).all()
    assert _mean_cost(drawn) == pytest.approx(_mean_cost(measured), rel=0.03)


def test_arguments_of_the_node_hold() -> None:
    gentle = {"short_range": {"num_blocks": 2, "scale": 0.2}, "aspect_ratio": [1.0, 1.0]}
    drawn = np.array(draw_lengths(MULTIBLOCK | gentle, (8, 14, 14), 4, 600, seed=1))
    measured = _measured(MultiBlockMasks(**gentle), (8, 14, 14), 4, 600)
    assert np.abs(drawn.mean(0) - measured.mean(0)).max() < 0.01 * 1568


@pytest.mark.parametrize("ratio", [0.9, 0.5])
@pytest.mark.parametrize("num_sets", [1, 2])
def test_tubes_leave_the_same_in_every_batch(ratio: float, num_sets: int) -> None:
    node = TUBE | {"ratio": ratio, "num_sets": num_sets}
    (found,) = draw_lengths(node, (8, 14, 14), 24, 100, seed=0)
    (expected,) = _measured(TubeMasks(ratio, num_sets), (8, 14, 14), 24, 1).tolist()
    assert found == [Tokens(*lengths) for lengths in expected]


def test_draws_are_a_function_of_the_seed() -> None:
    first, again, other = (
        draw_lengths(MULTIBLOCK, (8, 14, 14), 4, 20, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_defaults_name_masks_that_are_known() -> None:
    for name in ("multiblock", "tube"):
        cfg = compose(["method=salt", f"method/masks={name}", "input_dir=VIDEOS"])
        assert draw_lengths(cfg.method.masks, (8, 14, 14), 2, 1, seed=0)


def test_other_masks_and_bad_numbers() -> None:
    with pytest.raises(ConfigError, match=r"_target_='mine\.Masks'.*expected one of salt_plugin"):
        draw_lengths({"_target_": "mine.Masks"}, (8, 14, 14), 4, 10, seed=0)
    with pytest.raises(ConfigError, match=r"ratio=1\.5"):
        draw_lengths(TUBE | {"ratio": 1.5}, (8, 14, 14), 4, 10, seed=0)
    with pytest.raises(ConfigError, match="leave no context on a grid of 1x1"):
        draw_lengths(MULTIBLOCK, (8, 1, 1), 4, 10, seed=0)


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, salt_plugin.compute.mask_lengths as m;"
        "m.draw_lengths({'_target_': 'salt_plugin.masks.MultiBlockMasks'}, (8, 14, 14), 4, 5, 0);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
