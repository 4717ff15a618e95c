"""The training loop: one stage, step by step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from salt_plugin.errors import Interrupted
from salt_plugin.masks import Batch
from salt_plugin.methods import VideoMethod
from salt_plugin.training.collapse import measure_targets
from salt_plugin.training.records import Records


def train(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batches: Iterable[Batch],
    records: Records,
    seed: int,
    step: int,
) -> int:
    """Trains until there are no more batches, or the budget does not cover another step.

    Args:
        fabric: Precision and devices.
        model: A `VideoMethod` that `fabric` has set up.
        optimizer: Its optimizer, which `fabric` has set up.
        batches: Those of the steps that are left, on the CPU.
        records: Of the stage.
        seed: Of the stage.
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
    r.accounts.start()
    for waited, batch in _timed(batches):
        price = r.accounts.price(batch)
        if not r.accounts.affords(price):
            break
        position = r.accounts.position()
        method.recipe.apply(optimizer, position)
        _seed_step(seed, fabric.global_rank, step)

        batch = batch.to(fabric.device, non_blocking=fabric.device.type == "cuda")
        loss = model(batch)
        fabric.backward(loss)
        loss = loss.detach()
        fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
        method.clip(optimizer.optimizer)
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(position)
        step += 1

        r.accounts.book(price)
        _add_row(r, step, batch, waited, optimizer, loss, fabric.device, method)
        r.skipped.take(step, batch.skipped)
        r.progress.show(r.accounts.position(), loss)
        r.nonfinite.take(step, loss, method.grad_norm, batch.paths)
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


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[float, Batch]]:
    """Yields batches with the seconds that each was waited for."""
    began = time.perf_counter()
    for batch in batches:
        yield time.perf_counter() - began, batch
        began = time.perf_counter()


def _peak_memory(device: torch.device) -> int:
    """Returns the most MiB taken so far: of the GPU by tensors, or of RAM by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken >> (20 if sys.platform == "darwin" else 10)


def _add_row(
    r: Records,
    step: int,
    batch: Batch,
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
        context_tokens=sum(mask.context.shape[1] for mask in batch.masks),
        target_tokens=sum(mask.target.shape[1] for mask in batch.masks),
        clips=ledger.clips,
        flops=ledger.total_flops,
        seconds=round(ledger.seconds, 3),
        data_seconds=round(waited, 4),
        clips_per_second=round(r.accounts.last_clips_per_second, 2),
        peak_memory_mib=_peak_memory(device),
        **(measure_targets(step, method.watched_kd) if r.ranks.is_first else {}),
    )
