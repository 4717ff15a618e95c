"""What a run leaves behind its encoders: figures, probes and the summary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_plugin.batch import Batch, MaskCollator
from salt_plugin.checkpoints import load_encoder, read_card, read_torch_file
from salt_plugin.config import RunConfig
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_loader
from salt_plugin.files import write_json
from salt_plugin.models import VideoEncoder
from salt_plugin.report.figures import dim_outside, draw_losses, draw_strips
from salt_plugin.run_directory import RunDirectory, read_metrics
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.build import new_encoder, new_stage
from salt_plugin.training.parts import Parts
from salt_plugin.training.plan import RunPlan, stage_seed
from salt_plugin.training.probe import probe_run
from salt_plugin.training.resume import resume_point
from salt_plugin.training.skipped import read_skipped

LOSS_WINDOW = 10


def leave_figures(
    config: RunConfig, parts: Parts, plan: RunPlan, videos: VideoList, run: RunDirectory
) -> None:
    """Draws a clip under its masks, the reconstruction of its pixels, and the losses."""
    batch = _first_batch(config, parts, videos)
    clip = _frames(parts, batch.clips[0])
    # The first clip belongs to the first group, whose mask sets come first.
    masks = batch.masks[: parts.masks.num_sets]
    seen = {
        f"mask set {i + 1}: what the encoder sees": dim_outside(clip, _kept(parts, mask.context[0]))
        for i, mask in enumerate(masks)
    }
    draw_strips(run.figures / "masks.png", {"clip": clip, **seen})
    for stage in plan.stages:
        if not stage.spec.reconstructs:
            continue
        files = run.stage(stage.name)
        checkpoint = resume_point(files.last_checkpoint).path
        if checkpoint is None:
            continue
        method: Any = new_stage(config, parts, files, stage).method
        method.load_state_dict(read_torch_file(checkpoint)["state_dict"])
        method.eval()
        rows = {"clip": clip}
        for i, mask in enumerate(masks):
            visible, filled = method.reconstruct(batch, mask_index=i)
            seen_pixels = _kept(parts, mask.context[0])
            known_pixels = seen_pixels | _kept(parts, mask.target[0])
            name = f"mask set {i + 1}"
            rows[f"{name}: input"] = dim_outside(_frames(parts, visible[0]), seen_pixels)
            rows[f"{name}: reconstruction"] = dim_outside(_frames(parts, filled[0]), known_pixels)
        draw_strips(run.figures / "reconstruction.png", rows)
    losses = {stage.root.name: read_metrics(stage.metrics) for stage in _trained(run)}
    draw_losses(run.figures / "losses.png", losses)


def leave_summary(config: RunConfig, parts: Parts, videos: VideoList, run: RunDirectory) -> None:
    """Probes the encoders where asked for, and writes `summary.json`, which ends the run."""
    stages = _trained(run)
    best = stages[-1].encoder
    shape, grid, clip = parts.encoder, parts.grid, config.method.clip
    write_json(
        run.summary,
        {
            "method": config.method.name,
            "stages": [_stage_summary(stage) for stage in stages],
            "bill": read_card(best)["compute"]["bill"],
            "skipped_files": len(read_skipped(run.skipped)),
            "probe": probe_run(config, parts, _encoders(config, run), videos.paths),
            "example": {
                "path": str(best.relative_to(run.root)),
                "clips": f"[B, 3, {clip.frames}, {clip.size}, {clip.size}]",
                "features": f"[B, {int(np.prod(grid)) + shape.cls_token}, {shape.embed_dim}]",
            },
        },
    )


def _trained(run: RunDirectory) -> list[StageDirectory]:
    return [stage for stage in (run.teacher, run.student) if stage.finished]


def _stage_summary(stage: StageDirectory) -> dict[str, Any]:
    ledger = json.loads(stage.compute.read_text())
    rows = read_metrics(stage.metrics)
    losses = [row["loss"] for row in rows if np.isfinite(row["loss"])]
    window = max(1, min(LOSS_WINDOW, len(losses) // 3))
    return {
        "stage": stage.root.name,
        "encoder": read_card(stage.encoder)["shape"]["name"],
        "steps": ledger["steps"],
        "clips": ledger["clips"],
        "first_loss": float(np.mean(losses[:window])),
        "last_loss": float(np.mean(losses[-window:])),
        "flops": ledger["total_flops"],
        "seconds": ledger["seconds"],
        "target_spread": _last(rows, "target_spread"),
        "target_rank": _last(rows, "target_rank"),
    }


def _last(rows: list[dict[str, float]], column: str) -> float | None:
    """Returns what stands in the last row that has the column."""
    return next((row[column] for row in reversed(rows) if column in row), None)


def _encoders(config: RunConfig, run: RunDirectory) -> dict[str, VideoEncoder]:
    """Returns the encoders of a run by name, and the start of its last one, `random`."""
    trained = {stage.root.name: load_encoder(stage.encoder) for stage in _trained(run)}
    last = list(trained)[-1]
    start = new_encoder(config, trained[last].shape, stage_seed(config, last))
    return {"random": start, **trained}


def _first_batch(config: RunConfig, parts: Parts, videos: VideoList) -> Batch:
    clips, group = config.method.global_batch_size, config.method.mask_group
    loader = training_loader(
        replace(config, loader=replace(config.loader, num_workers=0)),
        videos,
        parts.transform,
        MaskCollator(parts.masks, parts.grid, config.seed, group, clips),
        seed=config.seed,
        total_steps=1,
    )
    return next(iter(loader))


def _frames(parts: Parts, clip_cthw: Tensor) -> np.ndarray:
    return parts.transform.denormalize(clip_cthw).permute(1, 2, 3, 0).numpy()


def _kept(parts: Parts, indices_k: Tensor) -> np.ndarray:
    """Returns bool [T, H, W]: the pixels of the tokens with these indices."""
    tokens = torch.zeros(parts.grid, dtype=torch.bool)
    tokens.view(-1)[indices_k] = True
    kept = tokens.repeat_interleave(parts.encoder.tubelet_size, 0)
    patch = parts.encoder.patch_size
    return kept.repeat_interleave(patch, 1).repeat_interleave(patch, 2).numpy()
