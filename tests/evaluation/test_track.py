from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_plugin.checkpoints import read_card, save_encoder
from salt_plugin.data import ClipSampler, EvalDataset, read_inputs
from salt_plugin.errors import CheckpointError, ConfigError, SaltError
from salt_plugin.evaluation import linear_accuracy
from salt_plugin.evaluation.ranking import rank_students
from salt_plugin.evaluation.spectrum import effective_rank, spread
from salt_plugin.evaluation.track import demo_lists, kept_encoders, track, track_config
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.report.agreement import agreement
from salt_plugin.run_directory import RunDirectory
from salt_plugin.transforms import SALTEvalTransform

DEMO = {"size": 32, "frames": 8, "digit": 14, "train": 12, "test": 6}
VIEW: dict[str, Any] = {
    "frames": 4,
    "size": 16,
    "step": 2,
    "fps": None,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}
SHAPE = EncoderShape("small", embed_dim=24, depth=1, num_heads=2, patch_size=4)
CONFIG: dict[str, Any] = {
    "input_dir": "/videos",
    "seed": 1,
    "method": {
        "name": "salt",
        "encoder": "small",
        "clip": {"frames": 4, "size": 8},
        "masks": {"ratio": 0.9},
        "loss": {"distance": "l1"},
        "transform": {"hflip": 0.5},
        "data": {"cache": False, "weights": None},
    },
}


def changed(tree: dict[str, Any], **leaves: Any) -> dict[str, Any]:
    """Returns a copy with `method__clip__frames=8` and so on."""
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    for dotted, value in leaves.items():
        *path, leaf = dotted.split("__")
        node = copy
        for part in path:
            node = node[part]
        node[leaf] = value
    return copy


def student_run(
    root: Path,
    loss: float,
    teacher: str = "a" * 64,
    card: dict[str, Any] | None = None,
    **leaves: Any,
) -> Path:
    """Writes what a finished run leaves, as far as tracking reads it."""
    run = RunDirectory(root)
    run.student.make()
    run.config.write_text(json.dumps(changed(CONFIG, **leaves)))
    losses = "".join(f"{step},{loss}\n" for step in range(1, 4))
    run.student.metrics.write_text("step,loss\n" + losses)
    about = {"teacher_fingerprint": teacher, "training": {"steps": 3}, **(card or {})}
    save_encoder(VideoEncoder(SHAPE), run.student.encoder, about)
    return root


def test_the_fit_is_that_of_the_closed_form() -> None:
    losses, accuracies = [0.5, 0.4, 0.35, 0.2], [0.1, 0.3, 0.2, 0.6]
    fit = agreement(losses, accuracies)
    slope, intercept = np.polyfit(losses, accuracies, 1)
    residual = np.array(accuracies) - (slope * np.array(losses) + intercept)
    expected = 1 - residual.var() / np.var(accuracies)
    assert fit.n == 4
    assert fit.r2 == pytest.approx(expected)
    assert (fit.slope, fit.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert fit.spearman == pytest.approx(-0.8)  # ranks 4 3 2 1 and 1 3 2 4: 1 - 6 * 18 / 60


def test_a_monotone_relation_has_rank_correlation_one_and_a_line_r2_one() -> None:
    losses = [0.5, 0.4, 0.1]
    assert agreement(losses, [-(x**5) for x in losses]).spearman == pytest.approx(-1)
    assert agreement(losses, [2 - 3 * x for x in losses]).r2 == pytest.approx(1)


@pytest.mark.parametrize("losses", [[0.5, 0.4], [0.5, 0.5, 0.5], []])
def test_no_fit_where_there_is_nothing_to_fit(losses: list[float]) -> None:
    fit = agreement(losses, [0.1, 0.2, 0.3][: len(losses)])
    assert fit == (len(losses), None, None, None, None)


def test_every_kept_encoder_is_probed_in_order(tmp_path: Path, labelled: Path) -> None:
    run = RunDirectory(student_run(tmp_path / "run", loss=0.1))
    encoders = {}
    for step in (1000, 5, 20):
        torch.manual_seed(step)
        encoders[step] = VideoEncoder(SHAPE).eval()
        card = {"step": step, "loss": 1 / step, "input": VIEW}
        save_encoder(encoders[step], run.student.encoder_at(step), card)
    (run.student.encoders / "step-best.safetensors").touch()  # not one of ours
    kept = kept_encoders(run)
    assert list(kept) == [5, 20, 1000]

    lists = labelled / "train.csv", labelled / "test.csv"
    config = track_config(kept[5], lists, "linear", workers=0)
    points = list(track(kept, config))
    assert [(point.step, point.loss) for point in points] == [(5, 0.2), (20, 0.05), (1000, 0.001)]
    features, labels = [], []
    transform = SALTEvalTransform(16, VIEW["mean"], VIEW["std"])
    for file in lists:
        videos = read_inputs(file)
        data = EvalDataset(videos, ClipSampler(4, 2), transform)
        clips = torch.stack([data[i][0] for i in range(len(data))])
        with torch.no_grad():
            features.append(encoders[20](clips).mean(1))
        labels.append(torch.tensor(videos.labels))
    expected = linear_accuracy(features[0], labels[0], features[1], labels[1])
    assert points[1].accuracy == expected
    assert points[1].effective_rank == pytest.approx(effective_rank(features[1]), rel=1e-4)
    assert points[1].spread == pytest.approx(spread(features[1]), rel=1e-4)


def test_encoders_are_compared_by_the_fast_protocol_on_the_clips_of_the_card(
    tmp_path: Path, tiny_videos: Path
) -> None:
    run = student_run(tmp_path / "run", loss=0.1, card={"input": VIEW})
    encoder = RunDirectory(run).student.encoder
    config = track_config(encoder, (tiny_videos, tiny_videos), "attentive", epochs=2)
    assert (config.grid, config.segments, config.crops) == ("fast", 1, 1)
    assert (config.frames, config.size, config.step, config.epochs) == (4, 16, 2, 2)


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


def test_a_run_that_kept_none_names_the_key(tmp_path: Path) -> None:
    run = RunDirectory(student_run(tmp_path / "run", loss=0.1))
    with pytest.raises(CheckpointError, match=r"method\.encoders_every_n_steps=N"):
        kept_encoders(run)
    with pytest.raises(ConfigError, match=r"is no run directory: config\.yaml is missing"):
        kept_encoders(RunDirectory(tmp_path))
    (tmp_path / "config.yaml").write_text("trainer: 3")
    with pytest.raises(ConfigError, match=r"config\.yaml is no configuration of ours"):
        kept_encoders(RunDirectory(tmp_path))


def test_students_of_one_teacher_are_ranked_by_their_loss(tmp_path: Path) -> None:
    runs = [student_run(tmp_path / name, loss) for name, loss in (("a", 0.3), ("b", 0.1))]
    # What does not bear on the loss may differ, and the cache of decoded videos; `root` is a key of
    # earlier versions.
    other = {"seed": 2, "method__data__cache": True, "method__data__root": "/videos"}
    runs.append(student_run(tmp_path / "c", 0.2, **other))
    ranked = rank_students(runs)
    assert [Path(one.run).name for one in ranked] == ["b", "c", "a"]
    assert [one.loss for one in ranked] == [pytest.approx(loss) for loss in (0.1, 0.2, 0.3)]
    assert {one.accuracy for one in ranked} == {None}
    assert {one.steps for one in ranked} == {3}


def test_students_of_different_teachers_are_not_ranked(tmp_path: Path) -> None:
    runs = [student_run(tmp_path / name, 0.1, teacher=name * 64) for name in ("a", "b")]
    with pytest.raises(ConfigError, match="different teachers") as error:
        rank_students(runs)
    for run, name in zip(runs, ("a", "b"), strict=True):
        assert f"{run}: teacher {name * 12}" in str(error.value)
    assert "distances to different targets and do not compare" in str(error.value)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("vjepa", "a moving average of its own encoder"),
        ("vjepa2", "a moving average of its own encoder"),
        ("videomae", "does not tell how good the encoder is"),
    ],
)
def test_runs_without_a_frozen_teacher_are_not_ranked(
    tmp_path: Path, method: str, why: str
) -> None:
    runs = [student_run(tmp_path / name, 0.1, method__name=method) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=f"a run of method={method}, .*{why}"):
        rank_students(runs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method.masks.ratio", 0.5),
        ("method.loss.distance", "mse"),
        ("method.clip.frames", 8),
        ("method.transform.hflip", 0.0),
        ("method.data.weights", [1, 2]),
        ("input_dir", "/others"),
        ("method.masks.num_sets", 2),
    ],
)
def test_students_whose_loss_measures_something_else_are_not_ranked(
    tmp_path: Path, key: str, value: Any
) -> None:
    other = student_run(tmp_path / "b", 0.1, **{key.replace(".", "__"): value})
    with pytest.raises(ConfigError, match="do not compare") as error:
        rank_students([student_run(tmp_path / "a", 0.1), other])
    assert f"do not compare: {key}: " in str(error.value)
    assert f"{value} in {other}. Rank" in str(error.value)


def test_only_finished_students_are_ranked(tmp_path: Path) -> None:
    good = student_run(tmp_path / "a", 0.1)
    teacher = student_run(tmp_path / "b", 0.1, method__name="pixel_teacher")
    unfinished = student_run(tmp_path / "c", 0.1)
    RunDirectory(unfinished).student.encoder.unlink()
    assert read_card(RunDirectory(good).student.encoder)
    for other, message in ((teacher, "holds a pixel teacher"), (unfinished, "no finished student")):
        with pytest.raises(SaltError, match=message):
            rank_students([good, other])
