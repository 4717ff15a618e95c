"""What the encoders of a demo run know: appearance (digit) and motion (direction).

The protocol is the same for all encoders: the mean over all tokens of the last layer, on centred
clips of the demo set; probes learn from labelled training clips and are scored on test clips whose
digit scans appear in no training clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.data import ClipSampler, EvalDataset, read_inputs
from salt_plugin.evaluation.features import mean_features, shuffle_frames
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

TASKS = {"direction": 8, "digit": 10}
LABELLED_CLIPS = 2000
SHUFFLED = "student, shuffled"


class _Split(NamedTuple):
    clips: Tensor
    labels: dict[str, Tensor]


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
    train = _read(folder, "train", sampler, size, LABELLED_CLIPS)
    test = _read(folder, "test", sampler, size, None)
    rows = [_row(name, encoder, train, test) for name, encoder in encoders.items()]
    if "student" in encoders:
        shuffled = [
            split._replace(clips=shuffle_frames(split.clips, seed + i))
            for i, split in enumerate((train, test))
        ]
        rows.append(_row(SHUFFLED, encoders["student"], *shuffled))
    return rows


def _read(folder: Path, split: str, sampler: ClipSampler, size: int, most: int | None) -> _Split:
    labels = {
        task: torch.tensor(read_inputs(folder / f"{split}_{task}.csv").labels[:most])
        for task in TASKS
    }
    videos = read_inputs(folder / f"{split}_direction.csv")
    dataset = EvalDataset(videos, sampler, SALTEvalTransform(size))
    clips = torch.stack([dataset[i][0] for i in range(len(labels["direction"]))])
    return _Split(clips, labels)


def _row(name: str, encoder: VideoEncoder, train: _Split, test: _Split) -> dict[str, str | float]:
    train_nd, test_nd = (mean_features(encoder, split.clips) for split in (train, test))
    row: dict[str, str | float] = {"encoder": name}
    for task in TASKS:
        labelled = (train_nd, train.labels[task], test_nd, test.labels[task])
        row[f"{task}_knn"] = knn_accuracy(*labelled)
        row[f"{task}_linear"] = linear_accuracy(*labelled)
    return row
