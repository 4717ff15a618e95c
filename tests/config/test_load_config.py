from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from salt_plugin.config import PixelTeacherConfig, SALTConfig, VJEPAConfig, compose, load_config
from salt_plugin.errors import ConfigError


@pytest.fixture(scope="module")
def salt() -> DictConfig:
    return compose(["method=salt", "input_dir=videos"])


@pytest.fixture(scope="module")
def pixel_teacher() -> DictConfig:
    return compose(["method=pixel_teacher", "input_dir=videos"])


def _changed(cfg: DictConfig, **changes: Any) -> DictConfig:
    """The same config with keys set, known or not, as YAML and Python can."""
    changed = cfg.copy()
    OmegaConf.set_struct(changed, False)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value, merge=False, force_add=True)
    return changed


def _error(cfg: DictConfig, **changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(_changed(cfg, **changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_both_methods_load(salt: DictConfig, pixel_teacher: DictConfig) -> None:
    config = load_config(salt)
    assert isinstance(config.method, SALTConfig)
    assert config.method.name == "salt"
    assert config.input_dir == "videos"
    config = load_config(pixel_teacher)
    assert type(config.method) is PixelTeacherConfig
    assert config.method.name == "pixel_teacher"


@pytest.mark.parametrize(
    ("method", "cls"),
    [("vjepa", VJEPAConfig), ("vjepa2", VJEPAConfig), ("videomae", PixelTeacherConfig)],
)
def test_baselines_load(method: str, cls: type) -> None:
    config = load_config(compose([f"method={method}", "input_dir=videos"]))
    assert type(config.method) is cls
    assert config.method.name == method


@pytest.mark.parametrize("key", ["method.momentum.start", "method.momentum.end"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_momentum_is_a_share(key: str, value: float) -> None:
    message = _error(compose(["method=vjepa"]), **{key: value})
    assert message == f"{key}={value}: expected a share, from 0 to 1"


def test_a_baseline_has_no_key_of_a_frozen_teacher() -> None:
    for method in ("vjepa", "videomae"):
        cfg = compose([f"method={method}"])
        assert "method.teacher: unknown key" in _error(cfg, **{"method.teacher": {}})
    assert "method.momentum: unknown key" in _error(
        compose(["method=videomae"]), **{"method.momentum": {"start": 1.0, "end": 1.0}}
    )


def test_overrides_arrive() -> None:
    overrides = ["method=salt", "method/masks=tube", "method.masks.ratio=0.8"]
    overrides += ["method.encoder=vit_tiny", "method.clip.size=112", "loader.batch_size=4"]
    overrides += ["input_dir=[a,b.csv]", "method.data.weights=[1,2.5]", "trainer.max_steps=10"]
    config = load_config(compose(overrides))
    assert config.method.masks["_target_"] == "salt_plugin.masks.TubeMasks"
    assert config.method.masks["ratio"] == 0.8
    assert config.method.encoder == config.method.teacher.encoder == "vit_tiny"
    assert config.method.clip.size == 112
    assert config.loader.batch_size == 4
    assert config.input_dir == ["a", "b.csv"]
    assert config.method.data.weights == [1.0, 2.5]
    assert config.trainer.max_steps == 10


def test_teacher_may_differ_from_the_student() -> None:
    config = load_config(
        compose(["method=salt", "method.encoder=vit_huge", "method.teacher.encoder=vit_large"])
    )
    assert (config.method.encoder, config.method.teacher.encoder) == ("vit_huge", "vit_large")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("inputdir", "input_dir"),
        ("loader.batchsize", "batch_size"),
        ("trainer.max_step", "max_steps"),
        ("optimizer.learning", None),
        ("method.encodr", "encoder"),
        ("method.clip.frame", "frames"),
        ("method.model.predictor.num_head", "num_heads"),
        ("method.teacher.maxsteps", "max_steps"),
        ("method.optim.warmup", "warmup_steps"),
    ],
)
def test_unknown_key_is_named_and_the_right_one_suggested(
    salt: DictConfig, key: str, meant: str | None
) -> None:
    message = _error(salt, **{key: 1})
    assert message.startswith(f"{key}: unknown key; ")
    assert (f"did you mean {meant!r}?" if meant else "known here: lr, weight_decay") in message


def test_teacher_key_is_unknown_to_the_pixel_teacher(pixel_teacher: DictConfig) -> None:
    assert "method.teacher: unknown key" in _error(pixel_teacher, **{"method.teacher": {}})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loader.batch_size", 0, "at least 1"),
        ("method.clip.frames", 0, "at least 1"),
        ("method.clip.size", -1, "at least 1"),
        ("method.clip.step", 0, "at least 1"),
        ("method.model.patch_size", 0, "at least 1"),
        ("method.model.tubelet_size", 0, "at least 1"),
        ("method.model.predictor.dim", 0, "at least 1"),
        ("method.model.predictor.depth", 0, "at least 1"),
        ("method.model.predictor.num_heads", 0, "at least 1"),
        ("method.checkpoint.every_n_steps", 0, "at least 1"),
        ("trainer.gpus", -1, "0 or more"),
        ("method.teacher.max_steps", 0, "at least 1"),
        ("trainer.max_steps", 0, "at least 1, or -1 with trainer.max_epochs"),
        ("trainer.max_steps", -1, "at least 1, or -1 with trainer.max_epochs"),
        ("trainer.max_epochs", 0, "at least 1, or -1 for no limit"),
        ("trainer.precision", 8, "one of 32, "),
        ("loader.num_workers", -2, "-1 or more"),
        ("loader.prefetch_factor", 0, "at least 1, or null"),
        ("seed", -1, "0 to 2^63 - 1"),
        ("optimizer.lr", 0.0, "more than 0"),
        ("method.optim.betas", [0.9], "two numbers"),
        ("method.optim.betas", [0.9, 1.5], ""),
        ("optimizer.weight_decay", -1.0, ""),
        ("method.optim.final_weight_decay", -1.0, ""),
        ("method.model.drop_path", 1.5, ""),
        ("method.optim.warmup_steps", -1, "0 or more"),
        ("method.optim.warmup_start", 1.5, "a share, from 0 to 1"),
        ("method.optim.max_warmup_share", -0.1, "a share, from 0 to 1"),
        ("method.optim.final_lr", 2.0, "a share, from 0 to 1"),
        ("method.optim.clip_grad", -1.0, "0 (off) or more"),
        ("method.clip.fps", 0.0, "more than 0, or null"),
        ("method.encoders_every_n_steps", 0, "at least 1, or null"),
        ("method.probe", "everything", "no data set to probe on"),
    ],
)
def test_value_that_cannot_work(salt: DictConfig, key: str, value: object, expected: str) -> None:
    message = _error(salt, **{key: value})
    assert message.startswith(f"{key}={value}: expected ")
    assert expected in message


def test_values_at_the_edge_that_work(salt: DictConfig) -> None:
    load_config(_changed(salt, **{"trainer.max_steps": -1, "trainer.max_epochs": 1}))
    load_config(_changed(salt, **{"method.optim.clip_grad": 0.0, "method.clip.fps": 4.0}))
    load_config(_changed(salt, **{"trainer.precision": 16, "seed": 0}))
    load_config(_changed(salt, **{"method.teacher.path": "run", "method.teacher.max_steps": 0}))


@pytest.mark.parametrize("key", ["method.encoder", "method.teacher.encoder"])
def test_unknown_size(salt: DictConfig, key: str) -> None:
    message = _error(salt, **{key: "vit_l"})
    assert message.startswith(f"{key}=vit_l: no such size; one of ")
    assert "vit_large" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loader.batch_size", "many", "a whole number, at least 1"),
        ("loader.batch_size", True, "a whole number, at least 1"),
        ("method.clip.size", 32.5, "a whole number, at least 1"),
        ("method.global_batch_size", "all", "a whole number, at least 1, or null"),
        ("method.clip", None, "keys and values"),
        ("method.clip", "16x224", "keys and values"),
        ("method.data.cache", "perhaps", "true or false"),
        ("method.data.weights", "even", "a list, or null"),
        ("optimizer.lr", "fast", "a number, more than 0"),
        ("optimizer.lr", float("inf"), "a number, more than 0"),
        ("trainer", 3, "keys and values"),
    ],
)
def test_value_of_a_wrong_type(salt: DictConfig, key: str, value: object, expected: str) -> None:
    assert _error(salt, **{key: value}) == f"{key}={value}: expected {expected}"


def test_values_in_other_types_that_mean_the_same(salt: DictConfig) -> None:
    """As Hydra's grammar, quotes and `${oc.env:NAME}` give them."""
    changes = {"loader.batch_size": "24", "optimizer.lr": 1, "method.clip.fps": "7.5"}
    changes |= {"method.optim.betas": [0, "0.5"], "method.data.cache": "yes"}
    config = load_config(_changed(salt, **changes, **{"method.teacher.path": 2024}))
    assert (config.loader.batch_size, config.optimizer.lr) == (24, 1.0)
    assert config.method.clip.fps == 7.5
    assert (config.method.optim.betas, config.method.data.cache) == ([0.0, 0.5], True)
    assert config.method.teacher.path == "2024"


def test_unknown_method(salt: DictConfig) -> None:
    message = _error(salt, **{"method.name": "slat"})
    assert message == "method.name='slat' is no method; did you mean 'salt'?"


def test_no_method_at_all() -> None:
    with pytest.raises(ConfigError, match=r"method\.name=None is no method; known here: finetune"):
        load_config(compose([]))


def test_interpolation_that_leads_nowhere(salt: DictConfig) -> None:
    message = _error(salt, **{"method.clip.size": "${method.clip.sise}"})
    assert message.startswith("method.clip.size: ")
    assert "sise" in message


@pytest.mark.parametrize("key", ["trainer.max_steps", "loader.batch_size", "method.clip.size"])
def test_missing_key(salt: DictConfig, key: str) -> None:
    changed = _changed(salt)
    node, _, leaf = key.rpartition(".")
    del OmegaConf.select(changed, node)[leaf]
    with pytest.raises(ConfigError, match=rf"^{key}: missing; "):
        load_config(changed)


@pytest.mark.parametrize("key", ["method.teacher.path", "method.masks.aspect_ratio"])
def test_key_that_a_file_leaves_open(salt: DictConfig, key: str) -> None:
    assert _error(salt, **{key: "???"}) == f"{key}: missing; give it a value"


def test_host_key_without_meaning_for_us_is_warned_of(salt: DictConfig) -> None:
    with pytest.warns(UserWarning, match=r"^criterion: changed, but our methods do not use"):
        load_config(_changed(salt, **{"criterion.temperature": 0.1}))


@pytest.mark.filterwarnings("error")
def test_defaults_warn_of_nothing(salt: DictConfig, pixel_teacher: DictConfig) -> None:
    load_config(salt)
    load_config(pixel_teacher)
