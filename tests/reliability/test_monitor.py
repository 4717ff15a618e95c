"""The encoder in training is measured on the way, and training does not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import power_failure
from ranked import train_together
from small_run import TINY

from salt_plugin.compute.cost import encoder_forward
from salt_plugin.config import compose, probe_config
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation import probe
from salt_plugin.evaluation.lists import LabelledList
from salt_plugin.evaluation.spectrum import effective_rank
from salt_plugin.run_directory import read_metrics
from salt_plugin.shapes import EncoderShape
from salt_plugin.train import run
from salt_plugin.training.monitor import first_of_classes

NAMES = ("monitor_knn", "monitor_linear", "monitor_rank", "monitor_target_rank")
ON = "method.monitor={{train: {0}, test: {0}, every: 2}}"
SALT = ["method=salt", "method.teacher.max_steps=3", "trainer.max_steps=5"]


def train(videos: Path, run_dir: Path, *overrides: str) -> Path:
    given = [*TINY, f"input_dir={videos}", "method.checkpoint.every_n_steps=2"]
    run(compose([*given, *overrides]), run_dir)
    return run_dir


def measured(stage: Path) -> Iterator[dict[str, Any]]:
    for row in read_metrics(stage / "metrics.csv"):
        if "monitor_rank" in row:
            yield {name: row[name] for name in ("step", *NAMES) if name in row}


@pytest.fixture(scope="module")
def watched(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "watched"
    given = [*SALT, "method.model.drop_path=0.2", "method.encoders_every_n_steps=2"]
    return train(tiny_videos, run_dir, *given, ON.format(tiny_videos))


def test_training_is_the_same_to_the_bit_and_in_its_books(
    watched: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    plain = train(tiny_videos, tmp_path, *SALT, "method.model.drop_path=0.2")
    for stage in ("teacher", "student"):
        with_it, without = (outcome.rows(one / stage) for one in (watched, plain))
        for row in (*with_it, *without):
            for name in NAMES:
                del row[name]
        assert with_it == without
        assert outcome.fingerprint(watched / stage) == outcome.fingerprint(plain / stage)
        books, other = (
            json.loads((one / stage / "compute.json").read_text()) for one in (watched, plain)
        )
        spent, nothing = books.pop("evaluation"), other.pop("evaluation")
        assert outcome.equal(books, other)
        assert nothing == {"flops": 0, "seconds": 0}
        # Of two lists of six clips, and the targets of six; at 2 and 3, or 2, 4 and 5.
        forward = encoder_forward(EncoderShape.named("vit_nano"), 8)
        assert spent["flops"] == {"teacher": 2 * 12, "student": 3 * 18}[stage] * forward
        assert spent["seconds"] > 0


def test_it_finds_what_a_probe_finds(watched: Path, tiny_videos: Path, tmp_path: Path) -> None:
    rows = list(measured(watched / "student"))
    assert [row["step"] for row in rows] == [2, 4, 5]
    lists = {"train": str(tiny_videos), "test": str(tiny_videos)}
    clip = {"frames": 4, "size": 32, "step": 1, "workers": 0, "cache": str(tmp_path)}
    config = probe_config(**lists, **clip, protocols=["linear", "knn"])
    for row in rows:
        found = probe(str(watched / f"student/encoders/step-{row['step']}.safetensors"), config)
        for protocol in ("linear", "knn"):
            assert row[f"monitor_{protocol}"] == pytest.approx(found.results[protocol].accuracy)
        both = found.means_nvd[:, 0].repeat(2, 1)
        assert row["monitor_rank"] == pytest.approx(effective_rank(both), rel=1e-4)


def test_targets_have_a_rank_where_latents_are_predicted(
    watched: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    assert all("monitor_target_rank" not in row for row in measured(watched / "teacher"))
    ranks = {row["monitor_target_rank"] for row in measured(watched / "student")}
    assert len(ranks) == 1  # of a frozen teacher
    vjepa = ["method=vjepa", "trainer.max_steps=4", "method.momentum.start=0.5"]
    moving = train(tiny_videos, tmp_path, *vjepa, ON.format(tiny_videos)) / "student"
    assert len({row["monitor_target_rank"] for row in measured(moving)}) == 2


def test_a_run_that_goes_on_finds_the_same(
    watched: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    given = [*SALT, "method.model.drop_path=0.2", ON.format(tiny_videos)]
    for step in (4, 5):
        with power_failure(step, "student"):
            train(tiny_videos, tmp_path, *given)
    outcome.require_same(train(tiny_videos, tmp_path, *given), watched, "teacher", "student")


def test_a_budget_pays_for_training_alone(tiny_videos: Path, tmp_path: Path) -> None:
    budget = ["method=vjepa", "compute.budget=1e9"]
    steps = [
        outcome.steps(train(tiny_videos, tmp_path / name, *budget, *more) / "student")
        for name, more in (("plain", []), ("watched", [ON.format(tiny_videos)]))
    ]
    assert steps[0] == steps[1]
    assert [row["step"] for row in measured(tmp_path / "watched/student")][-1] == steps[0][-1]


def test_lists_that_cannot_work_are_one_clear_error_before_training(
    tiny_videos: Path, tmp_path: Path
) -> None:
    def fails(kind: type[Exception], message: str, monitor: str) -> None:
        with pytest.raises(kind, match=message):
            train(tiny_videos, tmp_path / "run", *SALT, f"method.monitor={monitor}")

    videos = f"train: {tiny_videos}"
    fails(ConfigError, r"^method\.monitor\.test: missing; ", f"{{{videos}}}")
    fails(DataError, r"^method\.monitor: .*none\.csv", f"{{{videos}, test: none.csv}}")
    fails(ConfigError, r"^method\.monitor\.every=0: expected", f"{{{videos}, every: 0}}")
    assert not (tmp_path / "run").exists()
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text(f"{tiny_videos}/ant/0.mp4 0\nbad.mp4 1\n")
    listed = f"{{train: {tmp_path}/list.csv, test: {tmp_path}/list.csv}}"
    fails(DataError, r"^method\.monitor: .*bad\.mp4", listed)


def test_the_first_of_each_class_are_looked_at() -> None:
    def kept(labels: list[int], most: int) -> list[str]:
        paths = [str(number) for number in range(len(labels))]
        return first_of_classes(LabelledList(paths, torch.tensor(labels)), most).paths

    assert kept([0, 0, 0, 1, 1, 2], 4) == ["0", "1", "3", "5"]
    assert kept([2, 1, 0, 0], 2) == ["1", "2"]
    assert kept([0, 1], 10) == ["0", "1"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tiny_videos: Path, tmp_path: Path) -> None:
    found = []
    for size in (1, 2):
        given = [*SALT, f"input_dir={tiny_videos}", "method.global_batch_size=4"]
        root = tmp_path / str(size)
        more = [*given, ON.format(tiny_videos)]
        ended = train_together(size, root, tmp_path / f"{size}.log", more)
        assert [process.status for process in ended] == [0] * size, ended[0].message
        found.append(list(measured(root / "student")))
    one, two = found
    assert [row["step"] for row in one] == [2, 4, 5]
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
