"""A method is what its `MethodSpec` says: nothing else in the package knows it by name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import TINY
from torch import Tensor, nn

import salt_plugin
from salt_plugin import load_encoder
from salt_plugin.batch import Batch
from salt_plugin.compute.step_costs import PIXELS
from salt_plugin.config import PixelTeacherConfig, compose, registry
from salt_plugin.config.registry import MethodSpec
from salt_plugin.errors import ConfigError
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import VideoEncoder
from salt_plugin.run_directory import RunDirectory, read_metrics
from salt_plugin.train import run


class Toy(VideoMethod):
    """Tells the mean of a clip's pixels from its tokens."""

    def __init__(self, encoder: VideoEncoder, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.encoder = encoder
        self.head = nn.Linear(encoder.embed_dim, 1)

    @classmethod
    def configured(
        cls, node: Any, pieces: Any, encoder: VideoEncoder, recipe: Recipe, teacher: Any
    ) -> Toy:
        return cls(encoder, recipe)

    @property
    def result(self) -> VideoEncoder:
        return self.encoder

    def trained(self) -> list[nn.Module]:
        return [self.encoder, self.head]

    def forward(self, batch: Batch) -> Tensor:
        clips = batch.normalized()
        guess_b = self.head(self.encoder(clips).mean(1)).squeeze(1)
        return (guess_b - clips.flatten(1).mean(1)).square().mean()


def test_a_spec_is_all_that_a_method_needs(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = MethodSpec(name="toy", config=PixelTeacherConfig, method=f"{__name__}:Toy", step=PIXELS)
    monkeypatch.setitem(registry.METHODS, "toy", spec)
    cfg = compose(["method=pixel_teacher", f"input_dir={tiny_videos}", *TINY])
    cfg.method.name, cfg.trainer.max_steps = "toy", 3
    run(cfg, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["method"], [one["stage"] for one in summary["stages"]]) == ("toy", ["student"])
    assert set(summary["bill"]["parts"]) == {"student", "decoder"}
    rows = read_metrics(RunDirectory(tmp_path).result.metrics)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert torch.isfinite(load_encoder(tmp_path).norm.weight).all()


def test_an_unknown_method_is_told_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"method\.name='vjeppa' is no method; did you mean"):
        registry.get("vjeppa")
    with pytest.raises(ConfigError, match=r"method\.name=None is no method; known here: fine"):
        registry.get(None)


def test_no_other_file_compares_names_of_methods_or_keeps_a_table_of_them() -> None:
    names = set(registry.METHODS)
    found = []
    for file in Path(salt_plugin.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            constants: list[ast.AST] = []
            if isinstance(node, ast.Compare):
                constants = [node.left, *node.comparators]
                constants += [one for each in node.comparators for one in getattr(each, "elts", [])]
            elif isinstance(node, ast.Dict):
                constants = [key for key in node.keys if key is not None]
            elif isinstance(node, ast.MatchValue):
                constants = [node.value]
            if any(isinstance(one, ast.Constant) and one.value in names for one in constants):
                found.append(f"{file.name}:{node.lineno}")
    assert found == []
