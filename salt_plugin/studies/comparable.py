"""What has to be alike in all runs of a comparison, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra.errors import HydraException

from salt_plugin.config import RunConfig, compose, load_config, require_input, values
from salt_plugin.config.application import absolute
from salt_plugin.config.command_line import composition_error
from salt_plugin.config.compare import CompareConfig
from salt_plugin.config.keys import marked
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import flat
from salt_plugin.studies.comparison import Cell, train_overrides
from salt_plugin.training.plan import global_batch_size

COMPARED = marked(values.COMPARED)


def compose_cells(cells: Sequence[Cell], config: CompareConfig) -> dict[Cell, RunConfig]:
    """Returns the configuration of each run.

    Raises:
        ConfigError: That of a run cannot work; names the run.
    """
    composed = {}
    for cell in cells:
        try:
            composed[cell] = load_config(compose(train_overrides(cell, config)))
            require_input(composed[cell])
        except HydraException as error:
            reason = composition_error(error)
            raise ConfigError(f"{cell.name}: {reason}; see compare.overrides") from None
        except ConfigError as error:
            raise ConfigError(f"{cell.name}: {error}") from None
    return composed


def common_settings(configs: Mapping[Cell, RunConfig]) -> dict[str, Any]:
    """Checks that runs compare.

    Returns:
        What they have in common, by dotted key; paths are absolute.

    Raises:
        ConfigError: They differ in clip, tokens, data or batch size; names keys, values and runs.
    """
    settings = {cell: _compared(config) for cell, config in configs.items()}
    first = next(iter(settings.values()))
    differing = []
    for key in sorted({key for one in settings.values() for key in one}):
        runs: dict[str, list[str]] = {}
        for cell, one in settings.items():
            runs.setdefault(repr(one.get(key)), []).append(cell.name)
        if len(runs) > 1:
            found = ", ".join(f"{value} in {names[0]}" for value, names in runs.items())
            differing.append(f"{key}: {found}")
    if differing:
        raise ConfigError(
            f"runs of different resolution or data do not compare: {'; '.join(differing)}. Set "
            "these keys in compare.overrides, which hold for all"
        )
    return first


def _compared(config: RunConfig) -> dict[str, Any]:
    leaves = flat(asdict(config))
    found = {
        key: value
        for key, value in leaves.items()
        if f"{key}.".startswith(tuple(f"{part}." for part in COMPARED))
    }
    # How the clips of a step are split over devices and micro-batches changes nothing.
    found["method.global_batch_size"] = global_batch_size(config, max(1, config.trainer.gpus))
    inputs = config.input_dir
    listed = [inputs] if isinstance(inputs, str) else list(inputs)
    found["input_dir"] = [absolute(path) for path in listed]
    return found
