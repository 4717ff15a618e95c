"""The main job: configuration in, run directory out. Every entry point calls `run`."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from salt_plugin.checkpoints import TEACHER_FIRST, load_encoder
from salt_plugin.config import (
    RunConfig,
    clips_of_rank,
    load_config,
    registry,
)
from salt_plugin.config.application import absolute
from salt_plugin.config.registry import MethodSpec
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import steps_of_epochs, training_videos
from salt_plugin.report.summary import print_summary
from salt_plugin.run_directory import RunDirectory
from salt_plugin.training.announce import announce
from salt_plugin.training.build import (
    check_teacher,
    load_named,
    new_encoder,
    new_stage,
    step_cost,
)
from salt_plugin.training.execution import check_execution, devices
from salt_plugin.training.finish import leave_figures, leave_summary
from salt_plugin.training.fit import fit
from salt_plugin.training.length import Length, budget_left, inherited_flops, planned_steps
from salt_plugin.training.parts import Parts, build_parts
from salt_plugin.training.probe import probe_settings
from salt_plugin.training.world import started_tasks


def run(cfg: DictConfig, run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Trains what a configuration describes, or the rest of it, or nothing if all is done.

    Args:
        cfg: The host's config with one of our methods, as Hydra or `config.compose` gives it.
        run_dir: Where everything is written. The same configuration with the same folder
            resumes; a finished run returns at once.

    Returns:
        The summary, as it is in `summary.json`; nothing in processes beside the first.

    Raises:
        Interrupted: A signal has stopped training, which has saved what it had done.
        SaltError: Names the key or file, what was found, and the mend.
    """
    config = load_config(cfg)
    _make_paths_absolute(config)
    # From here on a number: runs of as many clips a step are the same, whatever they run on.
    config.method.global_batch_size = clips_of_rank(config, devices(config)) * devices(config)
    tasks = started_tasks()
    if tasks is not None:
        setattr(rank_zero_only, "rank", tasks.rank)  # noqa: B010  Lightning's way to tell
        if tasks.rank > 0:  # what the first process says as well
            logging.getLogger("salt_plugin").setLevel(logging.ERROR)
    directory = RunDirectory(Path(run_dir).resolve())
    directory.check(config)
    if not directory.finished:
        check_execution(config)
        parts = build_parts(config)
        videos = training_videos(config)
        probe_settings(config)  # lists that cannot work are found before training, not after it
        rank_zero_only(announce)(config, parts, videos, directory)
        try:
            spec = registry.get(config.method.name)
            if spec.teacher is None:
                _train_alone(spec, config, parts, videos, directory)
            else:
                _train_after_teacher(spec, spec.teacher, config, parts, videos, directory)
            _leave_results(config, parts, videos, directory)
        finally:
            directory.release()
    if getattr(rank_zero_only, "rank", 0) != 0:
        return {}
    summary: dict[str, Any] = json.loads(directory.summary.read_text())
    print_summary(summary, directory.root)
    return summary


def _train_alone(
    spec: MethodSpec, config: RunConfig, parts: Parts, videos: VideoList, directory: RunDirectory
) -> None:
    files = directory.stage(spec.result)
    inherited = inherited_flops(config)
    length = Length(_total_steps(config, videos), budget_left(config, inherited))
    stage = new_stage(
        config, parts, files, spec, length, checkpoint=config.checkpoint, inherited=inherited
    )
    rank_zero_only(directory.claim)(config)
    if not files.finished:
        fit(stage, config, parts, videos, directory)


def _train_after_teacher(
    spec: MethodSpec,
    before: MethodSpec,
    config: RunConfig,
    parts: Parts,
    videos: VideoList,
    directory: RunDirectory,
) -> None:
    settings = config.method.teacher
    files, teachers = directory.stage(spec.result), directory.stage(before.result)
    inherited = inherited_flops(config, settings.path)
    length = Length(_total_steps(config, videos), budget_left(config, inherited))
    shape = parts.teacher
    if settings.path is not None:
        teacher = load_named("method.teacher.path", settings.path, TEACHER_FIRST)
        check_teacher(teacher.shape, parts.encoder, settings.path)
        shape = teacher.shape
    # What does not fit stage 2 is found before stage 1, not after it.
    new_encoder(config, parts.encoder, config.seed, config.checkpoint)
    first, length = _split(config, length)
    planned_steps(length, config, parts, step_cost(spec, parts, shape), spec.result)
    if settings.path is None:
        planned_steps(first, config, parts, step_cost(before, parts), before.result)
    rank_zero_only(directory.claim)(config)
    if settings.path is None:
        if not teachers.finished:
            stage = new_stage(config, parts, teachers, before, first)
            fit(stage, config, parts, videos, directory)
        teacher = load_encoder(teachers.encoder)
        inherited |= inherited_flops(config, str(teachers.encoder))
        length = length._replace(budget=budget_left(config, inherited))
    if not files.finished:
        second = new_stage(
            config, parts, files, spec, length, teacher, config.checkpoint, inherited
        )
        fit(second, config, parts, videos, directory)


def _split(config: RunConfig, whole: Length) -> tuple[Length, Length]:
    """Returns the lengths of both stages; what the first leaves over goes to the second later."""
    settings = config.method.teacher
    if whole.budget is None or settings.path is not None:
        return Length(settings.max_steps), whole
    first = round(config.compute.teacher_share * whole.budget)
    return Length(settings.max_steps, first), whole._replace(budget=whole.budget - first)


@rank_zero_only
def _leave_results(
    config: RunConfig, parts: Parts, videos: VideoList, directory: RunDirectory
) -> None:
    leave_figures(config, parts, videos, directory)
    leave_summary(config, parts, videos, directory)


def _total_steps(config: RunConfig, videos: VideoList) -> int:
    limits = [config.trainer.max_steps] if config.trainer.max_steps != -1 else []
    epochs = steps_of_epochs(config, videos, devices(config))
    return min(limits + ([epochs] if epochs is not None else []))


def _make_paths_absolute(config: RunConfig) -> None:
    inputs = config.input_dir
    if not isinstance(inputs, str):
        config.input_dir = [absolute(path) for path in inputs]
    elif inputs:
        config.input_dir = absolute(inputs)
    if config.checkpoint:
        config.checkpoint = absolute(config.checkpoint)
    teacher = getattr(config.method, "teacher", None)
    if teacher is not None and teacher.path is not None:
        teacher.path = absolute(teacher.path)
    for key in ("probe", "probe_train", "probe_test"):
        path = getattr(config.method, key)
        if path is not None and (key != "probe" or path.endswith((".yaml", ".yml"))):
            setattr(config.method, key, absolute(path))
