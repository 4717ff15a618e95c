"""What a run says: before it trains, and on its way."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from torch import Tensor

from salt_plugin.compute import Ledger
from salt_plugin.config import RunConfig, registry
from salt_plugin.report.compute import plan_line
from salt_plugin.report.console import console
from salt_plugin.report.units import duration, flops
from salt_plugin.shapes import CountedShape, EncoderShape
from salt_plugin.training.execution import devices, slow_bfloat16, uses_gpu
from salt_plugin.training.parts import Run
from salt_plugin.training.plan import StagePlan

BAR_SECONDS, LINE_SECONDS = 0.5, 30.0


class Progress:
    """One bar a stage, with loss, clips/s and time left; plain lines where there is no terminal.

    Args:
        plan: Of the stage.
        ledger: What is spent, which may be that of a stage that goes on.
        shown: Whether to show anything: the first process does.
    """

    def __init__(self, plan: StagePlan, ledger: Ledger, shown: bool) -> None:
        self.plan = plan
        self.ledger = ledger
        self.shown = shown
        self.console = console()
        self._noted = ""
        self._clips, self._position = ledger.clips, plan.position(ledger)
        self._began = self._last = time.perf_counter()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self._bar.start()
        done = round(self._position)
        self._task = self._bar.add_task(plan.name, total=plan.steps, completed=done, state="")

    def show(self, loss: Tensor) -> None:
        """Moves the bar now and then: reading the loss waits for the device."""
        now, position = time.perf_counter(), self.plan.position(self.ledger)
        wait = LINE_SECONDS if self._bar.disable else BAR_SECONDS
        if not self.shown or (now - self._last < wait and position < self.plan.steps):
            return
        self._last = now
        done, seconds = round(position), now - self._began
        rate = seconds / max(1e-9, position - self._position)
        left = duration(rate * max(0.0, self.plan.steps - position))
        clips = (self.ledger.clips - self._clips) / seconds
        spent = flops(self.ledger.total_flops)
        state = f"loss {float(loss):.4f}  {clips:.1f} clips/s  {spent}  {left} left{self._noted}"
        self._bar.update(self._task, completed=done, state=state)
        if self._bar.disable:
            self.console.print(f"{self.plan.name}  {done}/{self.plan.steps}  {state}")

    def note(self, found: Mapping[str, float]) -> None:
        """Shows from now on what an evaluation has found, if it is anything."""
        if found:
            values = [f"  {name.removeprefix('monitor_')} {found[name]:.3g}" for name in found]
            self._noted = "".join(values).replace("_", " ")

    def stop(self) -> None:
        """Leaves the bar where it is."""
        self._bar.stop()


def announce(run: Run) -> None:
    """Says on standard error what is trained on what, where, and what is odd about it."""
    out, stages = console(stderr=True), run.plan.stages
    for name, line in (
        ("data", _data(run)),
        ("model", _model(run)),
        ("plan", plan_line([(stage.name, stage.steps, stage.flops()) for stage in stages])),
        ("device", _device(run.config)),
        ("folder", str(run.directory.root)),
    ):
        out.print(f"{name:<7} {line}", soft_wrap=True)
    rate = rate_of_another_batch(run.config, run.config.method.global_batch_size)
    if rate is not None:
        out.print(rate, soft_wrap=True)


def rate_of_another_batch(config: RunConfig, clips: int) -> str | None:
    """Returns a line where the printed learning rate runs at another batch than it is printed for.

    Args:
        config: The run's.
        clips: Of a step, over all devices.
    """
    rate, printed = config.optimizer.lr, registry.PRINTED_BATCH
    if rate != registry.get(config.method.name).printed_lr or clips == printed:
        return None
    scaled = rate * math.sqrt(clips / printed)
    written = f"{rate:.2e}".replace("e-0", "e-")
    return (
        f"optimizer.lr={written} is printed for {printed} clips a step; this run has "
        f"{clips}. Scaled by the square root, as is customary for AdamW, it would be "
        f"optimizer.lr={scaled:.1e}"
    )


def _data(run: Run) -> str:
    labels = set(run.videos.labels) - {-1}
    classes = f"{len(labels)} classes" if labels else "no labels"
    count, clips = len(run.videos.paths), run.config.method.global_batch_size
    few = f"; fewer than the {clips} clips of a step, which repeats them" if count < clips else ""
    return f"{count:,} videos, {classes}{few}"


def _model(run: Run) -> str:
    method, grid = run.config.method, "x".join(map(str, run.parts.grid))
    clip = f"clips of {method.clip.frames} frames of {method.clip.size} pixels, {grid} tokens"
    pricing = run.plan.stages[-1].pricing
    shapes, cost = pricing.shapes, pricing.price(0).flops
    words = [f"{method.name}: {_named(shapes.encoder)}"]
    if shapes.teacher != shapes.encoder:
        words[0] += f", teacher {_named(shapes.teacher)}"
    for head in cost.keys() & {"predictor", "decoder"}:
        share = cost[head] / (cost[head] + cost["encoder"])
        size = f"{shapes.predictor.dim} wide, {shapes.predictor.depth} deep"
        words.append(f"{head} {size}, {share:.0%} of the FLOPs of what is trained")
    spec = registry.get(method.name)
    if spec.classifies:
        words.append(f"from {run.config.checkpoint or 'random weights'}")
    return "; ".join([*words, clip])


def _named(shape: EncoderShape | CountedShape) -> str:
    deep = f", {shape.depth} deep" if isinstance(shape, EncoderShape) else ""
    return f"{shape.name} ({shape.embed_dim} wide{deep})"


def _device(config: RunConfig) -> str:
    count, asked = devices(config), config.trainer.gpus
    batch = f"{config.method.global_batch_size} clips a step, {config.trainer.precision}"
    if uses_gpu(config):
        return f"{count} x {torch.cuda.get_device_name()}; {batch}"
    where = f"{count} processes on CPUs" if count > 1 else "CPU"
    missing = f" (trainer.gpus={asked}, and torch sees no GPU)" if asked > 1 else ""
    slow = " (slow: this CPU computes it in software; trainer.precision=32)"
    return f"{where}{missing}; {batch}{slow if slow_bfloat16(config) else ''}"
