"""Processes that train together do what one does, and lose nothing when one of them ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import outcome
import pytest
import torch
from ranked import Ended, Moment, train_together
from safetensors.torch import load_file

from salt_plugin.checkpoints import read_card
from salt_plugin.config import registry
from salt_plugin.run_directory import read_metrics

BOTH_STAGES = ["method=salt", "method.teacher.max_steps=3", "method.checkpoint.every_n_steps=2"]


def given(videos: Path, *overrides: str) -> list[str]:
    return [*BOTH_STAGES, f"input_dir={videos}", *overrides]


def order(ended: list[Ended]) -> dict[tuple[str, int], list[str]]:
    """Returns the clips of each step in their global order, by stage and step."""
    steps: dict[tuple[str, int], list[str]] = {}
    for process in ended:
        for step in process.steps:
            steps.setdefault((step["stage"], step["step"]), []).extend(step["clips"])
    return steps


@pytest.fixture(scope="module")
def pair(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """A run of two processes, with two clips each."""
    folder = tmp_path_factory.mktemp("pair")
    ended = train_together(2, folder / "run", folder / "log", given(tiny_videos))
    return folder / "run", ended


@pytest.mark.slow
def test_two_processes_see_in_order_what_one_sees(
    pair: tuple[Path, list[Ended]], tiny_videos: Path, tmp_path: Path
) -> None:
    run_dir, together = pair
    assert [process.status for process in together] == [0, 0], together[0].message
    whole = given(tiny_videos, "method.global_batch_size=4")
    alone = train_together(1, tmp_path / "run", tmp_path / "log", whole)
    assert order(together) == order(alone)
    assert len(order(alone)) == 3 + 4
    for stage in ("teacher", "student"):
        cards = [
            read_card(root / stage / "encoder.safetensors") for root in (run_dir, tmp_path / "run")
        ]
        assert [card["training"]["batch_size"] for card in cards] == [4, 4]
        rows = [read_metrics(root / stage / "metrics.csv") for root in (run_dir, tmp_path / "run")]
        for one, other in zip(*rows, strict=True):
            assert one["clips"] == other["clips"]
            assert one["lr"] == other["lr"]


@pytest.mark.slow
def test_tasks_of_srun_on_two_nodes_do_the_same(
    pair: tuple[Path, list[Ended]], tiny_videos: Path, tmp_path: Path
) -> None:
    run_dir, together = pair
    tasks = train_together(2, tmp_path / "run", tmp_path / "log", given(tiny_videos), srun=True)
    assert [process.status for process in tasks] == [0, 0], tasks[0].message
    assert order(tasks) == order(together)
    outcome.require_same(run_dir, tmp_path / "run", "teacher", "student")


@pytest.mark.slow
def test_the_first_process_alone_writes_and_its_losses_are_of_all(
    pair: tuple[Path, list[Ended]],
) -> None:
    run_dir, (first, second) = pair
    assert first.written
    assert second.written == []
    for stage in ("teacher", "student"):
        rows = read_metrics(run_dir / stage / "metrics.csv")
        losses = [
            [step["loss"] for step in process.steps if step["stage"] == stage]
            for process in (first, second)
        ]
        assert losses[0] != losses[1]
        expected = [(one + other) / 2 for one, other in zip(*losses, strict=True)]
        assert [row["loss"] for row in rows] == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_one_process_that_is_asked_or_killed_costs_the_run_nothing(
    pair: tuple[Path, list[Ended]], tiny_videos: Path, tmp_path: Path
) -> None:
    run_dir, together = pair
    overrides = given(tiny_videos)
    asked = Moment(1, "teacher", 0, signal.SIGTERM)
    ended = train_together(2, tmp_path / "run", tmp_path / "asked", overrides, asked)
    assert [process.status for process in ended] == [75, 75]
    (message,) = {process.message for process in ended}
    assert message.startswith("saved at step 1; the same configuration with hydra.run.dir=")
    killed = Moment(1, "student", 3, signal.SIGKILL)
    ended = train_together(2, tmp_path / "run", tmp_path / "killed", overrides, killed)
    assert [process.status for process in ended] == [75, -signal.SIGKILL]
    assert "another process of this training has ended" in ended[0].message
    assert "Saved at step 2; " in ended[0].message
    assert order(ended)["teacher", 1] == order(together)["teacher", 1]

    ended = train_together(2, tmp_path / "run", tmp_path / "resumed", overrides)
    assert [process.status for process in ended] == [0, 0]
    outcome.require_same(run_dir, tmp_path / "run", "teacher", "student")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name in ("salt", "vjepa2") else pytest.mark.release)
        for name, spec in registry.METHODS.items()
        if not spec.over_batch
    ],
)
def test_a_global_batch_has_the_same_losses_and_gradients_on_any_number_of_processes(
    method: str, tiny_videos: Path, tmp_path: Path
) -> None:
    overrides = [f"method={method}", f"input_dir={tiny_videos}", "method.global_batch_size=5"]
    overrides += ["method.clip.size=64", "trainer.max_steps=8", "optimizer.lr=1e-4"]
    classifies = registry.get(method).classifies
    overrides.append("checkpoint=null" if classifies else "method.mask_group=3")
    stages = ["teacher"] if method == "pixel_teacher" else ["student"]
    if method == "salt":
        overrides.append("method.teacher.max_steps=8")
        stages.append("teacher")
    for size in (1, 2, 4):
        log = tmp_path / f"{size}.log"
        ended = train_together(size, tmp_path / str(size), log, overrides)
        assert [process.status for process in ended] == [0] * size, ended[0].message
    for stage in stages:
        rows = {
            size: read_metrics(tmp_path / str(size) / stage / "metrics.csv") for size in (1, 2, 4)
        }
        for size in (2, 4):
            for column in ("loss", "grad_norm"):
                expected = [row[column] for row in rows[1]]
                assert len(expected) == 8
                assert [row[column] for row in rows[size]] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_processes_in_the_same_order(
    pair: tuple[Path, list[Ended]], tiny_videos: Path, tmp_path: Path
) -> None:
    _, together = pair
    asked = Moment(0, "student", 1, signal.SIGUSR2)
    ended = train_together(2, tmp_path / "run", tmp_path / "asked", given(tiny_videos), asked)
    assert [process.status for process in ended] == [75, 75]
    other = given(tiny_videos, "method.global_batch_size=2")
    (refused,) = train_together(1, tmp_path / "run", tmp_path / "other", other)
    assert refused.status == 1
    assert "method.global_batch_size was 4 and is now 2" in refused.message
    # The same command: four clips a step, now in two micro-batches.
    resumed = train_together(1, tmp_path / "run", tmp_path / "resumed", given(tiny_videos))
    assert resumed[0].status == 0, resumed[0].message
    expected = {place: clips for place, clips in order(together).items() if place >= ("student", 2)}
    expected = {place: clips for place, clips in expected.items() if place[0] == "student"}
    assert order(resumed) == expected


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes_in_the_same_order(
    pair: tuple[Path, list[Ended]], tiny_videos: Path, tmp_path: Path
) -> None:
    _, together = pair
    asked = Moment(0, "teacher", 0, signal.SIGTERM)
    whole = given(tiny_videos, "method.global_batch_size=4", "loader.batch_size=2")
    alone = train_together(1, tmp_path / "run", tmp_path / "alone", whole, asked)
    assert [process.status for process in alone] == [75]
    resumed = train_together(2, tmp_path / "run", tmp_path / "resumed", whole)
    assert [process.status for process in resumed] == [0, 0], resumed[0].message
    assert {**order(alone), **order(resumed)} == order(together)
    assert order(alone).keys().isdisjoint(order(resumed))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_ends_all_at_the_same_step(
    tiny_videos: Path, tmp_path: Path
) -> None:
    spoilt = Moment(1, "teacher", 2, None)
    overrides = given(tiny_videos, "method.max_nonfinite_steps=1")
    ended = train_together(2, tmp_path / "run", tmp_path / "log", overrides, spoilt)
    assert [process.status for process in ended] == [1, 1]
    assert ended[0].message == ended[1].message
    assert "the loss is inf and the gradient norm nan at step 3" in ended[0].message
    stage = tmp_path / "run" / "teacher"
    (entry,) = json.loads((stage / "nonfinite.json").read_text())["steps"]
    assert len(entry["paths"]) == 4
    assert [loss == "inf" for loss in entry["loss"]] == [False, True]
    assert outcome.saved_step(stage) == 2
    # Left out in both: their weights stay alike, and a limit that allows it goes on.
    allowed = given(tiny_videos, "method.max_nonfinite_steps=2")
    ended = train_together(2, tmp_path / "run", tmp_path / "again", allowed, spoilt)
    assert [process.status for process in ended] == [0, 0], ended[0].message


@pytest.mark.slow
def test_processes_that_were_not_given_one_folder_are_told(
    tiny_videos: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    ended = train_together(2, folders, tmp_path / "log", given(tiny_videos))
    assert [process.status for process in ended] == [1, 1]
    for process in ended:
        assert "hydra.run.dir differs between the processes that train together" in process.message


@pytest.mark.slow
def test_nobody_waits_for_ever_for_a_process_that_is_silent(
    tiny_videos: Path, tmp_path: Path
) -> None:
    silent = Moment(1, "teacher", 1, signal.SIGSTOP)
    ended = train_together(2, tmp_path / "run", tmp_path / "log", given(tiny_videos), silent)
    assert ended[0].status == os.EX_TEMPFAIL
    assert "has ended or does not answer" in ended[0].message


@pytest.mark.slow
def test_bad_files_that_any_process_meets_are_listed_once_and_too_many_end_all(
    tiny_videos: Path, tmp_path: Path
) -> None:
    paths = [str(path) for path in sorted(tiny_videos.rglob("*.mp4"))]
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.mp4"))
        Path(paths[-1]).write_text("no video")
    videos = tmp_path / "videos.csv"
    videos.write_text("".join(f"{path} 0\n" for path in paths))
    overrides = ["method=pixel_teacher", f"input_dir={videos}", "method.data.max_bad=0.5"]
    ended = train_together(2, tmp_path / "run", tmp_path / "log", overrides)
    assert [process.status for process in ended] == [0, 0], ended[0].message
    met = [{path for step in process.steps for path in step["skipped"]} for process in ended]
    assert met[1] - met[0]
    assert outcome.skipped(tmp_path / "run").keys() == met[0] | met[1]

    strict = [*overrides[:-1], "method.data.max_bad=0.2", "method.checkpoint.every_n_steps=1"]
    ended = train_together(2, tmp_path / "strict", tmp_path / "few", strict)
    assert [process.status for process in ended] == [1, 1]
    assert ended[0].message == ended[1].message
    assert "files cannot be read, and method.data.max_bad allows 2" in ended[0].message
    assert len(ended[0].steps) == len(ended[1].steps)


@pytest.mark.slow
def test_processes_share_the_cores_unless_srun_binds_them(
    tiny_videos: Path, tmp_path: Path
) -> None:
    given = ["method=pixel_teacher", f"input_dir={tiny_videos}", "trainer.max_steps=1"]
    overrides = [*given, "loader.num_workers=-1"]
    cores = len(os.sched_getaffinity(0))
    for name, bound, workers in (("shared", None, max(1, cores // 2)), ("bound", 1, cores)):
        ended = train_together(
            2, tmp_path / name, tmp_path / f"{name}.log", overrides, cores_of_task=bound
        )
        assert [process.status for process in ended] == [0, 0], ended[0].message
        assert [process.steps[0]["workers"] for process in ended] == [workers] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "name"),
    [("seed=2", "seed differs"), ("optimizer.lr=1e-4", "optimizer.lr differs")],
)
def test_processes_that_were_told_different_things_say_which(
    tiny_videos: Path, tmp_path: Path, other: str, name: str
) -> None:
    ended = train_together(
        2, tmp_path / "run", tmp_path / "log", given(tiny_videos), of_last=[other]
    )
    assert [process.status for process in ended] == [1, 1]
    assert all(name in process.message for process in ended)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_levjepa_on_two_processes_is_that_on_one_undivided_batch(
    tiny_videos: Path, tmp_path: Path
) -> None:
    """Its loss is of a batch: gathered over the processes, and BatchNorm synchronised."""
    overrides = [
        "method=levjepa",
        f"input_dir={tiny_videos}",
        "method.global_batch_size=5",
        "method.model.patch_size=8",
        "method.transform.local_views=2",
        "method.masks.drop=0.5",
        "method.projector.hidden_dim=64",
        "method.projector.sync_batch_norm=true",
        "method.ema=0",
        "method.encoders_every_n_steps=1",
    ]
    stages, rows = [], []
    for size, batch_size in ((1, 5), (2, 3)):
        root = tmp_path / str(size)
        own = [*overrides, f"loader.batch_size={batch_size}"]
        ended = train_together(size, root, tmp_path / f"{size}.log", own)
        assert [process.status for process in ended] == [0] * size, ended[0].message
        stages.append(root / "student")
        rows.append(read_metrics(root / "student" / "metrics.csv"))
    for name in ("loss", "grad_norm"):
        one, other = ([row[name] for row in run] for run in rows)
        assert other == pytest.approx(one, rel=1e-3)
        assert other[0] == pytest.approx(one[0], rel=1e-5)
    # AdamW makes whole steps of the rounding of gradients that are zero.
    first, last, same = (
        load_file(stage / "encoders" / f"step-{step}.safetensors")
        for stage, step in ((stages[0], 1), (stages[0], 4), (stages[1], 4))
    )
    names = [name for name in last if not name.endswith("bias")]
    moved, apart = (
        torch.cat([(last[name] - them[name]).flatten() for name in names]).norm()
        for them in (first, same)
    )
    assert apart < 0.02 * moved
