"""What a CPU computes, a GPU computes too; and no step waits for it.

`SALT_GPU_TESTS=cpu` runs these on a CPU, where they show only that they run.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import outcome
import pytest
import torch
from faults import power_failure, spoilt
from method_batches import new_batch, new_method, small_config
from small_run import TINY
from torch import Tensor, nn

from salt_plugin.config import compose, registry
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.methods import VideoMethod
from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training.checkpoint import on_host

ON_CPU = os.environ.get("SALT_GPU_TESTS") == "cpu"
DEVICE = torch.device("cpu" if ON_CPU else "cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not ON_CPU and not torch.cuda.is_available(), reason="no GPU here"),
]

# What TF32 and other orders of sums leave; bfloat16 has 8 bits.
LOSS = {torch.float32: 1e-4, torch.bfloat16: 5e-3}
GRADIENT = {torch.float32: 1e-3, torch.bfloat16: 0.15}


def loss_and_gradient(
    method: VideoMethod, batch: object, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the loss of a batch and all its gradients as one vector, on the CPU."""
    method, enabled = method.to(device), dtype is not torch.float32
    method.zero_grad()
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype, enabled=enabled):
        loss = method(batch.to(device))  # type: ignore[attr-defined]
    loss.backward()
    trained = [one for part in method.trained() for one in part.parameters()]
    gradient = torch.cat([one.grad.flatten() for one in trained if one.grad is not None])
    return loss.detach().cpu().double(), gradient.cpu().double()


def require_near(found: Tensor, expected: Tensor, most: float) -> None:
    assert (found - expected).norm() <= most * expected.norm()


@pytest.mark.parametrize("dtype", LOSS)
@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_losses_and_gradients_are_those_of_the_cpu(
    name: str, dtype: torch.dtype, tiny_videos: Path
) -> None:
    config = small_config(name, tiny_videos)
    method, batch = new_method(config), new_batch(config)
    expected = loss_and_gradient(copy.deepcopy(method), batch, torch.device("cpu"), torch.float32)
    found = loss_and_gradient(method, batch, DEVICE, dtype)
    require_near(found[0], expected[0], LOSS[dtype])
    require_near(found[1], expected[1], GRADIENT[dtype])


@pytest.mark.skipif(ON_CPU, reason="on CPUs, tests/models/test_execution.py")
@pytest.mark.parametrize("name", ["salt", "levjepa"])
def test_compiled_blocks_compute_the_same(name: str, tiny_videos: Path) -> None:
    config = small_config(name, tiny_videos)
    method, batch = new_method(config), new_batch(config)
    expected = loss_and_gradient(method, batch, DEVICE, torch.float32)
    for stack in method.block_stacks():
        stack.compile_blocks()
    found = loss_and_gradient(method, batch, DEVICE, torch.float32)
    require_near(found[0], expected[0], LOSS[torch.float32])
    require_near(found[1], expected[1], GRADIENT[torch.float32])


@contextmanager
def waiting_refused() -> Iterator[None]:
    """Has torch refuse what waits for the GPU."""
    if not ON_CPU:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if not ON_CPU:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_no_step_waits_for_the_device(name: str, tiny_videos: Path) -> None:
    if registry.get(name).over_batch:
        pytest.skip("lightly's SIGReg reads a value back")
    config = small_config(name, tiny_videos)
    method = new_method(config).to(DEVICE)
    optimizer = method.optimizer()

    def make(step: int) -> None:
        batch = new_batch(config, step)
        loss = method(batch.to(DEVICE, non_blocking=True))
        loss.backward()
        method.clip(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(0.5)

    make(0)  # optimisers make their state in the first step
    with waiting_refused():
        make(1)


def train(videos: Path, folder: Path, *overrides: str, method: str = "salt") -> None:
    given = [f"method={method}", f"input_dir={videos}", *TINY, "trainer.max_steps=5"]
    if method == "salt":
        given.append("method.teacher.max_steps=2")
    if ON_CPU:
        given.append("trainer.gpus=0")
    run(compose([*given, *overrides]), folder)


def losses(stage: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(stage / "metrics.csv")]


def test_a_run_goes_on_as_if_it_had_not_been_interrupted(tiny_videos: Path, tmp_path: Path) -> None:
    train(tiny_videos, tmp_path / "whole", "method.checkpoint.every_n_steps=2")
    with power_failure(4, "student"):
        train(tiny_videos, tmp_path / "cut", "method.checkpoint.every_n_steps=2")
    train(tiny_videos, tmp_path / "cut", "method.checkpoint.every_n_steps=2")
    for stage in ("teacher", "student"):
        expected, found = losses(tmp_path / "whole" / stage), losses(tmp_path / "cut" / stage)
        assert found == pytest.approx(expected, rel=1e-3)  # a GPU's sums have no order


def test_micro_batches_add_up_to_a_step(tiny_videos: Path, tmp_path: Path) -> None:
    for clips in (1, 4):
        step = ["method.global_batch_size=4", f"loader.batch_size={clips}"]
        train(tiny_videos, tmp_path / str(clips), *step)
    for stage in ("teacher", "student"):
        expected, found = losses(tmp_path / "4" / stage), losses(tmp_path / "1" / stage)
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_step_that_is_not_finite_is_left_out(tiny_videos: Path, tmp_path: Path) -> None:
    with spoilt({3}, "gradients"), pytest.warns(UserWarning, match="at step 3, 1 such in a row"):
        train(tiny_videos, tmp_path, method="vjepa2")
    kept = outcome.tensors(outcome.checkpoint(tmp_path / "student")).values()
    assert all(tensor.isfinite().all() for tensor in kept)


def test_a_copy_for_a_checkpoint_is_of_its_moment() -> None:
    state = {"weight": torch.arange(2.0**20, device=DEVICE)}
    expected = state["weight"].cpu().clone()
    copied = on_host(state)
    state["weight"].zero_()
    assert copied["weight"].device.type == "cpu"
    assert torch.equal(copied["weight"], expected)


def test_a_grid_of_probes_is_trained_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    probes = [AttentiveProbe(32, 5, num_heads=4, depth=2) for _ in range(3)]
    tokens, labels = torch.randn(6, 10, 32), torch.arange(6) % 5
    expected = ProbeBank(copy.deepcopy(probes)).backward(tokens, labels)
    on_device = nn.ModuleList(probes).to(DEVICE)
    bank = ProbeBank(list(on_device))  # type: ignore[arg-type]
    found = bank.backward(tokens.to(DEVICE), labels.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_one_process_of_ddp_trains_as_one_without(tiny_videos: Path, tmp_path: Path) -> None:
    train(tiny_videos, tmp_path / "alone")
    overrides = ["method=salt", f"input_dir={tiny_videos}", *TINY, "trainer.max_steps=5"]
    overrides += ["method.teacher.max_steps=2", f"hydra.run.dir={tmp_path / 'ddp'}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["-m", "salt_plugin.cli", "train", *overrides]
    if ON_CPU:
        command.append("trainer.gpus=0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = losses(tmp_path / "alone" / "student")
    assert losses(tmp_path / "ddp" / "student") == pytest.approx(expected, rel=1e-3)
