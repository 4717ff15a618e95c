"""The training loop: one stage, step by step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch.optim import Optimizer

from salt_plugin.batch import Batch
from salt_plugin.compute import Ledger
from salt_plugin.compute.pricing import Price
from salt_plugin.errors import Interrupted
from salt_plugin.methods import VideoMethod
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
) -> None:
    """Trains until all steps are done, or the budget does not cover another.

    Args:
        fabric: Precision and devices.
        model: A `VideoMethod` that `fabric` has set up.
        optimizer: Its optimizer, which `fabric` has set up.
        batches: This device's micro-batches of the steps that are left, on the CPU.
        micro_batches: Of a step on this device.
        records: Of the stage; steps that were done before are in its ledger.

    Raises:
        Interrupted: A signal has come, and the step is saved.
        SaltError: Too many steps are not finite, too many files are bad, or no checkpoint can be
            written.
    """
    r, plan = records, records.stage.plan
    method: VideoMethod = model.module
    timed = _Timed(batches)
    while price := plan.next_price(r.ledger):  # None: all steps are made, or the budget is spent
        position = plan.position(r.ledger)
        method.recipe.apply(optimizer, position)
        _seed_step(plan.seed, fabric.global_rank, r.ledger.steps)

        loss = torch.zeros((), device=fabric.device)
        paths: list[str] = []
        skipped: list[tuple[str, str]] = []
        for left in reversed(range(micro_batches)):
            batch = next(timed).to(fabric.device, non_blocking=fabric.device.type == "cuda")
            # Gradients are averaged over devices, which may hold unequal shares of the step.
            share = len(batch.clips) / price.clips * fabric.world_size
            with fabric.no_backward_sync(model) if left else nullcontext():
                part = model(batch) * share
                fabric.backward(part)
            loss += part.detach()
            paths += batch.paths
            skipped += batch.skipped
        fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
        method.clip(optimizer.optimizer, position)
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(position)
        r.ledger.add_evaluation(method.evaluation_flops, 0.0)

        seconds, waited = timed.step()
        tokens = price.context_tokens + price.target_tokens
        r.ledger.add_step(price.flops, price.clips, tokens, seconds, price.recomputed)
        step = r.ledger.steps
        with timed.paused():
            evaluated = r.evaluate_if_due()
        r.metrics.add(
            method.watched_kd,
            **evaluated,
            loss=loss,
            grad_norm=method.grad_norm,
            clips_per_second=round(price.clips / seconds, 2),
            data_seconds=round(waited, 4),
            peak_memory_mib=_peak_memory(fabric.device),
            **_booked(r.ledger, price, optimizer),
        )
        r.skipped.take(skipped)
        r.progress.show(loss)
        r.nonfinite.take(step, loss, method.grad_norm, paths)
        r.keep_encoder_if_due()
        late, stop = r.ranks.largest(int(r.saving.is_late()), r.signals.received)
        r.saving.save_if_due(step, now=bool(late), last_chance=bool(stop))
        if stop:
            raise Interrupted(f"saved at step {step}; {r.stage.run.directory.goes_on}", stop)

    r.write()
    r.nonfinite.settle()
    r.keep_encoder_if_due(last=True)
    r.saving.save_last(r.ledger.steps)


def _seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds stochastic depth by (seed, rank, step), so that a resume has nothing to restore."""
    entropy = np.random.SeedSequence((seed, rank, step))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class _Timed:
    """Batches, how long they were waited for, and how long a step took."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)
        self._began = time.perf_counter()
        self._waited = 0.0

    def __next__(self) -> Batch:
        began = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - began
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of what is no part of training."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def step(self) -> tuple[float, float]:
        """Returns the seconds since the last call, and those of them that were waited."""
        began, self._began = self._began, time.perf_counter()
        waited, self._waited = self._waited, 0.0
        return self._began - began, waited


def _booked(ledger: Ledger, price: Price, optimizer: Optimizer) -> dict[str, float]:
    """Returns what a row of the metrics has of ledger, price and schedules."""
    group = optimizer.param_groups[0]
    return {
        "step": ledger.steps,
        "lr": group["lr"],
        "weight_decay": group["weight_decay"],
        "context_tokens": round(price.context_tokens / price.clips, 2),
        "target_tokens": round(price.target_tokens / price.clips, 2),
        "clips": ledger.clips,
        "flops": ledger.total_flops,
        "seconds": round(ledger.seconds, 3),
    }


def _peak_memory(device: torch.device) -> int:
    """Returns the most MiB taken so far: of the GPU by tensors, or of RAM by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken >> (20 if sys.platform == "darwin" else 10)
