from __future__ import annotations

import pytest
import torch
from lengths import MASKS

from salt_plugin.compute.cost import Tokens, pixel_teacher_step, salt_step, vjepa_step
from salt_plugin.compute.mask_lengths import draw_lengths
from salt_plugin.compute.step_costs import StepCosts
from salt_plugin.compute.workload import Workload
from salt_plugin.config.registry import METHODS, get
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.models import EncoderShape, PredictorShape

LARGE, SMALL = EncoderShape.named("vit_large"), EncoderShape.named("vit_small")
PREDICTOR = PredictorShape()
ONE = [[Tokens(360, 1064), Tokens(112, 1360)]]


def _costs(method: str, lengths: list[list[Tokens]], clips: int = 24) -> StepCosts:
    workload = Workload(get(method), LARGE, SMALL, PREDICTOR, (8, 14, 14), clips, lengths)
    return workload.step_costs("exact")


def test_parts_are_those_of_a_step_under_the_names_of_a_bill() -> None:
    masks = ONE[0]
    step = salt_step(LARGE, PREDICTOR, SMALL, 24, 1568, masks)
    salt = _costs("salt", ONE)
    assert salt.main == {
        "teacher_forward": step["teacher_forward"],
        "student": step["encoder"],
        "predictor": step["predictor"],
    }
    pixels = pixel_teacher_step(SMALL, PREDICTOR, 24, masks)
    assert salt.teacher == {"teacher_training": sum(pixels.values())}

    step = vjepa_step(LARGE, PREDICTOR, 24, 1568, masks)
    for method in ("vjepa", "vjepa2"):
        costs = _costs(method, ONE)
        assert list(costs.main) == ["teacher_forward", "student", "predictor", "ema"]
        assert [*costs.main.values()] == [*step.values()]

    pixels = pixel_teacher_step(LARGE, PREDICTOR, 24, masks)
    assert _costs("videomae", ONE).main == {
        "student": pixels["encoder"],
        "decoder": pixels["decoder"],
    }
    assert _costs("pixel_teacher", ONE).main == {"teacher_training": sum(pixels.values())}


def test_the_expected_cost_is_the_mean_of_costs() -> None:
    """Not the cost of mean lengths: attention is quadratic."""
    two = [ONE[0], [Tokens(10, 1558), Tokens(1000, 500)]]
    for method in METHODS:
        both, first, second = (_costs(method, lengths) for lengths in (two, two[:1], two[1:]))
        for stage in (0, 1):
            for part, count in both[stage].items():
                assert count == pytest.approx((first[stage][part] + second[stage][part]) / 2)


@pytest.mark.parametrize("batch_size", [4, 24])
def test_what_is_expected_is_what_masks_of_training_come_to(batch_size: int) -> None:
    draws, generator = 500, torch.Generator().manual_seed(0)
    spent = 0
    for _ in range(draws):
        masks = MultiBlockMasks()(batch_size, (8, 14, 14), generator)
        lengths = [Tokens(mask.context.shape[1], mask.target.shape[1]) for mask in masks]
        spent += sum(salt_step(LARGE, PREDICTOR, SMALL, batch_size, 1568, lengths).values())
    lengths = draw_lengths(MASKS, (8, 14, 14), batch_size, 1000, seed=0)
    expected = sum(_costs("salt", lengths, clips=batch_size).main.values())
    assert expected == pytest.approx(spent / draws, rel=0.015)


def test_stages_add_up() -> None:
    costs = _costs("salt", ONE)
    parts = costs.spent(steps=7, teacher_steps=3)
    assert parts == {
        "teacher_training": 3 * costs.teacher["teacher_training"],
        **{part: 7 * count for part, count in costs.main.items()},
    }
    assert _costs("vjepa", ONE).spent(2)["ema"] == 2 * _costs("vjepa", ONE).main["ema"]
