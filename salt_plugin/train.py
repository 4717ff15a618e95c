"""The main job: configuration in, run directory out. Every entry point calls `run`."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from salt_plugin.config import RunConfig, load_config, registry
from salt_plugin.config.application import absolute
from salt_plugin.data.stream import training_videos
from salt_plugin.evaluation.encoders import TIMM
from salt_plugin.models.teacher import fingerprint
from salt_plugin.report.summary import print_summary
from salt_plugin.run_directory import RunDirectory, comparable
from salt_plugin.training.ancestors import lineage_of, origin_of
from salt_plugin.training.budget import (
    budget_left,
    inherited_flops,
    load_teacher,
    named_teacher_path,
)
from salt_plugin.training.build import new_encoder, new_stage
from salt_plugin.training.execution import check_execution, devices, uses_gpu
from salt_plugin.training.finish import leave_figures, leave_summary, probe_settings
from salt_plugin.training.fit import fit
from salt_plugin.training.foreign_teacher import TeacherFile
from salt_plugin.training.labelled import labelled_lists, settled
from salt_plugin.training.loggers import require_loggers
from salt_plugin.training.monitor import monitor_settings
from salt_plugin.training.parts import Run, build_parts
from salt_plugin.training.plan import global_batch_size, plan_run, total_steps
from salt_plugin.training.progress import announce
from salt_plugin.training.world import join, started_tasks


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
    config = settled(config)
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
        _train(config, directory)
    if getattr(rank_zero_only, "rank", 0) != 0:
        return {}
    summary: dict[str, Any] = json.loads(directory.summary.read_text())
    print_summary(summary, directory.root)
    return summary


def _train(config: RunConfig, directory: RunDirectory) -> None:
    """Checks all that a run needs, and only then claims its folder and trains."""
    check_execution(config)
    require_loggers(config)
    parts = build_parts(config)
    labelled = labelled_lists(config)
    videos = training_videos(config, None if labelled is None else labelled.train)
    probe, monitor = probe_settings(config), monitor_settings(config)
    result = directory.stage(registry.get(config.method.name).result)
    origin = origin_of(config, parts, result.last_checkpoint)
    path = named_teacher_path(config)
    if path is None and origin is not None:
        path = origin.teacher
    teacher = None if path is None else load_teacher(path, parts)
    if origin is not None and teacher is not None:
        origin.require_teacher(str(path), fingerprint(teacher.encoder.state_dict()))
    steps, steps_before = total_steps(config, len(videos.paths)), origin.steps if origin else 0
    plan = plan_run(
        config,
        parts,
        steps,
        None if teacher is None else teacher.shape,
        inherited_flops(config, path) if origin is None else origin.inherited,
        steps_before=steps_before,
    )
    run = Run(config, parts, videos, plan, directory, labelled, probe, monitor, origin)
    rank_zero_only(announce)(run)
    if config.checkpoint:
        new_encoder(config, parts.encoder, config.seed, config.checkpoint)
    # One that comes late has to find the folder as the first did.
    ranks, _ = join("cuda" if uses_gpu(config) else "cpu")
    ranks.require_alike(
        {
            **comparable(asdict(config)),
            "hydra.run.dir": str(directory.root),
            "the step of method.continue_from": steps_before,
            "the list of videos": videos.digest(),
        }
    )
    rank_zero_only(directory.claim)(config)
    try:
        _train_stages(run, teacher, path)
        rank_zero_only(leave_figures)(run)
        rank_zero_only(leave_summary)(run)
    finally:
        directory.release()


def _train_stages(run: Run, teacher: TeacherFile | None, path: str | None) -> None:
    config, inherited = run.config, dict(run.plan.inherited)
    *before, last = run.plan.stages
    for plan in before:
        files = run.directory.stage(plan.name)
        if not files.finished:
            fit(new_stage(run, plan))
        path = str(files.encoder)
        teacher = load_teacher(path, run.parts)
        inherited |= inherited_flops(config, path)
        # The next stage may spend what this one did not.
        share = 1 - config.compute.teacher_share
        last = last.under(budget_left(config, inherited), config.compute.budget, share)
    if not run.directory.stage(last.name).finished:
        lineage = lineage_of(config, path, run.origin)
        fit(new_stage(run, last, teacher, config.checkpoint or "", inherited, lineage))


def _make_paths_absolute(config: RunConfig) -> None:
    method, inputs = config.method, config.input_dir

    def from_here(path: Any) -> Any:
        return absolute(path) if path else path

    config.input_dir = from_here(inputs) if isinstance(inputs, str) else list(map(absolute, inputs))
    config.checkpoint = from_here(config.checkpoint)
    method.continue_from = from_here(method.continue_from)
    if (path := named_teacher_path(config)) is not None:
        if path.startswith(TIMM):
            name, colon, file = path.removeprefix(TIMM).partition(":")
            method.teacher.path = f"{TIMM}{name}{colon}{from_here(file)}"
        else:
            method.teacher.path = from_here(path)
    for node, keys in (
        (method, ("probe_train", "probe_test", "val", "test")),
        (method.monitor, ("train", "test")),
    ):
        for key in keys:
            if getattr(node, key, None):
                setattr(node, key, absolute(getattr(node, key)))
    if method.probe is not None and method.probe.endswith((".yaml", ".yml")):
        method.probe = absolute(method.probe)
