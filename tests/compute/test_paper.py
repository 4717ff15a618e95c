from __future__ import annotations

from functools import cache

import pytest

from salt_plugin.compute.bill import own_parts
from salt_plugin.compute.pricing import Pricing
from salt_plugin.compute.printed import PRINTED, Printed, printed_table
from salt_plugin.compute.step_costs import CostedMethod, Shapes
from salt_plugin.config.registry import METHODS, get
from salt_plugin.errors import ConfigError
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.models import EncoderShape, PredictorShape
from salt_plugin.shapes import GroupTokens, Tokens

# 16 frames in tubelets of 2x16x16 pixels, and the sizes' parameters as the models have them.
TOKENS = {224: 1568, 256: 2048}
LARGE, GIANT = 303_885_312, 1_012_173_952
HEAD = 22_000_000


def _shapes(encoder: str, teacher: str, tokens: int) -> Shapes:
    named = EncoderShape.named
    return Shapes(named(encoder), named(teacher), PredictorShape(), tokens)


def _paper(
    method: str, encoder: str, teacher: str, clips: int, tokens: int, sets: int = 2
) -> dict[str, int]:
    spec = get(method)
    groups = [GroupTokens(clips, [Tokens(1, 1)] * sets)]
    parts = spec.step.paper(_shapes(encoder, teacher, tokens), groups)
    return own_parts(spec.result, parts)


@cache
def _masks(pixels: int) -> StepMasks:
    side = pixels // 16
    return StepMasks(MultiBlockMasks(), (8, side, side), 0, clips=3072, group=24)


def _total(row: Printed, pixels: int, convention: str) -> int:
    teacher = row.teacher_encoder or row.encoder

    def stage(method: CostedMethod, encoder: str, steps: int) -> int:
        shapes = _shapes(encoder, teacher, TOKENS[pixels])
        pricing = Pricing(method, shapes, _masks(pixels), convention=convention)
        return sum(pricing.expected(steps).values())

    method = get(row.method)
    total = stage(method, row.encoder, row.steps)
    if method.teacher is not None:
        total += stage(method.teacher, teacher, row.teacher_steps)
    return total


def test_every_printed_total_comes_out() -> None:
    rows = printed_table(_total)
    assert len(rows) == len(PRINTED) == 12
    for row in rows:
        assert row["paper"] == pytest.approx(row["printed"], abs=0.05e21), row


@pytest.mark.parametrize(
    ("method", "encoder", "resolution", "printed"),
    [
        ("salt", "vit_large", 224, 1.2e21),
        ("salt", "vit_huge", 224, 1.5e21),
        ("salt", "vit_giant", 224, 1.9e21),
        ("salt", "vit_gigantic", 224, 2.6e21),
        ("vjepa2", "vit_large", 224, 1.4e21),
        ("vjepa2", "vit_huge", 224, 2.6e21),
        ("vjepa2", "vit_large", 256, 1.9e21),
        ("vjepa2", "vit_huge", 256, 3.5e21),
        ("vjepa2", "vit_giant", 256, 5.3e21),
    ],
)
def test_the_table_has_the_rows_of_the_paper(
    method: str, encoder: str, resolution: int, printed: float
) -> None:
    assert any(
        (row.method, row.encoder, row.resolution, row.printed)
        == (method, encoder, resolution, printed)
        for row in PRINTED
    )


def test_rows_at_another_resolution_are_marked_and_told_at_salts() -> None:
    rows = printed_table(_total)
    assert [row["unequal"] for row in rows] == [row["resolution"] != 224 for row in rows]
    # The paper's accuracy-FLOPs rows: charged for 256 pixels, trained at 224.
    equal = [row["paper_at_224"] / 1e21 for row in rows if row["source"] == "accuracy-FLOPs"]
    assert equal == pytest.approx([1.43, 0.95, 0.71], abs=0.006)
    for row in rows:
        if not row["unequal"]:
            assert (row["paper"], row["exact"]) == (row["paper_at_224"], row["exact_at_224"])
        else:
            assert row["exact"] > row["exact_at_224"]


def test_stages_are_the_formulas_of_the_paper() -> None:
    """6 N 0.2 T + 6 N_dec 2 T, then 6 N_student 0.2 T + 6 N_pred 2 T + 2 N_teacher T."""
    for T in TOKENS.values():
        (teacher,) = _paper("pixel_teacher", "vit_large", "vit_large", 5, T).values()
        assert teacher == pytest.approx(5 * (6 * LARGE * 0.2 * T + 6 * HEAD * 2 * T))
        assert _paper("salt", "vit_giant", "vit_large", 5, T) == {
            "teacher_forward": 5 * 2 * LARGE * T,
            "student": pytest.approx(5 * 6 * GIANT * 0.2 * T),
            "predictor": 5 * 6 * HEAD * 2 * T,
        }


def test_methods_differ_as_they_train() -> None:
    sizes = "vit_large", "vit_small"
    costs = {method: _paper(method, *sizes, 1, 1568) for method in METHODS}
    assert costs["vjepa"] == costs["vjepa2"]
    assert costs["vjepa"]["teacher_forward"] == 2 * LARGE * 1568
    assert set(costs["vjepa"]) == {"teacher_forward", "student", "predictor"}
    assert set(costs["videomae"]) == {"student", "decoder"}
    assert costs["pixel_teacher"] == {"teacher_training": sum(costs["videomae"].values())}
    assert [method for method in METHODS if get(method).teacher is not None] == ["salt"]
    one_set = _paper("videomae", *sizes, 1, 1568, sets=1)
    for part, count in one_set.items():
        assert 2 * count == pytest.approx(costs["videomae"][part])


def test_unknown_methods_and_conventions() -> None:
    with pytest.raises(ConfigError, match="convention=printed: expected one of exact, paper"):
        _total(PRINTED[0], 224, "printed")
    with pytest.raises(ConfigError, match="'ijepa' is no method; did you mean 'vjepa'"):
        get("ijepa")
