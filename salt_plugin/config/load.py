"""From what Hydra composed to a checked `RunConfig`."""

from __future__ import annotations

import warnings
from dataclasses import fields
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from salt_plugin.config import registry
from salt_plugin.config.application import absolute
from salt_plugin.config.evaluation import probe_config
from salt_plugin.config.schema import RunConfig
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import first_line
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape


def compose(overrides: list[str]) -> DictConfig:
    """Composes the host's config with one of our methods, as its command would.

    Args:
        overrides: Hydra overrides, e.g. ``["method=salt", "method.encoder=vit_tiny"]``.
    """
    with initialize_config_module("lightly.cli.config", version_base=None):
        return hydra_compose("config", overrides)


def load_config(cfg: DictConfig, foreign: bool | None = None) -> RunConfig:
    """Checks a composed config: every key known, every value of its type and in range.

    Args:
        cfg: A config with a `method` node, as Hydra composes it.
        foreign: Whether it may have top-level keys of its own, which are not looked at. None: yes
            where it lacks some of Lightly's keys, as in a Hydra application of the user's own.

    Raises:
        ConfigError: Names the key, what was found, and what was probably meant.
    """
    try:
        raw: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {first_line(error)}") from None
    spec = registry.get((raw.get("method") or {}).get("name"))
    ours = {field.name for field in fields(RunConfig)}
    host_keys = _host_defaults().keys()
    if foreign is None:
        foreign = not host_keys <= raw.keys()
    if not foreign:
        known = ours | host_keys
        for key in raw.keys() - known:
            raise ConfigError(f"{key}: unknown key; {suggestion(key, known)}")
        _warn_of_unused(raw, ours)
    config: RunConfig = typed(RunConfig, {key: raw[key] for key in ours if key in raw}, "")
    config.method = typed(spec.config, raw["method"], "method.")
    _check(config)
    return config


def _check(config: RunConfig) -> None:
    """Checks what depends on several keys, and names of sizes and of sets to probe on."""
    trainer, loader, method = config.trainer, config.loader, config.method
    if trainer.max_steps == trainer.max_epochs == -1:
        raise ConfigError(
            "trainer.max_steps=-1: expected at least 1, or -1 with trainer.max_epochs"
        )
    if loader.num_workers == 0 and loader.prefetch_factor is not None:
        raise ConfigError(
            f"loader.prefetch_factor={loader.prefetch_factor}: expected null with "
            "loader.num_workers=0, where nothing is loaded ahead"
        )
    budget = config.compute.budget
    epochs = getattr(method, "default_epochs", -1)
    for key, left_out in (("max_steps", method.default_steps), ("max_epochs", epochs)):
        if budget is not None and (found := getattr(trainer, key)) != left_out:
            raise ConfigError(
                f"trainer.{key}={found}: expected nothing beside compute.budget={budget}, which "
                "ends training"
            )
    if method.continue_from:
        before = f"method.continue_from={method.continue_from}: expected null"
        if registry.get(method.name).classifies:
            raise ConfigError(
                f"{before} with method.name={method.name}, which starts from checkpoint"
            )
        if config.checkpoint:
            raise ConfigError(
                f"{before} beside checkpoint={config.checkpoint}: both name the weights to start "
                "from; leave one of them out"
            )
    if method.encoder is not None:  # that of a file
        EncoderShape.named(method.encoder, "method.encoder")
    if hasattr(method, "teacher"):
        EncoderShape.named(method.teacher.encoder, "method.teacher.encoder")
        steps = method.teacher.max_steps
        if steps < 1 and method.teacher.path is None:
            raise ConfigError(f"method.teacher.max_steps={steps}: expected at least 1")
    if getattr(method, "warm_start", False) and method.pool == "attentive":
        raise ConfigError(
            "method.warm_start=true: a linear probe is no start for method.pool=attentive; "
            "expected another method.pool, or method.warm_start=false"
        )
    monitor = method.monitor
    if (monitor.train is None) != (monitor.test is None):
        lacking = "train" if monitor.train is None else "test"
        raise ConfigError(
            f"method.monitor.{lacking}: missing; expected method.monitor.train and "
            "method.monitor.test, or neither"
        )
    data = method.probe
    if data is not None:
        try:
            probe_config(absolute(data) if data.endswith((".yaml", ".yml")) else data)
        except ConfigError as error:
            raise ConfigError(f"method.probe={data}: expected a set: {error}") from None


def require_input(config: RunConfig) -> None:
    """Checks that there is something to train on, which plans can do without.

    Raises:
        ConfigError: `input_dir` is empty.
    """
    if not config.input_dir:
        raise ConfigError(
            "input_dir is empty: expected videos to train on; give input_dir=VIDEOS (a folder, a "
            "list or a video), or preset=demo for the embedded demo"
        )


def _warn_of_unused(raw: dict[str, Any], ours: set[str]) -> None:
    for key, default in _host_defaults().items():
        if key not in ours and key in raw and raw[key] != default:
            warnings.warn(
                f"{key}: changed, but our methods do not use this key of the host", stacklevel=3
            )


@lru_cache(maxsize=1)
def _host_defaults() -> dict[str, Any]:
    # Found without importing the host, which imports torch.
    spec = find_spec("lightly")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "cli" / "config" / "config.yaml").read_text()
    defaults: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(text)))  # type: ignore[assignment]
    del defaults["hydra"]
    return defaults
