"""One number for an encoder, quickly: a linear probe on the mean token of centred clips."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from salt_plugin.data import ClipSampler, DemoSpec, EvalDataset, VideoList, make_demo, read_inputs
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation.probes import linear_accuracy
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

LABELLED_CLIPS = 2000
BATCH_SIZE = 32


class FastProbe:
    """Scores encoders on labelled videos; called with one, it returns the test accuracy.

    Args:
        train: Videos to learn from.
        test: Videos to score on.
        view: Clip and normalisation, as `input` on an encoder's card: `frames`, `size`, `step`,
            `fps`, `mean` and `std`.
    """

    def __init__(self, train: VideoList, test: VideoList, view: Mapping[str, Any]) -> None:
        step = None if view["fps"] else view["step"]
        sampler = ClipSampler(view["frames"], step, view["fps"])
        self.transform = SALTEvalTransform(view["size"], view["mean"], view["std"])
        self.train, self.test = (
            EvalDataset(videos, sampler, self.transform) for videos in (train, test)
        )

    def __call__(self, encoder: VideoEncoder) -> float:
        """Returns the accuracy of logistic regression on mean tokens."""
        train_n, test_n = (torch.tensor(data.videos.labels) for data in (self.train, self.test))
        train_nd = _mean_tokens(encoder, self.train)
        return linear_accuracy(train_nd, train_n, self.features(encoder), test_n)

    def features(self, encoder: VideoEncoder) -> Tensor:
        """Returns the mean tokens of the test clips, float32 [N, D], on the CPU."""
        return _mean_tokens(encoder, self.test)


def demo_videos(config: Mapping[str, Any], task: str) -> tuple[VideoList, VideoList]:
    """Returns labelled videos of a run's demo set: the first 2,000 to learn from, and the test.

    Args:
        config: What `config.yaml` of the run holds.
        task: `direction` or `digit`.

    Raises:
        ConfigError: The run was not trained on the demo set.
    """
    if config["input_dir"]:
        raise ConfigError(
            f"the run was trained on input_dir={config['input_dir']}, not on the demo set; name "
            "labelled videos by --train CSV --test CSV"
        )
    folder = make_demo(DemoSpec(**config["method"]["data"]["demo"]))
    train, test = (read_inputs(folder / f"{split}_{task}.csv") for split in ("train", "test"))
    most = slice(LABELLED_CLIPS)
    first = VideoList(train.paths[most], train.labels[most], None, train.source[most])
    return first, test


def labelled_videos(
    train: str | os.PathLike[str], test: str | os.PathLike[str]
) -> tuple[VideoList, VideoList]:
    """Returns the labelled videos of two lists, or two folders.

    Raises:
        DataError: A list is missing or broken, has rows without a label, or the two do not fit.
    """
    lists = read_inputs(train), read_inputs(test)
    for name, videos in zip((train, test), lists, strict=True):
        if -1 in videos.labels:
            first = videos.paths[videos.labels.index(-1)]
            raise DataError(
                f"{name}: {videos.labels.count(-1)} videos have no label (-1), the first is "
                f"{first}; label them or take them out"
            )
    known, asked = (set(videos.classes or videos.labels) for videos in lists)
    if len(known) < 2:
        raise DataError(f"{train}: all videos have the label {known.pop()}; expected two or more")
    if asked - known:
        raise DataError(
            f"{test} has labels that {train} does not: {sorted(asked - known, key=str)}; a probe "
            "cannot learn them"
        )
    if lists[0].classes != lists[1].classes:  # folders are numbered each by its own classes
        raise DataError(
            f"{test} has the classes {lists[1].classes}, {train} {lists[0].classes}; the "
            "sub-folders have to be the same"
        )
    return lists


@torch.no_grad()
def _mean_tokens(encoder: VideoEncoder, data: EvalDataset) -> Tensor:
    device = next(encoder.parameters()).device
    batches = DataLoader(data, batch_size=BATCH_SIZE)
    encoder.eval()
    return torch.cat([encoder(clips.to(device)).mean(1).cpu() for clips, _ in batches])
