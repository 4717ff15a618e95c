"""`preset=paper/*`: each printed value is the paper's, and each run can be built and planned."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest
import torch

from salt_plugin.conf_folder import choices
from salt_plugin.config import RunConfig, compose, registry
from salt_plugin.config.compare import compare_config
from salt_plugin.config.planning import compose_alone, load_alone
from salt_plugin.errors import ConfigError
from salt_plugin.methods import Recipe
from salt_plugin.models import FrozenTeacher, VideoEncoder
from salt_plugin.shapes import EncoderShape
from salt_plugin.studies.cells import all_cells, train_overrides
from salt_plugin.studies.comparison import common_settings
from salt_plugin.studies.costs import composed_config
from salt_plugin.studies.elements import all_elements
from salt_plugin.studies.pipeline import pipeline_config
from salt_plugin.training.footprint import stage_memory
from salt_plugin.training.parts import build_parts
from salt_plugin.training.plan import RunPlan, plan_configured


class Run(NamedTuple):
    """A row of the paper's tables."""

    method: str
    encoder: str
    steps: int
    teacher: tuple[str, int] | None = None  # trained before it, and its steps
    pixels: int = 224
    fps: float | None = None


def _student(size: str, steps: int = 160_000, teacher_steps: int = 80_000) -> Run:
    return Run("salt", f"vit_{size}", steps, ("vit_large", teacher_steps))


# arXiv 2509.24317: encoders, splits of 240k steps and generations; V-JEPA 2 at 256 px: 2506.09985.
RUNS = {
    **{f"teacher_{one}": Run("pixel_teacher", f"vit_{one}", 80_000) for one in ("base", "large")},
    **{f"teacher_{n}": Run("pixel_teacher", f"vit_{n}", 80_000) for n in ("huge", "gigantic")},
    "teacher_causal": Run("pixel_teacher", "vit_large", 80_000),
    "teacher_tube_x1": Run("pixel_teacher", "vit_large", 80_000),
    "teacher_tube_x2": Run("pixel_teacher", "vit_large", 80_000),
    **{f"student_{one}": _student(one) for one in ("base", "large", "huge", "giant", "gigantic")},
    "student_ablation": _student("large", 80_000),
    "student_split_40_200": _student("large", 200_000, 40_000),
    "student_split_20_220": _student("large", 220_000, 20_000),
    "student_generation_2": _student("large", 80_000, 40_000),
    "student_generation_3": _student("large", 120_000),
    **{f"vjepa_{one}": Run("vjepa", f"vit_{one}", 240_000) for one in ("large", "huge")},
    **{
        f"vjepa_{one}_256": Run("vjepa", f"vit_{one}", 240_000, pixels=256)
        for one in ("large", "huge")
    },
    **{
        f"vjepa2_{one}": Run("vjepa2", f"vit_{one}", 240_000)
        for one in ("base", "large", "huge", "giant", "gigantic")
    },
    **{
        f"vjepa2_{one}_256": Run("vjepa2", f"vit_{one}", 240_000, pixels=256, fps=4)
        for one in ("large", "huge", "giant")
    },
}
# Goes on from another run; not finished.
COOLDOWN = "vjepa2_large_256_cooldown"
# Of method: learning rate at the start, peak and end; weight decay at both ends; warm-up.
RECIPES = {
    "pixel_teacher": (2e-4, 6.25e-4, 1e-6, 0.04, 0.4, 10_000),
    "salt": (2e-4, 6.25e-4, 1e-6, 0.04, 0.4, 10_000),
    "vjepa": (2e-4, 6.25e-4, 1e-6, 0.04, 0.4, 10_000),
    "vjepa2": (1e-4, 5.25e-4, 5.25e-4, 0.04, 0.04, 12_000),
}
MOMENTA = {"vjepa": (0.998, 1.0), "vjepa2": (0.99925, 0.99925)}
BLOCKS = {"num_blocks": 8, "scale": 0.15}, {"num_blocks": 2, "scale": 0.7}


@cache
def _config(name: str) -> RunConfig:
    return load_alone([f"preset=paper/{name}"])


def test_the_presets_are_those_of_the_table() -> None:
    found = {one.removeprefix("paper/") for one in choices("preset") if "paper/" in one}
    assert found == {*RUNS, COOLDOWN}


@pytest.mark.parametrize("name", RUNS)
def test_a_preset_is_the_printed_run(name: str) -> None:
    config, run = _config(name), RUNS[name]
    method, optim = config.method, config.method.optim
    assert (method.name, method.encoder) == (run.method, run.encoder)
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (run.steps, -1)
    if run.teacher is not None:
        assert (method.teacher.encoder, method.teacher.max_steps) == run.teacher
    assert (method.global_batch_size, config.loader.batch_size * 128) == (3072, 3072)
    assert (method.clip.frames, method.clip.size, method.clip.fps) == (16, run.pixels, run.fps)
    assert (method.clip.step, method.transform["scale"], method.transform["ratio"]) == (
        4,
        [0.3, 1.0],
        [0.75, 1.35],
    )
    lr, decay = config.optimizer.lr, config.optimizer.weight_decay
    found = [lr * optim.warmup_start, lr, lr * optim.final_lr, decay, optim.final_weight_decay]
    shortest = min(run.steps, run.teacher[1] if run.teacher else run.steps)
    found.append(min(optim.warmup_steps, optim.max_warmup_share * shortest))
    assert found == pytest.approx(RECIPES[run.method], rel=3e-3)
    if run.method in MOMENTA:
        assert (method.momentum.start, method.momentum.end) == MOMENTA[run.method]


@pytest.mark.parametrize("name", RUNS)
def test_masks(name: str) -> None:
    masks = _config(name).method.masks
    if "tube" in name:
        assert (masks["ratio"], masks["num_sets"]) == (0.9, int(name[-1]))
    else:
        assert (masks["short_range"], masks["long_range"]) == BLOCKS
        assert masks["aspect_ratio"] == [0.75, 1.5]
        assert masks.get("max_temporal_keep", 1.0) == (0.5 if "causal" in name else 1.0)


def _planned(name: str) -> tuple[RunConfig, RunPlan]:
    config = load_alone([f"preset={name}"])
    config.checkpoint = config.method.continue_from = None  # of a run that is not there
    named = getattr(config.method, "teacher", None)
    teacher = EncoderShape.named("vit_large") if named and named.path else None
    return config, plan_configured(config, teacher)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in choices("preset") if "/" in one])
def test_a_preset_is_planned_and_fits_the_device_that_it_states(name: str) -> None:
    config, plan = _planned(name)
    devices, gib = {"small/one_gpu": (1, 24), "small/eight_gpus": (8, 80)}.get(name, (128, 80))
    for stage in plan.stages:
        assert sum(stage.flops().values()) > 0
        memory = stage_memory(config, stage, devices)
        # What is left is CUDA's own, and what lies idle between blocks.
        assert sum(memory.values()) < 0.9 * gib * 2**30, (stage.name, memory)


@pytest.mark.parametrize(
    ("name", "devices", "speed"), [("one_gpu", 1, 6e13), ("eight_gpus", 8, 2e15)]
)
def test_a_small_preset_takes_about_a_day(name: str, devices: int, speed: float) -> None:
    _, plan = _planned(f"small/{name}")
    assert sum(plan.flops().values()) / speed / 3600 == pytest.approx(24, rel=0.1)
    for method in ("pixel_teacher", "vjepa2", "levjepa"):
        steps = load_alone([f"preset=small/{name}", f"method={method}"]).trainer.max_steps
        assert steps == plan.stages[method != "pixel_teacher"].steps


# Parameters in millions: encoders by width, depth and MLP; predictor and decoder as printed.
ENCODERS = {"base": 86.2, "large": 303.9, "huge": 631.6, "giant": 1012.2, "gigantic": 1843.9}
PREDICTOR = 22


@pytest.mark.parametrize("method", ["teacher", "student", "vjepa2"])
@pytest.mark.parametrize("size", ENCODERS)
def test_models_have_the_printed_parameters(
    method: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if f"{method}_{size}" not in RUNS:
        pytest.skip("the paper has none")
    monkeypatch.setattr("salt_plugin.models.teacher.fingerprint", lambda state: "")
    config = _config(f"{method}_{size}")
    spec, parts = registry.get(config.method.name), build_parts(config)
    with torch.device("meta"):
        encoder, teacher = VideoEncoder(parts.encoder), VideoEncoder(parts.teacher)
    frozen, kind = FrozenTeacher(teacher) if spec.teacher else None, resolve_name(spec.method)
    with torch.device("meta"):
        made = kind.configured(config.method, parts, encoder, Recipe(10), frozen)
    counts = [sum(one.numel() for one in part.parameters()) / 1e6 for part in made.trained()]
    assert counts == [pytest.approx(ENCODERS[size], abs=0.1), pytest.approx(PREDICTOR, abs=1)]
    held = sum(one.numel() for one in made.parameters()) / 1e6 - sum(counts)
    expected = {"teacher": 0.0, "student": ENCODERS["large"], "vjepa2": ENCODERS[size]}
    assert held == pytest.approx(expected[method], abs=0.1)


@pytest.mark.parametrize("composed", [compose, compose_alone])
def test_the_method_of_the_command_line_goes_before_that_of_the_preset(composed: Any) -> None:
    given = ["preset=paper/vjepa2_base"]
    assert composed(given).method.name == "vjepa2"
    assert composed([*given, "method=vjepa"]).method.name == "vjepa"


def test_a_misspelt_preset_in_a_folder_is_named() -> None:
    with pytest.raises(ConfigError, match="no such preset; did you mean 'paper/student_huge'"):
        load_alone(["preset=paper/student_hug"])


def test_the_comparison_is_of_the_printed_runs() -> None:
    config = compare_config("paper", ["overrides=[input_dir=VIDEOS]"])
    cells = all_cells(config)
    runs = {cell.name: load_alone(train_overrides(cell, config)) for cell in cells}
    common_settings(runs)
    for cell, run in zip(cells, runs.values(), strict=True):
        size = cell.encoder.removeprefix("vit_")
        kind = {"salt": "student", "vjepa2": "vjepa2"}[cell.method]
        preset = load_alone([f"preset=paper/{kind}_{size}", "input_dir=VIDEOS"])
        preset.method.model.activation_checkpointing = True  # changes no result
        assert replace(run, seed=preset.seed) == preset


def test_the_study_is_of_the_presets(tmp_path: Path) -> None:
    study = pipeline_config("paper_scale")
    trained = [one for one in all_elements(study, tmp_path) if one.arguments[0] == "train"]
    names = ["teacher_large", *(f"student_{one}" for one in ("large", "huge", "giant", "gigantic"))]
    for element, name in zip(trained, names, strict=True):
        found = composed_config(element)
        preset = load_alone([f"preset=paper/{name}", "input_dir=VIDEOS"])
        if name != "teacher_large":
            preset.method.teacher.path = found.method.teacher.path
        assert found == preset
