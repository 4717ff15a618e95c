from __future__ import annotations

import pytest
import torch
from counting import indices, torch_flops
from torch import nn

from salt_plugin.batch import Batch, MaskSet, mask_sets
from salt_plugin.compute.cost import (
    classification_step,
    encoder_forward,
    encoder_parameters,
    multi_view_step,
    pixel_teacher_step,
    predictor_forward,
    recomputed,
    salt_step,
    vjepa_step,
)
from salt_plugin.compute.counter import count_flops
from salt_plugin.compute.paper import paper_views
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import MultiBlockMasks, StepMasks, TokenDropping
from salt_plugin.methods import SALT, FineTune, LeVJEPA, PixelTeacher, Recipe
from salt_plugin.models import (
    ENCODER_SIZES,
    EncoderShape,
    FrozenTeacher,
    Head,
    Predictor,
    PredictorShape,
    VideoEncoder,
)
from salt_plugin.shapes import GroupTokens, HeadShape, ProjectorShape, Tokens

TINY = EncoderShape.named("vit_tiny")
# A MLP ratio that is no whole number, heads that leave channels unrotated, odd tubelets.
CROOKED = EncoderShape("crooked", 66, 2, 3, mlp_ratio=48 / 11, patch_size=8, tubelet_size=4)
CAUSAL = EncoderShape("causal", 48, 2, 3, patch_size=8, cls_token=True, block_causal=True)
PREDICTOR = PredictorShape(dim=48, depth=3, num_heads=3)
GRID = (4, 6, 6)


@pytest.mark.parametrize(
    ("shape", "clip"), [(TINY, (8, 96, 96)), (CROOKED, (8, 32, 48)), (CAUSAL, (8, 32, 48))]
)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_encoder_costs_what_both_counters_say(
    shape: EncoderShape, clip: tuple[int, int, int], share: float
) -> None:
    encoder, grid = VideoEncoder(shape).eval(), shape.grid(*clip)
    total = grid[0] * grid[1] * grid[2]
    kept = int(total * share)
    inputs = (torch.randn(2, 3, *clip), indices(2, kept, total))
    closed = 2 * encoder_forward(shape, kept)
    assert sum(count_flops(encoder, inputs).values()) == pytest.approx(closed, rel=1e-3)
    assert torch_flops(lambda: encoder(*inputs)) == pytest.approx(closed, rel=1e-3)


def test_predictor_costs_what_both_counters_say() -> None:
    predictor = Predictor(192, 130, PREDICTOR)
    inputs = (torch.randn(2, 31, 192), indices(2, 31, 144), indices(2, 77, 144), GRID)
    closed = 2 * predictor_forward(PREDICTOR, 192, 130, Tokens(31, 77))
    assert sum(count_flops(predictor, inputs).values()) == pytest.approx(closed, rel=1e-3)
    assert torch_flops(lambda: predictor(*inputs)) == pytest.approx(closed, rel=1e-3)


def _batch() -> tuple[Batch, list[GroupTokens]]:
    """Five clips in groups of three and two."""
    masks = StepMasks(MultiBlockMasks(), GRID, seed=0, clips=5, group=3)
    batch = Batch(torch.randn(5, 3, 8, 48, 48), torch.zeros(5), mask_sets(masks, 0, range(5)))
    return batch, masks.lengths(0)


def _small(dim: int, depth: int) -> EncoderShape:
    return EncoderShape(f"{dim}", dim, depth, 3, patch_size=8)


def _embedding_backward(shape: EncoderShape, masks: list[MaskSet]) -> int:
    """Pixels need no gradient, so of two products the embedding's backward makes one only."""
    tokens = sum(mask.context.numel() for mask in masks)
    return 2 * tokens * shape.patch_dim * shape.embed_dim


def test_a_step_of_salt_costs_what_torch_counts_forward_and_backward() -> None:
    student, teacher = _small(48, 2), _small(96, 3)
    method = SALT(
        VideoEncoder(student),
        Predictor(48, 96, PREDICTOR),
        FrozenTeacher(VideoEncoder(teacher)),
        LatentLoss(),
        Recipe(10),
    )
    batch, groups = _batch()
    parts = salt_step(student, PREDICTOR, teacher, 144, groups)
    assert set(parts) == {"teacher_forward", "encoder", "predictor"}
    measured = torch_flops(lambda: method(batch).backward())
    closed = sum(parts.values()) - _embedding_backward(student, batch.masks)
    assert measured == pytest.approx(closed, rel=1e-3)


def test_a_step_of_the_pixel_teacher_costs_what_torch_counts() -> None:
    shape = _small(48, 2)
    method = PixelTeacher(
        VideoEncoder(shape), Predictor(48, shape.patch_dim, PREDICTOR), PixelLoss(), Recipe(10)
    )
    batch, groups = _batch()
    parts = pixel_teacher_step(shape, PREDICTOR, groups)
    assert set(parts) == {"encoder", "decoder"}
    measured = torch_flops(lambda: method(batch).backward())
    closed = sum(parts.values()) - _embedding_backward(shape, batch.masks)
    assert measured == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize("name", ENCODER_SIZES)
def test_parameters_of_every_size(name: str) -> None:
    shape = EncoderShape.named(name)
    with torch.device("meta"):
        encoder = VideoEncoder(shape)
    assert encoder_parameters(shape) == _parameters(encoder)


def test_parameters_of_shapes_with_odd_numbers() -> None:
    for shape in (CROOKED, CAUSAL):
        assert encoder_parameters(shape) == _parameters(VideoEncoder(shape))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_step_of_vjepa_is_that_of_salt_with_a_teacher_of_its_size_and_its_update() -> None:
    student, groups = _small(48, 2), [GroupTokens(24, [Tokens(40, 100), Tokens(12, 130)])]
    parts = vjepa_step(student, PREDICTOR, 144, groups)
    assert list(parts) == ["teacher_forward", "encoder", "predictor", "ema"]
    assert parts.pop("ema") == 3 * encoder_parameters(student)
    assert parts == salt_step(student, PREDICTOR, student, 144, groups)


def test_recomputation_costs_what_torch_counts_more() -> None:
    student, teacher = _small(48, 2), _small(96, 3)
    method = SALT(
        VideoEncoder(student),
        Predictor(48, 96, PREDICTOR),
        FrozenTeacher(VideoEncoder(teacher)),
        LatentLoss(),
        Recipe(10),
    )
    batch, groups = _batch()
    plain = torch_flops(lambda: method(batch).backward())
    method.student.blocks.activation_checkpointing = True
    method.predictor.predictor_blocks.activation_checkpointing = True
    again = torch_flops(lambda: method(batch).backward())
    assert again - plain == pytest.approx(recomputed(student, PREDICTOR, groups), rel=1e-3)


def test_close_to_the_papers_formula_where_that_holds() -> None:
    """2 N D without attention's quadratic term, position by position (paper, section 4)."""
    large, tokens = EncoderShape.named("vit_large"), 1568
    quadratic = 2 * 24 * 2 * tokens**2 * 1024
    formula = 2 * 303_885_312 * tokens
    assert encoder_forward(large, tokens) - quadratic == pytest.approx(formula, rel=2e-3)


def test_parts_scale_with_clips_and_add_up_over_masks_and_groups() -> None:
    large, masks = EncoderShape.named("vit_large"), [Tokens(360, 1200), Tokens(110, 1400)]
    other = [Tokens(300, 1250), Tokens(90, 1450)]
    one, two, many = (
        salt_step(large, PredictorShape(), large, 1568, groups)
        for groups in (
            [GroupTokens(1, masks)],
            [GroupTokens(1, other)],
            [GroupTokens(24, masks), GroupTokens(3, other)],
        )
    )
    assert many == {part: 24 * count + 3 * two[part] for part, count in one.items()}
    assert one["encoder"] == 3 * (encoder_forward(large, 360) + encoder_forward(large, 110))
    assert one["teacher_forward"] == encoder_forward(large, 1568)


def _views() -> tuple[LeVJEPA, Batch, list[GroupTokens]]:
    """Five clips in groups of three and two, with two local views each."""
    method = LeVJEPA(VideoEncoder(CAUSAL), ProjectorShape(40, 24, 32), Recipe(10))
    masks = StepMasks(TokenDropping(0.6, 2), GRID, seed=0, clips=5, group=3)
    batch = Batch(
        torch.randn(5, 3, 8, 48, 48),
        torch.zeros(5),
        mask_sets(masks, 0, range(5)),
        local_views=torch.randn(5, 2, 3, 8, 24, 24),
    )
    return method, batch, masks.lengths(0)


def test_a_step_of_levjepa_costs_what_torch_counts_forward_and_backward() -> None:
    method, batch, groups = _views()
    parts = multi_view_step(CAUSAL, ProjectorShape(40, 24, 32), groups)
    assert list(parts) == ["encoder", "projector", "ema"]
    assert parts.pop("ema") == 3 * encoder_parameters(CAUSAL)
    measured = torch_flops(lambda: method(batch).backward())
    # Directions need no gradient either: of their product too, the backward pass makes one.
    directions = 2 * 5 * 3 * 24 * 32
    closed = sum(parts.values()) - _embedding_backward(CAUSAL, batch.masks) - directions
    assert measured == pytest.approx(closed, rel=1e-3)


def test_the_forward_pass_of_levjepa_costs_what_fvcore_counts() -> None:
    method, batch, groups = _views()
    parts = multi_view_step(CAUSAL, ProjectorShape(40, 24, 32), groups)
    context, *local = batch.contexts()
    assert batch.local_views is not None
    encoded = sum(
        sum(count_flops(method.encoder.eval(), (clips, indices)).values())
        for clips, indices in (
            (batch.clips, context),
            (batch.local_views.transpose(0, 1).flatten(0, 1), torch.cat(local)),
        )
    )
    assert 3 * encoded == pytest.approx(parts["encoder"], rel=1e-3)
    cls_tokens, z_vbd = torch.randn(15, 48), torch.randn(3, 5, 24)
    projected = sum(count_flops(method.projector, cls_tokens).values())
    # SIGReg itself ends in a product with a vector, for which fvcore has no count.
    regularized = sum(count_flops(nn.Linear(24, 32, bias=False), z_vbd).values())
    assert 3 * (projected + regularized) == pytest.approx(parts["projector"], rel=1e-3)


def test_levjepa_at_paper_scale() -> None:
    """458 tokens a clip through ViT-L: 0.83 TFLOP by 6 N D; less than half of SALT's 1.94."""
    large = EncoderShape.named("vit_large", tubelet_size=1, cls_token=True, block_causal=True)
    (group,) = StepMasks(TokenDropping(0.95, 10), (16, 14, 14), 0, clips=1, group=1).lengths(0)
    assert sum(mask.context + 1 for mask in group.masks) == 458
    assert paper_views(large, [group])["encoder"] == pytest.approx(0.83e12, rel=0.01)
    exact = multi_view_step(large, ProjectorShape(), [group])
    assert exact["encoder"] == pytest.approx(0.83e12, rel=0.02)
    assert exact["projector"] < 0.001 * exact["encoder"]


def test_recomputation_of_levjepa_costs_what_torch_counts_more() -> None:
    method, batch, groups = _views()
    plain = torch_flops(lambda: method(batch).backward())
    method.encoder.blocks.activation_checkpointing = True
    again = torch_flops(lambda: method(batch).backward())
    assert again - plain == pytest.approx(recomputed(CAUSAL, None, groups), rel=1e-3)


@pytest.mark.parametrize("pool", ["mean", "time", "attentive"])
@pytest.mark.parametrize("shape", [_small(48, 2), CAUSAL])
def test_a_step_of_fine_tuning_costs_what_both_counters_say(pool: str, shape: EncoderShape) -> None:
    head = HeadShape(pool, classes=7, frames=8 // shape.tubelet_size)
    method = FineTune(VideoEncoder(shape), Head(shape, head), Recipe(10)).eval()
    tokens = head.frames * 36
    batch = Batch(torch.randn(4, 3, 8, 48, 48), torch.arange(4), [])
    parts = classification_step(shape, head, [GroupTokens(4, [Tokens(tokens, 0)])])
    assert list(parts) == ["encoder", "head"]
    encoded = method.encoder(batch.clips).detach()
    counted = {
        "encoder": count_flops(method.encoder, batch.clips),
        "head": count_flops(method.head, encoded),
    }
    for part, found in counted.items():
        assert 3 * sum(found.values()) == pytest.approx(parts[part], rel=1e-3)
    measured = torch_flops(lambda: method(batch).backward())
    embedding = 2 * 4 * tokens * shape.patch_dim * shape.embed_dim  # pixels need no gradient
    assert measured == pytest.approx(sum(parts.values()) - embedding, rel=1e-3)
