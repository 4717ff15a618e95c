from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from salt_plugin.config import ProbeConfig
from salt_plugin.data import ClipSampler, EvalDataset, read_inputs
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation import FrozenEncoder, linear_accuracy, probe
from salt_plugin.evaluation.score import ProbeScore, demo_lists
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.transforms import SALTEvalTransform

VIEW: dict[str, Any] = {
    "frames": 4,
    "size": 16,
    "step": 2,
    "fps": None,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}
DEMO = {"size": 32, "frames": 8, "digit": 14, "train": 12, "test": 6}


@pytest.fixture
def encoder() -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(EncoderShape("small", 24, depth=1, num_heads=2, patch_size=4))


def test_the_linear_score_is_that_on_mean_tokens_of_centred_clips(
    encoder: VideoEncoder, tiny_videos: Path, tmp_path: Path
) -> None:
    score = ProbeScore(tiny_videos, tiny_videos, VIEW, tmp_path, "linear", workers=0)
    transform = SALTEvalTransform(16, VIEW["mean"], VIEW["std"])
    data = EvalDataset(read_inputs(tiny_videos), ClipSampler(4, 2), transform)
    clips = torch.stack([data[i][0] for i in range(6)])
    with torch.no_grad():
        features = encoder(clips).mean(1)
    assert torch.allclose(score.features(encoder), features, atol=1e-6)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert score(encoder) == linear_accuracy(features, labels, features, labels)
    seen, shown = score.first_clip()
    assert torch.equal(seen, clips[0])
    assert torch.allclose(transform(shown.mul(255).round().byte().transpose(0, 1)), seen, atol=0.02)


def test_the_attentive_score_is_the_fast_protocol_of_the_probe_command(
    encoder: VideoEncoder, labelled: Path, small: ProbeConfig, tmp_path: Path
) -> None:
    lists = labelled / "train.csv", labelled / "test.csv"
    score = ProbeScore(*lists, VIEW, tmp_path, epochs=2, workers=0)
    frozen = FrozenEncoder.of("small", encoder, VIEW["mean"], VIEW["std"])
    report = probe(frozen, replace(small, protocols=["attentive"]))
    assert score(encoder) == report.results["attentive"].accuracy
    assert (score.config.grid, score.config.segments, score.config.crops) == ("fast", 1, 1)


@pytest.mark.parametrize("keep", [True, False])
def test_each_clip_is_encoded_once(
    encoder: VideoEncoder, labelled: Path, tmp_path: Path, keep: bool
) -> None:
    seen = []
    encoder.register_forward_hook(lambda _, clips, __: seen.append(clips[0]))
    lists = labelled / "train.csv", labelled / "test.csv"
    score = ProbeScore(*lists, VIEW, tmp_path, "knn", keep, workers=0)
    score.features(encoder)
    score(encoder)
    # Clips of zeros only ask how many tokens there are.
    assert sum(len(clips) for clips in seen if clips.any()) == 12 + 6
    assert bool(list(tmp_path.iterdir())) == keep


def test_the_demo_set_of_a_run_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = {"input_dir": "demo:train.csv", "method": {"data": {"demo": DEMO}}}
    train, test = demo_lists(config, "digit")
    assert [len(read_inputs(file).paths) for file in (train, test)] == [12, 6]
    assert demo_lists(config, "direction")[0].parent == train.parent
    with pytest.raises(ConfigError, match=r"input_dir=/videos, not on the demo set"):
        demo_lists({**config, "input_dir": "/videos"}, "digit")


def test_lists_are_checked_before_anything_is_computed(tiny_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "bee").symlink_to(tiny_videos / "bee")
    with pytest.raises(DataError, match=r"probe\.test=.*has 1 of 2 classes: it lacks ant"):
        ProbeScore(tiny_videos, tmp_path, VIEW, tmp_path / "cache")
