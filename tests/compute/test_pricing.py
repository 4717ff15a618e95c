"""Prices before training: what steps are expected to cost, and how many a budget pays for."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pytest

from salt_plugin.compute.pricing import WALKED, Pricing
from salt_plugin.compute.step_costs import CONVENTIONS, Shapes
from salt_plugin.config.registry import METHODS, get
from salt_plugin.errors import ConfigError
from salt_plugin.masks import MaskGenerator, MultiBlockMasks, StepMasks
from salt_plugin.shapes import EncoderShape, PredictorShape

SMALL = (4, 4, 4)


def _pricing(
    method: str = "salt",
    grid: tuple[int, int, int] = SMALL,
    clips: int = 6,
    group: int = 4,
    masks: MaskGenerator | None = None,
    convention: str = "exact",
) -> Pricing:
    encoder, teacher = EncoderShape.named("vit_small"), EncoderShape.named("vit_tiny")
    shapes = Shapes(encoder, teacher, PredictorShape(96, 2, 3), int(np.prod(grid)))
    drawn = StepMasks(masks or MultiBlockMasks(), grid, seed=3, clips=clips, group=group)
    return Pricing(get(method), shapes, drawn, convention=convention)


def _costs(pricing: Pricing, steps: int) -> list[int]:
    return [sum(pricing.price(step).flops.values()) for step in range(steps)]


@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_are_priced_as_they_will_be(method: str) -> None:
    pricing = _pricing(method)
    counted = Counter[str]()
    for step in range(7):
        counted.update(pricing.price(step).flops)
    expected = pricing.expected(7)
    assert sum(expected.values()) == sum(counted.values())
    assert expected.get("student", expected.get("teacher_training")) in (
        counted["encoder"],
        counted["encoder"] + counted["decoder"],
    )
    assert sum(pricing.expected(0).values()) == 0


def test_a_budget_pays_for_the_steps_that_fit_and_not_for_one_more() -> None:
    pricing = _pricing()
    spent = [0, *accumulate(_costs(pricing, 40))]
    for steps in range(1, 40):
        assert pricing.affordable(spent[steps]) == steps
        assert pricing.affordable(spent[steps] - 1) == steps - 1
    assert pricing.affordable(1) == 0


def test_beyond_what_is_drawn_the_mean_is_good_to_a_hundredth() -> None:
    pricing = _pricing(clips=4)
    spent = list(accumulate(_costs(pricing, 2 * WALKED)))
    steps = len(spent)
    assert pricing.affordable(spent[-1]) == pytest.approx(steps, rel=0.01)
    assert sum(pricing.expected(steps).values()) == pytest.approx(spent[-1], rel=0.02)
    planned = pricing.affordable(spent[-1])
    total = sum(pricing.expected(planned, WALKED).values())
    assert total <= spent[-1] < total + 2 * spent[0]


def test_large_steps_are_priced_from_a_few_of_their_groups() -> None:
    pricing = _pricing(grid=(8, 14, 14), clips=240, group=24)
    costs = _costs(pricing, 60)
    assert sum(pricing.expected(60).values()) == pytest.approx(sum(costs), rel=0.02)
    assert pricing.affordable(sum(costs)) in (59, 60, 61)
    assert pricing.affordable(costs[0]) == 1  # the first step is priced as it will be
    assert pricing.affordable(costs[0] - 1) == 0


def test_a_price_counts_clips_and_tokens() -> None:
    pricing = _pricing(clips=6, group=4)
    price = pricing.price(5)
    groups = pricing.masks.lengths(5)
    assert [group.clips for group in groups] == [3, 3]
    assert price.clips == 6
    assert price.context_tokens == sum(3 * mask.context for g in groups for mask in g.masks)
    assert price.target_tokens == sum(3 * mask.target for g in groups for mask in g.masks)
    assert price.recomputed == 0


def test_the_paper_convention_knows_no_masks() -> None:
    pricing = _pricing(convention="paper")
    step = sum(pricing.expected(1).values())
    assert sum(pricing.expected(1000).values()) == 1000 * step
    assert pricing.affordable(10 * step + 1) == 10
    with pytest.raises(ConfigError, match=r"convention=other: expected one of exact, paper"):
        _pricing(convention="other")
    assert CONVENTIONS == ("exact", "paper")


@dataclass
class LastFrame(MaskGenerator):
    """Masks of a user's own, which differ between frames, and have no hash."""

    num_sets: int = 1

    def hidden(self, number, clips, grid, of_step, of_group):  # type: ignore[no-untyped-def]
        frames, height, width = grid
        return np.repeat(np.arange(frames) == frames - 1, height * width)[None].repeat(clips, 0)


def test_masks_of_a_users_own_are_priced_as_well() -> None:
    pricing = _pricing(masks=LastFrame())
    price = pricing.price(0)
    assert (price.context_tokens, price.target_tokens) == (6 * 48, 6 * 16)
    assert pricing.affordable(11 * _costs(pricing, 1)[0]) == 11


def test_pricing_needs_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/compute'); import salt_plugin.compute.pricing;"
        "import salt_plugin.training.plan; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
