"""What a run leaves behind its encoders: figures, probes and the summary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_plugin.checkpoints import load_encoder, read_card, read_torch_file
from salt_plugin.config import ProbeConfig, RunConfig, probe_config
from salt_plugin.config.evaluation import PROTOCOLS
from salt_plugin.data.demo import make_demo
from salt_plugin.data.stream import clip_sampler, demo_spec
from salt_plugin.evaluation.demo import CHANCE, probe_demo
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import probe
from salt_plugin.files import write_json
from salt_plugin.models import VideoEncoder
from salt_plugin.report.accuracies import Bars
from salt_plugin.report.figures import dim_outside, draw_losses, draw_strips
from salt_plugin.run_directory import read_metrics
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.build import new_encoder, new_stage
from salt_plugin.training.checkpoint import resume_point
from salt_plugin.training.parts import Parts, Run
from salt_plugin.training.plan import stage_seed
from salt_plugin.training.skipped import read_skipped

DEMO = "demo"
LOSS_WINDOW = 10


def leave_figures(run: Run) -> None:
    """Draws a clip under its masks, the reconstruction of its pixels, and the losses."""
    config, parts, directory = run.config, run.parts, run.directory
    alone = replace(run, config=replace(config, loader=replace(config.loader, num_workers=0)))
    batch = next(iter(alone.batches(config.seed, total_steps=1)))
    clip = _frames(parts, batch.clips[0])
    # The first clip belongs to the first group, whose mask sets come first.
    masks = batch.masks[: parts.masks.num_sets]
    seen = [_kept(parts, mask.context[0]) for mask in masks]
    strips = {
        f"mask set {i + 1}: what the encoder sees": dim_outside(clip, pixels)
        for i, pixels in enumerate(seen)
    }
    draw_strips(directory.figures / "masks.png", {"clip": clip, **strips})
    for plan in (stage for stage in run.plan.stages if stage.spec.reconstructs):
        checkpoint = resume_point(directory.stage(plan.name).last_checkpoint).path
        if checkpoint is None:
            continue
        method: Any = new_stage(run, plan).method
        method.load_state_dict(read_torch_file(checkpoint)["state_dict"])
        method.eval()
        strips = {"clip": clip}
        for i, mask in enumerate(masks):
            visible, filled = method.reconstruct(batch, mask_index=i)
            known = seen[i] | _kept(parts, mask.target[0])
            strips[f"mask set {i + 1}: input"] = dim_outside(_frames(parts, visible[0]), seen[i])
            strips[f"mask set {i + 1}: reconstruction"] = dim_outside(
                _frames(parts, filled[0]), known
            )
        draw_strips(directory.figures / "reconstruction.png", strips)
    losses = {stage.root.name: read_metrics(stage.metrics) for stage in _trained(run)}
    draw_losses(directory.figures / "losses.png", losses)


def leave_summary(run: Run) -> None:
    """Probes the encoders where asked for, and writes `summary.json`, which ends the run."""
    config, directory, stages = run.config, run.directory, _trained(run)
    best, clip = stages[-1].encoder, config.method.clip
    tokens = np.prod(run.parts.grid) + run.parts.encoder.cls_token
    trained = {stage.root.name: load_encoder(stage.encoder) for stage in stages}
    last = stages[-1].root.name
    start = new_encoder(config, trained[last].shape, stage_seed(config, last))
    write_json(
        directory.summary,
        {
            "method": config.method.name,
            "stages": [_stage_summary(stage) for stage in stages],
            "bill": read_card(best)["compute"]["bill"],
            **_accuracy(directory.stage(last)),
            "skipped_files": len(read_skipped(directory.skipped)),
            "probe": probe_run(run, {"random": start, **trained}),
            "example": {
                "path": str(best.relative_to(directory.root)),
                "clips": f"[B, 3, {clip.frames}, {clip.size}, {clip.size}]",
                "features": f"[B, {tokens}, {run.parts.encoder.embed_dim}]",
            },
        },
    )


def _accuracy(stage: StageDirectory) -> dict[str, Any]:
    found = json.loads(stage.accuracy.read_text()) if stage.accuracy.is_file() else None
    return {} if found is None else {"accuracy": found}


def probe_settings(config: RunConfig) -> ProbeConfig | None:
    """Returns how the run's encoders are probed; None where they are not, or as the demo's table.

    Clips, workers and stall come from the run, all else from the probe set. Warns of videos that
    both lists name.

    Raises:
        SaltError: There is no such set, or its lists cannot work.
    """
    method = config.method
    if method.probe in (None, DEMO):
        return None
    lists = {"train": method.probe_train, "test": method.probe_test}
    protocol = method.probe_protocol
    settings = probe_config(
        method.probe,
        **{key: given for key, given in lists.items() if given is not None},
        frames=method.clip.frames,
        size=method.clip.size,
        step=method.clip.step,
        fps=method.clip.fps,
        protocols=list(PROTOCOLS) if protocol == "all" else [protocol],
        seed=config.seed % 2**32,
        workers=config.loader.num_workers,
        stall=method.data.stall,
    )
    find_leaks(read_lists(settings))
    return settings


def probe_run(run: Run, encoders: Mapping[str, VideoEncoder]) -> dict[str, Any] | None:
    """Probes encoders by name on the set of `method.probe`.

    Returns:
        The `set`, the `chance` of each column, a row of accuracies for each encoder, and, but for
        the demo's table, `clip` and `leaks` as those of a report, `test_in_pretraining`, the test
        videos that training saw, and the `reports` with intervals and grids; None where the run
        asks for no probe.

    Raises:
        SaltError: As `salt_plugin.evaluation.protocol.probe`.
    """
    config, settings, transform = run.config, run.probe, run.parts.transform
    if config.method.probe == DEMO:
        folder, size = make_demo(demo_spec(config)), config.method.clip.size
        rows = probe_demo(encoders, folder, clip_sampler(config), size, config.seed)
        return {"set": DEMO, "chance": CHANCE, "rows": rows}
    if settings is None:
        return None
    device = "cpu" if config.trainer.gpus == 0 else None
    reports = {}
    with Bars() as bars:
        for name, encoder in encoders.items():
            untrained = name == "random" and not config.checkpoint
            frozen = FrozenEncoder(name, encoder, transform.mean, transform.std, untrained)
            reports[name] = probe(frozen, settings, device, bars)
    first = next(iter(reports.values()))
    known = set(map(os.path.realpath, run.videos.paths))
    test = map(os.path.realpath, read_lists(settings).test.paths)
    return {
        "set": config.method.probe,
        "chance": {protocol: one.chance for protocol, one in first.results.items()},
        "rows": [
            {"encoder": name, **{protocol: one.accuracy for protocol, one in found.results.items()}}
            for name, found in reports.items()
        ],
        "clip": first.clip,
        "leaks": first.leaks,
        "test_in_pretraining": sum(path in known for path in test),
        "reports": {name: found.as_dict() for name, found in reports.items()},
    }


def _trained(run: Run) -> list[StageDirectory]:
    directory = run.directory
    return [stage for stage in (directory.teacher, directory.student) if stage.finished]


def _stage_summary(stage: StageDirectory) -> dict[str, Any]:
    ledger = json.loads(stage.compute.read_text())
    rows = read_metrics(stage.metrics)
    losses = [row["loss"] for row in rows if np.isfinite(row["loss"])]
    window = max(1, min(LOSS_WINDOW, len(losses) // 3))
    measured = [row for row in rows if "target_rank" in row]
    last = measured[-1] if measured else {}
    return {
        "stage": stage.root.name,
        "encoder": read_card(stage.encoder)["shape"]["name"],
        "steps": ledger["steps"],
        "clips": ledger["clips"],
        "first_loss": float(np.mean(losses[:window])),
        "last_loss": float(np.mean(losses[-window:])),
        "flops": ledger["total_flops"],
        "seconds": ledger["seconds"],
        "target_spread": last.get("target_spread"),
        "target_rank": last.get("target_rank"),
    }


def _frames(parts: Parts, clip_cthw: Tensor) -> np.ndarray:
    return parts.transform.denormalize(clip_cthw).permute(1, 2, 3, 0).numpy()


def _kept(parts: Parts, indices_k: Tensor) -> np.ndarray:
    """Returns bool [T, H, W]: the pixels of the tokens with these indices."""
    tokens = torch.zeros(parts.grid, dtype=torch.bool)
    tokens.view(-1)[indices_k] = True
    tubelet = torch.ones(parts.encoder.tubelet_size, *(parts.encoder.patch_size,) * 2)
    return torch.kron(tokens, tubelet.bool()).numpy()
