"""The closed form of a step's memory, against the allocator's peak by torch's profiler."""

from __future__ import annotations

from itertools import accumulate
from pkgutil import resolve_name

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.compute.memory import Execution, predictor_parameters, step_memory
from salt_plugin.compute.step_costs import Shapes
from salt_plugin.config import RunConfig, registry
from salt_plugin.config.planning import load_alone
from salt_plugin.masks import StepMasks
from salt_plugin.methods import Recipe
from salt_plugin.models import FrozenTeacher, Predictor, PredictorShape, VideoEncoder
from salt_plugin.shapes import EncoderShape, local_side
from salt_plugin.training.parts import Parts, build_parts

NANO = "method.encoder=vit_nano method.clip.size=64 method.model.patch_size=8 loader.batch_size=8"
TINY = "method.encoder=vit_tiny method.clip.size=112 loader.batch_size=4"
SMALL = "method.encoder=vit_small method.clip.size=96 loader.batch_size=2"
CASES = {
    "nano": f"method=salt {NANO} trainer.precision=32",
    "nano, bf16": f"method=levjepa {NANO}",
    "nano, bf16, two micro-batches": f"method=vjepa2 {NANO} method.global_batch_size=16",
    "nano, bf16, checkpointing": (
        f"method=vjepa {NANO} method.model.activation_checkpointing=true"
    ),
    "tiny": f"method=pixel_teacher {TINY} trainer.precision=32",
    "tiny, bf16": f"method=salt {TINY} method.teacher.encoder=vit_small loader.batch_size=2",
    "tiny, two micro-batches": (
        f"method=vjepa2 {TINY} method.global_batch_size=8 trainer.precision=32"
    ),
    "tiny, checkpointing": (
        f"method=vjepa {TINY} method.model.activation_checkpointing=true trainer.precision=32"
    ),
    "small": f"method=vjepa2 {SMALL} trainer.precision=32",
    "tiny videomae, bf16": f"method=videomae {TINY}",
}


@pytest.mark.parametrize("case", CASES)
def test_the_peak_of_a_step(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # On CPUs few tokens in bfloat16 take another path through attention than on GPUs.
    monkeypatch.setattr("salt_plugin.models.attention.MOST_SCORED_TOKENS", 0)
    config = load_alone(CASES[case].split())
    method, spec, parts = config.method, registry.get(config.method.name), build_parts(config)
    half = config.trainer.precision == "bf16-mixed"
    clips = config.loader.batch_size
    count = (method.global_batch_size or clips) // clips

    torch.manual_seed(0)
    kind = resolve_name(spec.method)
    frozen = None
    if spec.teacher:
        frozen = FrozenTeacher(VideoEncoder(parts.teacher), torch.bfloat16 if half else None)
    trained = kind.configured(method, parts, VideoEncoder(parts.encoder), Recipe(10), frozen)
    for stack in trained.block_stacks():
        stack.activation_checkpointing = method.model.activation_checkpointing
    masks = StepMasks(parts.masks, parts.grid, seed=0, clips=clips, group=clips)
    batch = _batch(config, parts, masks)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for _ in range(count):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = trained(batch)
            loss.backward()
    results = profiled.profiler.kineto_results.events()
    changes = sorted((one.start_ns(), one.nbytes()) for one in results if one.name() == "[memory]")
    peak = max(accumulate(change for _, change in changes))
    weights = sum(one.numel() * one.element_size() for one in trained.parameters())
    averages = 8 * sum(_count(module) for module in trained.trained())
    found = weights + averages + batch.clips.numel() + peak

    teacher = parts.teacher if spec.teacher else parts.encoder
    T, H, W = parts.grid
    shapes = Shapes(parts.encoder, teacher, parts.predictor_of(parts.encoder), T * H * W)
    value = 2 if half else 4
    how = Execution(clips, count, 1, value, value, method.model.activation_checkpointing)
    said = step_memory(spec.step, shapes, masks.lengths(0)[0].masks, how)
    assert sum(said.values()) == pytest.approx(found, rel=0.1)


def _batch(config: RunConfig, parts: Parts, masks: StepMasks) -> Batch:
    clip, clips = config.method.clip, masks.clips
    whole = torch.zeros(clips, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
    local_views = None
    if views := parts.transform.local_views:
        side = local_side(clip.size, config.method.model.patch_size)
        local_views = torch.zeros(clips, views, 3, clip.frames, side, side, dtype=torch.uint8)
    sets = mask_sets(masks, 0, range(clips))
    return Batch(whole, torch.arange(clips), sets, 0, local_views=local_views)


def test_parameters_of_a_predictor() -> None:
    shape = PredictorShape.beside(EncoderShape.named("vit_base"), 2)
    with torch.device("meta"):
        made = Predictor(768, 1024, shape)
    assert predictor_parameters(shape, 768, 1024) == _count(made)


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
