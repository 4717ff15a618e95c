"""Clips are uint8 until they are on the device; floats of a user's own transform stay floats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import TINY
from torch import Tensor
from torch.utils.data import DataLoader

from salt_plugin.batch import Batch, MaskCollator
from salt_plugin.config import compose
from salt_plugin.data import ClipSampler, StepBatchSampler, VideoDataset, read_inputs
from salt_plugin.errors import ConfigError
from salt_plugin.masks import TubeMasks
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.transforms import SALTTransform


class Floats(SALTTransform):
    """Normalises in the worker."""

    def __call__(self, frames: Tensor) -> Tensor:
        return self.normalization(super().__call__(frames))


def _batch(videos: Path, transform: SALTTransform, reader: str = "pyav", workers: int = 0) -> Batch:
    listed = read_inputs(str(videos))
    loader = DataLoader(
        VideoDataset(listed, ClipSampler(4, step=1), transform, seed=0, reader=reader),
        batch_sampler=StepBatchSampler(len(listed.paths), 3, 3, 1, seed=0),
        collate_fn=MaskCollator(TubeMasks(), (2, 4, 4), seed=0, group=24),
        num_workers=workers,
    )
    return next(iter(loader))


@pytest.mark.parametrize(("reader", "workers"), [("pyav", 0), ("pyav", 1), ("decord", 1)])
def test_a_batch_holds_uint8_by_any_reader(tiny_videos: Path, reader: str, workers: int) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    batch = _batch(tiny_videos, SALTTransform(32), reader, workers)
    assert (batch.clips.dtype, batch.clips.shape) == (torch.uint8, (3, 3, 4, 32, 32))
    clips = batch.normalized()
    assert (clips.dtype, clips.shape) == (torch.float32, batch.clips.shape)


def test_mean_and_deviation_of_the_transform_go_with_its_clips(tiny_videos: Path) -> None:
    transform = SALTTransform(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    batch = _batch(tiny_videos, transform, workers=1)
    torch.testing.assert_close(batch.normalized() * 255, batch.clips.float())
    assert batch.to("cpu").normalization == transform.normalization


def test_a_run_is_the_same_with_floats_of_a_transform_of_ones_own(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALT_TRUSTED_PACKAGES", __name__)
    losses = []
    for name, own in (("uint8", []), ("floats", [f"method.transform._target_={__name__}.Floats"])):
        keys = [f"input_dir={tiny_videos}", *TINY, "trainer.max_steps=2", "trainer.gpus=0"]
        run(compose(["method=pixel_teacher", *keys, *own]), tmp_path / name)
        losses.append(
            [row["loss"] for row in read_metrics(tmp_path / name / "teacher/metrics.csv")]
        )
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def test_workers_load_ahead_as_far_as_asked(tiny_videos: Path, tmp_path: Path) -> None:
    asked = []
    original = DataLoader.__init__

    def noting(self: DataLoader, *given: object, **settings: object) -> None:
        asked.append((settings["num_workers"], settings["prefetch_factor"]))
        original(self, *given, **settings)

    keys = ["method=pixel_teacher", f"input_dir={tiny_videos}", *TINY, "trainer.max_steps=1"]
    keys += ["trainer.gpus=0", "loader.prefetch_factor=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataLoader, "__init__", noting)
        run(compose([*keys, "loader.num_workers=1"]), tmp_path / "run")
    assert (1, 3) in asked
    with pytest.raises(ConfigError, match=r"^loader\.prefetch_factor=3: expected null with loader"):
        run(compose(keys), tmp_path / "none")
    assert not (tmp_path / "none").exists()
