"""Which keys may differ when a run is resumed, and which have to be alike in a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_plugin.config import RunConfig, load_config
from salt_plugin.config.planning import compose_alone
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies.comparison import common_settings

OPERATIONAL = {
    "loader.batch_size": 4,
    "loader.num_workers": 3,
    "loader.prefetch_factor": 5,
    "method.checkpoint.every_minutes": 7.0,
    "method.checkpoint.every_n_steps": 7,
    "method.checkpoint.keep_every": 7,
    "method.data.cache": True,
    "method.data.max_bad": 0.5,
    "method.data.stall": 7.0,
    "method.data.timeout": 7.0,
    "method.encoders_every_n_steps": 7,
    "method.max_nonfinite_steps": 7,
    "method.monitor": "{train: a.csv, test: b.csv, every: 7, videos: 8}",
    "method.model.activation_checkpointing": True,
    "method.model.compile": False,
    "trainer.enable_model_summary": True,
    "trainer.gpus": 0,
    "trainer.logger": "[csv,tensorboard]",
}
COMPARED = {
    "input_dir": "others",
    "method.clip.fps": 4.0,
    "method.clip.frames": 8,
    "method.clip.size": 112,
    "method.clip.step": 2,
    "method.data.demo.train": 8,
    "method.data.weights": "[1.0]",
    "method.global_batch_size": 48,
    "method.mask_group": 8,
    "method.model.patch_size": 8,
    "method.model.tubelet_size": 4,
}
OTHERS = {"method.data.reader": "auto", "optimizer.lr": 1e-3, "trainer.precision": "32"}


def _config(**changes: object) -> RunConfig:
    values = {"input_dir": "videos", **changes}
    return load_config(compose_alone([f"{key}={value}" for key, value in values.items()]))


def test_a_run_is_resumed_with_other_values_of_operational_keys_alone(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.claim(_config())
    folder.check(_config(**OPERATIONAL))
    for key, value in (COMPARED | OTHERS).items() - OPERATIONAL.items():
        with pytest.raises(ConfigError, match=rf"another configuration: {key} was"):
            folder.check(_config(**{key: value}))


def test_runs_of_a_comparison_are_alike_in_what_is_compared_alone() -> None:
    def check(**changes: object) -> None:
        common_settings({"first": _config(), "second": _config(**changes)})

    free = OPERATIONAL | OTHERS | {"loader.batch_size": 24}
    check(**{key: value for key, value in free.items() if key not in COMPARED})
    for key, value in COMPARED.items():
        with pytest.raises(ConfigError, match=rf"do not compare: {key}: "):
            check(**{key: value})
    check(**{"method.global_batch_size": 24, "loader.batch_size": 4})  # in six micro-batches
    with pytest.raises(ConfigError, match=r"do not compare: method\.global_batch_size: 24 in .* 4"):
        check(**{"loader.batch_size": 4})
