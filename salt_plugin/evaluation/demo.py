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

from salt_plugin.data import ClipSampler, read_inputs
from salt_plugin.evaluation.controls import ShuffledFrames, as_they_are
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import Extraction, mean_features
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy
from salt_plugin.evaluation.views import ViewDataset, Views
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

TASKS = {"direction": 8, "digit": 10}
LABELLED_CLIPS = 2000
SHUFFLED = "student, shuffled"
CHANCE = {f"{task}_{probe}": 1 / n for task, n in TASKS.items() for probe in ("knn", "linear")}


class _Split(NamedTuple):
    features: dict[str, Tensor]
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
    frozen = {name: FrozenEncoder.of(name, encoder) for name, encoder in encoders.items()}
    train = _read(frozen, folder, "train", sampler, size, LABELLED_CLIPS, seed)
    test = _read(frozen, folder, "test", sampler, size, None, seed + 1)
    return [_row(name, train, test) for name in train.features]


def _read(
    encoders: Mapping[str, FrozenEncoder],
    folder: Path,
    split: str,
    sampler: ClipSampler,
    size: int,
    most: int | None,
    seed: int,
) -> _Split:
    labels = {
        task: torch.tensor(read_inputs(folder / f"{split}_{task}.csv").labels[:most])
        for task in TASKS
    }
    paths = read_inputs(folder / f"{split}_direction.csv").paths[:most]
    probed = {name: (encoder, as_they_are) for name, encoder in encoders.items()}
    if "student" in encoders:
        shuffle = ShuffledFrames(len(paths), sampler.frames, seed)
        probed[SHUFFLED] = encoders["student"], shuffle
    dataset = ViewDataset(paths, sampler, SALTEvalTransform(size), Views())
    features = mean_features(probed, dataset, Extraction())
    return _Split({name: means_nvd[:, 0] for name, means_nvd in features.items()}, labels)


def _row(name: str, train: _Split, test: _Split) -> dict[str, str | float]:
    row: dict[str, str | float] = {"encoder": name}
    for task in TASKS:
        labelled = (
            train.features[name],
            train.labels[task],
            test.features[name],
            test.labels[task],
        )
        row[f"{task}_knn"] = knn_accuracy(*labelled)
        row[f"{task}_linear"] = linear_accuracy(*labelled)
    return row
