"""Nothing mixes devices, or reads a value back, between a batch on a GPU and its loss.

Fake tensors have a device, a shape and a dtype, and no values: what needs values fails. Backward
passes do not work on them; gradients are made up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_batches import new_batch, new_method, small_config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from salt_plugin.batch import Batch, Normalization
from salt_plugin.config import probe_config, registry
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import encode
from salt_plugin.evaluation.probe_file import save_probe
from salt_plugin.features.pooling import Pooling
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.transforms.preprocessing import Preprocessing

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


def _batch_on_gpu(batch: Batch, mode: FakeTensorMode) -> Batch:
    """Returns what `Batch.to` does; that needs all of a batch to be fake."""
    faked = batch._replace(
        clips=mode.from_tensor(batch.clips),
        labels=mode.from_tensor(batch.labels),
        masks=[
            mask._replace(
                context=mode.from_tensor(mask.context), target=mode.from_tensor(mask.target)
            )
            for mask in batch.masks
        ],
        local_views=None if batch.local_views is None else mode.from_tensor(batch.local_views),
    )
    return faked.to("cuda", non_blocking=True)


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
        loss = method(_batch_on_gpu(batch, fake))
    assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())


@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_what_follows_the_gradients_is_on_the_gpu(
    name: str, fake: FakeTensorMode, tiny_videos: Path
) -> None:
    method = new_method(small_config(name, tiny_videos))
    _on_gpu(method, fake)
    with fake:
        optimizer = method.optimizer()
        for part in method.trained():
            for parameter in part.parameters():
                parameter.grad = torch.randn_like(parameter)
        method.clip(optimizer)
        optimizer.step()
        method.update_ema(0.5)
    assert method.grad_norm.device.type == "cuda"


@pytest.mark.parametrize("pool", ["mean", "time", "attentive"])
def test_fine_tuning_with_mixup_is_on_the_gpu(
    pool: str, fake: FakeTensorMode, tiny_videos: Path
) -> None:
    config = small_config("finetune", tiny_videos)
    config.method.pool, config.method.mixup, config.method.label_smoothing = pool, 0.8, 0.1
    method, batch = new_method(config), new_batch(config)
    _on_gpu(method, fake)
    with fake:
        moved = _batch_on_gpu(batch, fake)
        loss, (_, targets_bc) = method(moved), method.mixed(moved)
        logits_bc = method.logits(moved.normalized())
    for found, shape in ((loss, ()), (targets_bc, (2, 2)), (logits_bc, (2, 2))):
        assert (found.device.type, found.shape) == ("cuda", shape)


def test_probes_on_a_gpu_give_losses_and_logits_on_it(fake: FakeTensorMode) -> None:
    probes = [AttentiveProbe(16, 3, num_heads=2, depth=2) for _ in range(2)]
    for probe in probes:
        _on_gpu(probe, fake)
    with fake:
        logits = ProbeBank(probes, torch.bfloat16).logits(torch.randn(4, 6, 16, device="cuda"))
    assert (logits.device.type, logits.shape) == ("cuda", (2, 4, 3))


def test_a_step_of_probes_reads_nothing_back(
    fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = [AttentiveProbe(16, 3, num_heads=2, depth=2) for _ in range(2)]
    for probe in probes:
        _on_gpu(probe, fake)
    monkeypatch.setattr(Tensor, "backward", lambda loss: None)
    with fake:
        tokens, labels = torch.randn(4, 6, 16, device="cuda"), torch.zeros(4, dtype=torch.long)
        losses_p = ProbeBank(probes, most_tokens=12).backward(tokens, labels.to("cuda"))
    assert (losses_p.device.type, losses_p.shape) == ("cuda", (2,))


@pytest.mark.parametrize(
    ("pool", "layers", "shape"),
    [
        ("mean", None, (2, 128)),
        ("none", None, (2, 32, 128)),
        ("mean", (1, -1), (2, 2, 128)),
        ("attentive", None, (2, 128)),
    ],
)
@pytest.mark.parametrize("cls_token", [False, True])
def test_features_of_windows_are_pooled_on_the_gpu(
    pool: str,
    layers: tuple[int, ...] | None,
    shape: tuple[int, ...],
    cls_token: bool,
    fake: FakeTensorMode,
    tmp_path: Path,
) -> None:
    sizes = replace(EncoderShape.named("vit_nano"), cls_token=cls_token)
    encoder = FrozenEncoder("small", VideoEncoder(sizes))
    if pool == "attentive":
        pool = f"attentive:{tmp_path / 'probe.safetensors'}"
        save_probe(AttentiveProbe(128, 3), tmp_path / "probe.safetensors")
    pooling = Pooling(encoder, pool, layers, Preprocessing(frames=4, size=64))
    _on_gpu(encoder, fake)
    if isinstance(pooling._pool, nn.Module):
        _on_gpu(pooling._pool, fake)
    with fake, torch.inference_mode():
        clips = torch.zeros(2, 3, 4, 64, 64, dtype=torch.uint8)
        features = pooling(Normalization()(clips.to("cuda")))
    if pool == "none":
        shape = (2, 32 + cls_token, 128)
    assert (features.device.type, features.shape) == ("cuda", shape)


@pytest.mark.parametrize("count", [1, 2])
def test_an_evaluation_encodes_on_the_gpu(count: int, fake: FakeTensorMode) -> None:
    encoder = FrozenEncoder("small", VideoEncoder(EncoderShape.named("vit_nano")))
    _on_gpu(encoder, fake)
    with fake:
        config = probe_config(frames=4, size=64, feature_batch_size=3)
        tokens = encode(encoder, torch.randn(2, 2, 3, 4, 64, 64), config, count)
    assert (tokens.device.type, tokens.shape) == ("cuda", (2, 2, 32 * count, 128))


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_on_a_gpu_gives_features_on_it(training: bool, fake: FakeTensorMode) -> None:
    encoder = VideoEncoder(EncoderShape.named("vit_nano"), drop_path=0.1).train(training)
    _on_gpu(encoder, fake)
    with fake:
        features = encoder(torch.randn(2, 3, 4, 32, 32, device="cuda"))
    assert features.device.type == "cuda"
