"""What training takes on this machine, measured by the first steps of the run itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from salt_plugin.config import RunConfig
from salt_plugin.config.command_line import quoted
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_videos
from salt_plugin.data.workers import loader_workers
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import RunDirectory, read_metrics
from salt_plugin.training.execution import devices, sharing
from salt_plugin.training.parts import Run, build_parts
from salt_plugin.training.plan import RunPlan, StagePlan, global_batch_size, plan_configured

# Seconds: until the first step, for a run that was asked to end, to read clips.
START, GRACE, LOADER = 60.0, 15.0, 8.0
# What a measurement leaves out, where the configuration has it.
_LEFT_OUT = ("val", "test", "probe", "encoders_every_n_steps")
_SHOWN = 3


class Examined(NamedTuple):
    """A stage, predicted from its first steps.

    Attributes:
        name: `teacher` or `student`.
        steps: Of the whole stage.
        clips: Of the whole stage.
        flops: Of the whole stage.
        start: Seconds until its run makes the first step.
        seconds: Of all steps.
        step: Clips a second of the step alone, without what it waits for clips.
        loader: Clips a second of the loader alone; under `method.data.cache`, once all are kept.
        waited: Share of the time in which steps wait for clips.
        peak_mib: Memory that the measured run took at most, as `metrics.csv` has it.
        measured: Steps that were measured.
    """

    name: str
    steps: int
    clips: int
    flops: int
    start: float
    seconds: float
    step: float
    loader: float
    waited: float
    peak_mib: int
    measured: int

    @property
    def rate(self) -> float:
        """Clips a second over the whole stage."""
        return self.clips / self.seconds


def prepared(config: RunConfig) -> Run:
    """Returns a run that is never trained; its configuration gets the clips of a step."""
    config.method.global_batch_size = global_batch_size(config, devices(config))
    nowhere = RunDirectory(Path(os.devnull))
    plan = plan_configured(config)
    return Run(config, build_parts(config), training_videos(config), plan, nowhere, None, None)


def examine(overrides: Sequence[str], run: Run, seconds: float) -> Iterator[Examined]:
    """Yields what each stage will take.

    Args:
        overrides: As for `salt train`.
        run: What they make; see `prepared`.
        seconds: To train each stage for.

    Raises:
        ConfigError: The run fails, or makes fewer than three steps of a stage.
    """
    config, videos = run.config, len(run.videos.paths)
    cached = config.method.data.cache
    loader = loader_rate(run, LOADER, kept=cached)
    for stage in run.plan.stages:
        at_once = config.method.global_batch_size
        start, rows = _first_steps(overrides, config, run.plan, stage, seconds)
        if cached:  # later on videos are no longer decoded
            rows = rows[: max(3, videos // at_once)]
        skipped = len(rows) // 5
        counted = rows[skipped + 1 :]
        took = rows[-1]["seconds"] - rows[skipped]["seconds"]
        waited = sum(row["data_seconds"] for row in counted)
        measured_flops = rows[-1]["flops"] - rows[skipped]["flops"]
        measured_clips = at_once * len(counted)
        flops, clips = sum(stage.flops().values()), at_once * stage.steps
        cold = took / measured_clips
        warm = step = max(took - waited, 1e-9) / measured_clips
        share = 1.0
        if cached:
            workers = loader_workers(config.loader.num_workers, sharing(config))
            warm = max(step, 1 / loader) if workers else step + 1 / loader
            share = min(1.0, _decoded(videos, clips, workers) / clips)
        mean = share * cold + (1 - share) * min(cold, warm)
        # Steps cost what their masks leave: the measured ones may be cheaper than the others.
        dearer = flops / clips / (measured_flops / measured_clips)
        yield Examined(
            stage.name,
            stage.steps,
            clips,
            flops,
            start,
            clips * mean * dearer,
            1 / step,
            loader,
            1 - step / mean,
            int(rows[-1]["peak_memory_mib"]),
            len(counted),
        )


def _decoded(videos: int, clips: int, workers: int) -> float:
    """Returns how many clips are of a video that the worker at work has not met before."""
    if workers < 2:
        return min(clips, videos)
    return videos * workers * (1 - (1 - 1 / workers) ** (clips / videos))


def loader_rate(run: Run, seconds: float, kept: bool = False) -> float:
    """Returns the clips a second that the loader gives to a training that takes no time.

    Args:
        run: The run.
        seconds: To read for; the second half counts.
        kept: Whether to read a few videos again and again, which then lie in memory.
    """
    config, count, videos = run.config, devices(run.config), run.videos
    if kept:
        few = min(len(videos.paths), config.loader.batch_size)
        videos = VideoList(
            videos.paths[:few], videos.labels[:few], videos.classes, videos.source[:few]
        )
    batches = replace(run, videos=videos).batches(
        config.seed,
        total_steps=None,
        world_size=count,
        sharing=sharing(config),
        stall=config.method.data.stall,
    )
    began, half, clips = time.perf_counter(), None, 0
    for batch in batches:
        now = time.perf_counter()
        if half is not None:
            clips += len(batch.clips)
            if now - began > seconds:
                return count * clips / (now - half)
        elif now - began > seconds / 2:
            half = now
    raise AssertionError("batches without an end have ended")


def _first_steps(
    overrides: Sequence[str], config: RunConfig, plan: RunPlan, stage: StagePlan, seconds: float
) -> tuple[float, list[dict[str, float]]]:
    """Starts the run in a folder that is removed, and ends it some seconds into a stage.

    A stage before it is cut to a single step.

    Returns:
        Seconds until the stage began, and its rows of `metrics.csv`.

    Raises:
        ConfigError: There are fewer than three.
    """
    given = [one for one in overrides if not one.startswith("hydra.run.dir=")]
    given += ["trainer.logger=[]"]
    given += [f"method.{key}=null" for key in _LEFT_OUT if getattr(config.method, key, None)]
    if getattr(config.method, "warm_start", False):
        given += ["method.warm_start=false"]
    if config.method.monitor.train:
        given += ["method.monitor.train=null", "method.monitor.test=null"]
    if stage is not plan.stages[0]:
        given += ["compute.budget=null", "method.teacher.max_steps=1"]
        given += ["trainer.max_epochs=-1", f"trainer.max_steps={stage.steps}"]
    with TemporaryDirectory(prefix="salt-doctor-") as folder:
        root, log = Path(folder) / "run", Path(folder) / "log"
        metrics = RunDirectory(root).stage(stage.name).metrics
        command = [sys.executable, "-m", "salt_plugin.cli", "train", *given]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, f"hydra.run.dir={quoted(str(root))}"],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        began = time.monotonic()
        try:
            while process.poll() is None and not metrics.exists():
                if time.monotonic() - began > START:
                    break
                time.sleep(0.05)
            start = time.monotonic() - began
            for patience in (seconds, GRACE):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                process.terminate()  # the first time: training saves, and ends
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        rows = read_metrics(metrics) if metrics.exists() else []
        if len(rows) < 3:
            said = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_SHOWN:])
            raise ConfigError(
                f"the {stage.name} made {len(rows)} steps in {seconds:g} s: expected 3 or more; "
                f"give more --seconds, or mend what the run said last:\n{said}"
            )
    return start, rows
