"""The training loop: one stage, step by step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer

from salt_plugin.batch import Batch
from salt_plugin.compute.pricing import Price
from salt_plugin.errors import Interrupted
from salt_plugin.methods import VideoMethod
from salt_plugin.training.collapse import measure_targets
from salt_plugin.training.records import Records


class Autocast(MixedPrecision):
    """Autocast that leaves inputs alone: pixels to predict stay in float32."""

    def convert_input(self, data: Any) -> Any:
        """Returns what it is given."""
        return data


def train(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batches: Iterable[Batch],
    micro_batches: int,
    records: Records,
    step: int,
) -> int:
    """Trains until all steps are done, or the budget does not cover another.

    Args:
        fabric: Precision and devices.
        model: A `VideoMethod` that `fabric` has set up.
        optimizer: Its optimizer, which `fabric` has set up.
        batches: This device's micro-batches of the steps that are left, on the CPU.
        micro_batches: Of a step on this device.
        records: Of the stage.
        step: Steps that were done before.

    Returns:
        Steps done in all.

    Raises:
        Interrupted: A signal has come, and the step is saved.
        SaltError: Too many steps are not finite, too many files are bad, or no checkpoint can be
            written.
    """
    r = records
    method: VideoMethod = model.module
    waiting = _Waiting(batches)
    r.accounts.start()
    while price := r.accounts.next_price(step):
        position = r.accounts.position()
        method.recipe.apply(optimizer, position)
        _seed_step(r.accounts.plan.seed, fabric.global_rank, step)

        loss = torch.zeros((), device=fabric.device)
        paths: list[str] = []
        skipped: list[tuple[str, str]] = []
        for left in reversed(range(micro_batches)):
            batch = next(waiting).to(fabric.device, non_blocking=fabric.device.type == "cuda")
            # Gradients are averaged over devices, which may hold unequal shares of the step.
            share = len(batch.clips) / price.clips * fabric.world_size
            with fabric.no_backward_sync(model) if left else nullcontext():
                part = model(batch) * share
                fabric.backward(part)
            loss += part.detach()
            paths += batch.paths
            skipped += batch.skipped
        fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
        method.clip(optimizer.optimizer)
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(position)
        step += 1

        r.accounts.book(price)
        _add_row(r, step, price, waiting.seconds(), optimizer, loss, fabric.device, method)
        r.skipped.take(skipped)
        r.progress.show(r.accounts.position(), loss)
        r.nonfinite.take(step, loss, method.grad_norm, paths)
        r.kept.keep_if_due(step, method)
        late, stop = r.ranks.largest([int(r.saving.is_late()), r.signals.received])
        r.saving.save_if_due(step, now=bool(late), last_chance=bool(stop))
        if stop:
            raise Interrupted(f"saved at step {step}; {r.goes_on}", stop)

    r.accounts.write()
    r.metrics.flush()
    r.nonfinite.settle()
    r.kept.keep_if_due(step, method, last=True)
    r.saving.save_last(step)
    return step


def _seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds stochastic depth by (seed, rank, step), so that a resume has nothing to restore."""
    entropy = np.random.SeedSequence((seed, rank, step))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class _Waiting:
    """Batches, and the time that was waited for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)
        self._seconds = 0.0

    def __next__(self) -> Batch:
        began = time.perf_counter()
        batch = next(self._batches)
        self._seconds += time.perf_counter() - began
        return batch

    def seconds(self) -> float:
        """Returns the seconds waited since the last call."""
        waited, self._seconds = self._seconds, 0.0
        return waited


def _peak_memory(device: torch.device) -> int:
    """Returns the most MiB taken so far: of the GPU by tensors, or of RAM by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken >> (20 if sys.platform == "darwin" else 10)


def _add_row(
    r: Records,
    step: int,
    price: Price,
    waited: float,
    optimizer: Optimizer,
    loss: Tensor,
    device: torch.device,
    method: VideoMethod,
) -> None:
    ledger, group = r.accounts.ledger, optimizer.param_groups[0]
    r.metrics.add(
        step=step,
        loss=loss,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        grad_norm=method.grad_norm,
        context_tokens=round(price.context_tokens / price.clips, 2),
        target_tokens=round(price.target_tokens / price.clips, 2),
        clips=ledger.clips,
        flops=ledger.total_flops,
        seconds=round(ledger.seconds, 3),
        data_seconds=round(waited, 4),
        clips_per_second=round(r.accounts.last_clips_per_second, 2),
        peak_memory_mib=_peak_memory(device),
        **(measure_targets(step, method.watched_kd) if r.ranks.is_first else {}),
    )
