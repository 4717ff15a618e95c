from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from salt_plugin.data import ClipSampler, EvalDataset, read_inputs
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation import linear_accuracy, mean_features
from salt_plugin.evaluation.fast import FastProbe, demo_videos, labelled_videos
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

VIEW: dict[str, Any] = {
    "frames": 4,
    "size": 16,
    "step": 2,
    "fps": None,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
}
DEMO = {"size": 32, "frames": 8, "digit": 14, "train": 12, "test": 6}


def test_the_score_is_the_linear_probe_on_mean_tokens_of_centred_clips(tiny_videos: Path) -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape("small", 24, depth=1, num_heads=2, patch_size=4))
    train, test = labelled_videos(tiny_videos, tiny_videos)
    probe = FastProbe(train, test, VIEW)
    transform = SALTEvalTransform(16, VIEW["mean"], VIEW["std"])
    data = EvalDataset(train, ClipSampler(4, 2), transform)
    features = mean_features(encoder, torch.stack([data[i][0] for i in range(6)]))
    assert torch.allclose(probe.features(encoder), features, atol=1e-6)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert probe(encoder) == linear_accuracy(features, labels, features, labels)


def test_the_demo_set_of_a_run_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = {"input_dir": "", "method": {"data": {"demo": DEMO}}}
    train, test = demo_videos(config, "digit")
    assert (len(train.paths), len(test.paths)) == (12, 6)
    assert set(train.labels + test.labels) <= set(range(10))
    assert demo_videos(config, "direction")[0].paths == train.paths
    with pytest.raises(ConfigError, match=r"input_dir=/videos, not on the demo set"):
        demo_videos({**config, "input_dir": "/videos"}, "digit")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("0 1", "0 -1", r"test\.csv: 1 videos have no label \(-1\), the first is .*b\.mp4"),
        ("0 1", "0 2", r"test\.csv has labels that .*train\.csv does not: \[2\]"),
        ("1 1", "1 1", r"train\.csv: all videos have the label 1"),
    ],
)
def test_labels_that_cannot_be_probed_are_named(
    tmp_path: Path, train: str, test: str, message: str
) -> None:
    for name, labels in (("train", train), ("test", test)):
        lines = [f"{path} {label}" for path, label in zip("ab", labels.split(), strict=True)]
        text = "\n".join(line.replace(" ", ".mp4 ") for line in lines)
        (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        labelled_videos(tmp_path / "train.csv", tmp_path / "test.csv")


def test_folders_whose_classes_are_numbered_differently_are_refused(
    tiny_videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_videos / "bee", tmp_path / "bee")
    assert read_inputs(tmp_path).labels == [0, 0, 0]  # in tiny_videos, bee is 1
    with pytest.raises(DataError, match="sub-folders have to be the same"):
        labelled_videos(tiny_videos, tmp_path)
