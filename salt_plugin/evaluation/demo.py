"""What the encoders of a demo run know: appearance (digit) and motion (direction).

Probes read the mean over all tokens, or `[cls]`, of centred clips. They learn from labelled
training clips and are scored on test clips whose digit scans appear in no training clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from salt_plugin.data import ClipSampler, EvalDataset, read_inputs
from salt_plugin.evaluation.controls import frame_orders, shuffled
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

TASKS = {"direction": 8, "digit": 10}
LABELLED_CLIPS = 2000
CLIPS_AT_ONCE = 64
SHUFFLED = "student, shuffled"
CHANCE = {f"{task}_{probe}": 1 / n for task, n in TASKS.items() for probe in ("knn", "linear")}


def probe_demo(
    encoders: Mapping[str, VideoEncoder], folder: Path, sampler: ClipSampler, size: int, seed: int
) -> list[dict[str, str | float]]:
    """Probes encoders on the demo set.

    Args:
        encoders: By name; the one called `student` is also probed on shuffled frames.
        folder: The demo set, as `make_demo` returns it.
        sampler: Picks the frames of a clip.
        size: Height and width of a clip in pixels.
        seed: Of the shuffling.

    Returns:
        A row for each encoder: its name, and the accuracy for each task and probe, e.g.
        `direction_linear`.
    """
    frozen = {name: FrozenEncoder(name, encoder) for name, encoder in encoders.items()}
    features, labels = [], []
    for number, (split, most) in enumerate((("train", LABELLED_CLIPS), ("test", None))):
        lists = {task: read_inputs(folder / f"{split}_{task}.csv") for task in TASKS}
        labels.append({task: torch.tensor(one.labels[:most]) for task, one in lists.items()})
        dataset = EvalDataset(lists["direction"], sampler, SALTEvalTransform(size))
        clips = len(labels[number]["direction"])
        order_nt = frame_orders(clips, sampler.frames, seed + number)
        features.append(_pooled(frozen, dataset, order_nt))
    (train, test), (train_labels, test_labels) = features, labels
    rows: list[dict[str, str | float]] = []
    for name in train:
        row: dict[str, str | float] = {"encoder": name}
        for task in TASKS:
            labelled = train[name], train_labels[task], test[name], test_labels[task]
            row[f"{task}_knn"] = knn_accuracy(*labelled)
            row[f"{task}_linear"] = linear_accuracy(*labelled)
        rows.append(row)
    return rows


def _pooled(
    encoders: Mapping[str, FrozenEncoder], dataset: EvalDataset, order_nt: Tensor
) -> dict[str, Tensor]:
    """Returns float32 [n, D] of the first n clips by encoder; all encoders share the decoding."""
    found: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(order_nt)).split(CLIPS_AT_ONCE):
        clips_bcthw = torch.stack([dataset[int(row)][0] for row in rows])
        for name, encoder in encoders.items():
            found.setdefault(name, []).append(encoder.pool(encoder(clips_bcthw)))
        if "student" in encoders:
            mixed = shuffled(clips_bcthw[:, None], order_nt[rows])[:, 0]
            student = encoders["student"]
            found.setdefault(SHUFFLED, []).append(student.pool(student(mixed)))
    return {name: torch.cat(parts) for name, parts in found.items()}
