from __future__ import annotations

from salt_plugin.compute.bill import own_parts
from salt_plugin.compute.cost import pixel_teacher_step, recomputed, salt_step, vjepa_step
from salt_plugin.compute.pricing import Pricing
from salt_plugin.compute.step_costs import Shapes
from salt_plugin.config.registry import get
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.models import EncoderShape, PredictorShape
from salt_plugin.shapes import GroupTokens, Tokens

LARGE, SMALL = EncoderShape.named("vit_large"), EncoderShape.named("vit_small")
PREDICTOR = PredictorShape()
SHAPES = Shapes(LARGE, SMALL, PREDICTOR, 1568)
GROUPS = [
    GroupTokens(24, [Tokens(360, 1064), Tokens(112, 1360)]),
    GroupTokens(23, [Tokens(300, 1100), Tokens(90, 1400)]),
]


def _bill(method: str, groups: list[GroupTokens]) -> dict[str, int]:
    spec = get(method)
    return own_parts(spec.result, spec.step.exact(SHAPES, groups))


def test_parts_are_those_of_a_step_under_the_names_of_a_bill() -> None:
    step = salt_step(LARGE, PREDICTOR, SMALL, 1568, GROUPS)
    assert _bill("salt", GROUPS) == {
        "teacher_forward": step["teacher_forward"],
        "student": step["encoder"],
        "predictor": step["predictor"],
    }
    assert get("salt").teacher is get("pixel_teacher")

    step = vjepa_step(LARGE, PREDICTOR, 1568, GROUPS)
    for method in ("vjepa", "vjepa2"):
        parts = _bill(method, GROUPS)
        assert list(parts) == ["teacher_forward", "student", "predictor", "ema"]
        assert [*parts.values()] == [*step.values()]

    pixels = pixel_teacher_step(LARGE, PREDICTOR, GROUPS)
    assert _bill("videomae", GROUPS) == {"student": pixels["encoder"], "decoder": pixels["decoder"]}
    assert _bill("pixel_teacher", GROUPS) == {"teacher_training": sum(pixels.values())}


def test_a_step_is_priced_by_the_lists_that_it_trains_on() -> None:
    masks = StepMasks(MultiBlockMasks(), (8, 14, 14), 0, clips=13, group=4)
    pricing = Pricing(get("salt"), SHAPES, masks, recomputes=True)
    for step in range(5):
        price, lists = pricing.price(step), masks.index_lists(step, range(13))
        assert price.clips == 13
        assert price.context_tokens == sum(one.context.size for one in lists)
        assert price.target_tokens == sum(one.target.size for one in lists)
        groups = masks.lengths(step)
        assert price.flops == salt_step(LARGE, PREDICTOR, SMALL, 1568, groups)
        assert price.recomputed == recomputed(LARGE, PREDICTOR, groups)
    assert Pricing(get("salt"), SHAPES, masks).price(0).recomputed == 0
