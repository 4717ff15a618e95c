"""Nothing mixes devices, or reads a value back, between a batch on a GPU and its loss.

Fake tensors have a device, a shape and a dtype, and no values: what needs values fails. Backward
passes do not work on them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from method_batches import new_batch, new_method, small_config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from salt_plugin.batch import Batch
from salt_plugin.config import registry
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe

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
    config = small_config(name, tiny_videos)
    method, batch = new_method(config, drop_path=0.1), new_batch(config)
    _on_gpu(method, fake)
    with fake:
        moved = Batch(
            clips=_moved(batch.clips, fake),
            labels=_moved(batch.labels, fake),
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
