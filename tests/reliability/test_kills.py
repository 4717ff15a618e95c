"""A run that is killed over and over ends, bit for bit, as if it never had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import outcome
import pytest
import torch
from attempts import train, train_through
from deaths import ONE_OF_EACH, PLACES, draw_deaths
from safetensors.torch import load_file

from salt_plugin.data.demo import write_video

pytestmark = pytest.mark.slow

BASE = [
    "method.encoder=vit_nano",
    "method.clip.size=32",
    "method.clip.frames=4",
    "method.clip.step=2",
    "method.model.drop_path=0.2",
    "method.model.predictor.dim=48",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "method.optim.clip_grad=1.0",
    "method.data.max_bad=0.5",
    "method.checkpoint.every_n_steps=2",
    "loader.batch_size=3",
    "loader.num_workers=2",
    "trainer.precision=32",
    "trainer.gpus=0",
]
STAGES = {
    "pixel_teacher": {"teacher": 30},
    "salt": {"teacher": 20, "student": 20},
    "vjepa2": {"student": 30},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 videos, 64x64, of 24 frames of noise, and five broken ones."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(20):
        coarse = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
        write_video(folder / f"{number:02}.mp4", coarse.repeat(8, 1).repeat(8, 2), fps=10)
    for number in (3, 9):  # decodes at some places only
        file = folder / f"{number:02}.mp4"
        content = bytearray(file.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
        file.write_bytes(content)
    (folder / "05.mp4").write_bytes((folder / "05.mp4").read_bytes()[:1000])
    (folder / "12.mp4").write_bytes(rng.bytes(3000))
    (folder / "20.mp4").write_bytes(b"")
    return folder


def command(method: str, videos: Path) -> list[str]:
    stages = STAGES[method]
    steps = [f"trainer.max_steps={list(stages.values())[-1]}"]
    if method == "salt":
        steps.append(f"method.teacher.max_steps={stages['teacher']}")
    return [f"method={method}", f"input_dir={videos}", *BASE, *steps]


@pytest.mark.parametrize(
    ("method", "ranks"),
    [
        ("salt", 2),
        # The test below is of one process, with vjepa2's average.
        *(pytest.param(method, 1, marks=pytest.mark.release) for method in STAGES),
    ],
)
@pytest.mark.parametrize(
    "places",
    [
        pytest.param(ONE_OF_EACH, id="4-kills"),
        pytest.param(PLACES, id="20-kills", marks=pytest.mark.release),
    ],
)
def test_killed_over_and_over_a_run_ends_as_if_it_had_not_been(
    videos: Path, tmp_path: Path, method: str, ranks: int, places: tuple[str, ...]
) -> None:
    overrides = command(method, videos)
    train(tmp_path / "whole", overrides, ranks)
    deaths = draw_deaths(places, seed=len(method) + ranks, stages=STAGES[method], ranks=ranks)
    kills = sum(death.number == 9 for death in deaths)
    assert kills == len(places)
    toll = train_through(tmp_path / "killed", overrides, deaths, ranks)
    assert toll.torn >= kills // 4
    assert toll.damaged >= max(1, kills // 10)
    assert toll.resumed >= kills * 3 // 4
    for stage in STAGES[method]:
        one, other = (content(tmp_path / name, stage) for name in ("whole", "killed"))
        assert one.keys() == other.keys()
        for name in one:
            assert outcome.equal(one[name], other[name]), f"{stage}: {name}"
    skipped = [skipped_files(tmp_path / name) for name in ("whole", "killed")]
    # Files that other processes have met are listed at checkpoints, and signals make more of them.
    assert skipped[0] == skipped[1] if ranks == 1 else sorted(skipped[0]) == sorted(skipped[1])
    assert len(skipped[0]) > 3
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_a_run_that_continues_another_is_killed_over_and_over(videos: Path, tmp_path: Path) -> None:
    """With longer clips and another schedule, and checkpoints that are kept on the way."""
    train(tmp_path / "first", [*command("vjepa2", videos), "trainer.max_steps=5"], 1)
    overrides = [
        *command("vjepa2", videos),
        f"method.continue_from={tmp_path / 'first'}",
        "method.clip.frames=8",
        "method.optim.warmup_steps=0",
        "method.optim.final_lr=0.1",
        "method.checkpoint.keep_every=3",
    ]
    train(tmp_path / "whole", overrides, 1)
    deaths = draw_deaths(ONE_OF_EACH, seed=3, stages=STAGES["vjepa2"])
    train_through(tmp_path / "killed", overrides, deaths)
    one, other = (content(tmp_path / name, "student") for name in ("whole", "killed"))
    for name in one:
        assert outcome.equal(one[name], other[name]), name
    folders = [tmp_path / name / "student" / "checkpoints" for name in ("whole", "killed")]
    kept = [{path.name for path in folder.glob("step-*")} for folder in folders]
    assert kept[0] == kept[1] == {f"step-{step}.ckpt" for step in range(3, 31, 3)}
    for name in kept[0]:
        assert outcome.equal(*(torch.load(root / name, weights_only=True) for root in folders))


def content(run_dir: Path, stage: str) -> dict[str, Any]:
    """Returns what a stage has left, but wall-clock times."""
    folder = run_dir / stage
    return {
        **{f"last.ckpt {part}": value for part, value in outcome.checkpoint(folder).items()},
        **{path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))},
        "compute.json": json.loads((folder / "compute.json").read_text()),
        "fingerprint": outcome.fingerprint(folder),
        "metrics.csv": outcome.rows(folder),
    }


def skipped_files(run_dir: Path) -> list[str]:
    return (run_dir / "skipped.csv").read_text().splitlines()
