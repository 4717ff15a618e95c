"""Nothing mixes devices, or reads a value back, between a batch on a GPU and its loss.

Fake tensors have a device, a shape and a dtype, and no values: what needs values fails. Backward
passes do not work on them.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from small_run import SMALL
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.config import RunConfig, compose, load_config, registry
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.masks import StepMasks
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import EncoderShape, FrozenTeacher, VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.shapes import local_side
from salt_plugin.training.parts import build_parts

CLIPS = 2

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="fake tensors on GPUs need a CUDA build of torch"
)


@pytest.fixture
def fake() -> FakeTensorMode:
    return FakeTensorMode()


def _on_gpu(root: nn.Module, mode: FakeTensorMode) -> None:
    with mode:
        for module in root.modules():
            for name, tensor in module.named_parameters(recurse=False):
                moved = _moved(tensor, mode).detach()
                module._parameters[name] = nn.Parameter(moved, tensor.requires_grad)
            for name, tensor in module.named_buffers(recurse=False):
                module._buffers[name] = _moved(tensor, mode)


def _moved(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    return mode.from_tensor(tensor).to("cuda")


@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_the_loss_of_a_batch_on_a_gpu_is_on_it(
    name: str, fake: FakeTensorMode, tiny_videos: Path
) -> None:
    config = load_config(compose([f"method={name}", f"input_dir={tiny_videos}", *SMALL]))
    method, batch = _method(config), _batch(config)
    _on_gpu(method, fake)
    with fake:
        moved = Batch(
            clips=_moved(batch.clips, fake),
            labels=batch.labels,
            masks=[
                mask._replace(context=_moved(mask.context, fake), target=_moved(mask.target, fake))
                for mask in batch.masks
            ],
            local_views=None if batch.local_views is None else _moved(batch.local_views, fake),
        )
        loss = method(moved)
    assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())


def test_probes_on_a_gpu_give_losses_and_logits_on_it(fake: FakeTensorMode) -> None:
    probes = [AttentiveProbe(16, 3, num_heads=2, depth=2) for _ in range(2)]
    for probe in probes:
        _on_gpu(probe, fake)
    with fake:
        logits = ProbeBank(probes, torch.bfloat16).logits(torch.randn(4, 6, 16, device="cuda"))
    assert (logits.device.type, logits.shape) == ("cuda", (2, 4, 3))


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_on_a_gpu_gives_features_on_it(training: bool, fake: FakeTensorMode) -> None:
    encoder = VideoEncoder(EncoderShape.named("vit_nano"), drop_path=0.1).train(training)
    _on_gpu(encoder, fake)
    with fake:
        features = encoder(torch.randn(2, 3, 4, 32, 32, device="cuda"))
    assert features.device.type == "cuda"


def _method(config: RunConfig) -> VideoMethod:
    spec, parts = registry.get(config.method.name), build_parts(config)
    teacher = FrozenTeacher(VideoEncoder(parts.teacher)) if spec.teacher else None
    kind: type[VideoMethod] = resolve_name(spec.method)
    encoder = VideoEncoder(parts.encoder, drop_path=0.1)
    return kind.configured(config.method, parts, encoder, Recipe(total_steps=10), teacher)


def _batch(config: RunConfig) -> Batch:
    parts, clip = build_parts(config), config.method.clip
    masks = StepMasks(parts.masks, parts.grid, seed=0, clips=CLIPS, group=CLIPS)
    clips = torch.zeros(CLIPS, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
    sets, local_views = mask_sets(masks, 0, range(CLIPS)), None
    if views := parts.transform.local_views:
        side = local_side(clip.size, config.method.model.patch_size)
        shape = (CLIPS, views, 3, clip.frames, side, side)
        local_views = torch.zeros(shape, dtype=torch.uint8)
    return Batch(clips, torch.full((CLIPS,), -1), sets, local_views=local_views)
