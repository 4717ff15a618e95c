"""The main job: configuration in, run directory out. Every entry point calls `run`."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from salt_plugin.checkpoints import load_encoder
from salt_plugin.config import RunConfig, load_config
from salt_plugin.config.application import absolute
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_videos
from salt_plugin.models import VideoEncoder
from salt_plugin.report.summary import print_summary
from salt_plugin.run_directory import RunDirectory
from salt_plugin.training.announce import announce
from salt_plugin.training.budget import budget_left, inherited_flops, named_teacher_path
from salt_plugin.training.build import load_teacher, new_encoder, new_stage
from salt_plugin.training.execution import check_execution, devices
from salt_plugin.training.finish import leave_figures, leave_summary
from salt_plugin.training.fit import fit
from salt_plugin.training.parts import Parts, build_parts
from salt_plugin.training.plan import RunPlan, global_batch_size, plan_run, total_steps
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
    tasks = started_tasks()
    if tasks is not None:
        setattr(rank_zero_only, "rank", tasks.rank)  # noqa: B010  Lightning's way to tell
        if tasks.rank > 0:  # what the first process says as well
            logging.getLogger("salt_plugin").setLevel(logging.ERROR)
    directory = RunDirectory(Path(run_dir).resolve())
    # From here on a number, and that of the run that goes on: the devices may be others.
    config.method.global_batch_size = global_batch_size(
        config, devices(config), directory.stored_batch_size()
    )
    directory.check(config)
    if not directory.finished:
        check_execution(config)
        parts = build_parts(config)
        videos = training_videos(config)
        probe_settings(config)  # lists that cannot work are found before training, not after it
        path = named_teacher_path(config)
        teacher = None if path is None else load_teacher(path, parts.encoder)
        plan = plan_run(
            config,
            parts,
            total_steps(config, len(videos.paths)),
            None if teacher is None else teacher.shape,
            inherited_flops(config, path),
        )
        rank_zero_only(announce)(config, parts, plan, videos, directory)
        try:
            _train(plan, config, parts, videos, directory, teacher)
            _leave_results(config, parts, plan, videos, directory)
        finally:
            directory.release()
    if getattr(rank_zero_only, "rank", 0) != 0:
        return {}
    summary: dict[str, Any] = json.loads(directory.summary.read_text())
    print_summary(summary, directory.root)
    return summary


def _train(
    plan: RunPlan,
    config: RunConfig,
    parts: Parts,
    videos: VideoList,
    directory: RunDirectory,
    teacher: VideoEncoder | None,
) -> None:
    *before, last = plan.stages
    inherited = dict(plan.inherited)
    if config.checkpoint:  # a file that does not fit the last stage is found before the first
        new_encoder(config, parts.encoder, config.seed, config.checkpoint)
    rank_zero_only(directory.claim)(config)
    for stage in before:
        files = directory.stage(stage.name)
        if not files.finished:
            fit(new_stage(config, parts, files, stage), config, parts, videos, directory)
        teacher = load_encoder(files.encoder)
        inherited |= inherited_flops(config, str(files.encoder))
        # With what the stage has left over.
        share = 1 - config.compute.teacher_share
        last = last.under(budget_left(config, inherited), config.compute.budget, share)
    files = directory.stage(last.name)
    if not files.finished:
        stage_of_run = new_stage(config, parts, files, last, teacher, config.checkpoint, inherited)
        fit(stage_of_run, config, parts, videos, directory)


@rank_zero_only
def _leave_results(
    config: RunConfig, parts: Parts, plan: RunPlan, videos: VideoList, directory: RunDirectory
) -> None:
    leave_figures(config, parts, plan, videos, directory)
    leave_summary(config, parts, videos, directory)


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
