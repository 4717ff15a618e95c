"""A comparison as a study: the runs that its configuration gives, and what comes after them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from salt_plugin.config import RunConfig, values
from salt_plugin.config.application import absolute
from salt_plugin.config.arms import key_of
from salt_plugin.config.compare import CompareConfig, arms_of, evaluations
from salt_plugin.config.keys import marked
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import OPERATIONAL, flat
from salt_plugin.studies.cells import Cell, all_cells, base_of, baselines, placed, train_overrides
from salt_plugin.studies.elements import Element, run_dir_override
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig, StageConfig
from salt_plugin.training.plan import global_batch_size

# Its stages, and the folder of its runs.
CELLS, PROBES, BASELINES = "cells", "probes", "baselines"
PRODUCT = "probe.json"
COMPARED, ALIKE = marked(values.COMPARED), marked(values.ALIKE)
# What differs between runs by the comparison itself.
VARIED = ("method.name", "method.encoder", "method.default_steps", "seed", "compute", "trainer")
# What decides a comparison, whose runs are the same.
RULES = ("choose", "endpoint", "reference", "margin")
# A path into the folder of a run.
_RUN_FOLDER = re.compile(rf"^.*/{CELLS}/([^/]+)")


def study_of(config: CompareConfig, name: str, root: Path) -> tuple[PipelineConfig, list[Element]]:
    """Returns a comparison as a study: its runs, their evaluations, the baselines', a report.

    Args:
        config: The comparison.
        name: Of the study.
        root: Its folder.
    """
    stages = {
        CELLS: StageConfig("train"),
        PROBES: StageConfig("probe", needs=CELLS),
        BASELINES: StageConfig("probe", after=[CELLS]),
        REPORT: StageConfig("report", after=[CELLS, PROBES, BASELINES]),
    }
    runs = root / CELLS
    settings = [
        f"{evaluation}.{key}={json.dumps(value)}"
        for evaluation, one in evaluations(config).items()
        for key, value in asdict(one).items()
    ]

    def evaluation(stage: str, cell: Cell, parent: str | None, *encoder: str) -> Element:
        found = f"product={runs / cell.name / PRODUCT}"
        arguments = [found, f"seed={cell.seed}", *encoder, *settings]
        values = {CELLS: cell._asdict()}
        return Element(stage, cell.name, values, parent, "salt_plugin.studies.evaluate", arguments)

    trained, probed = [], []
    for cell in all_cells(config):
        overrides, base = train_overrides(cell, config), base_of(cell, config)
        if base is not None:
            overrides = [placed(one, runs / base.name) for one in overrides]
        train = [TRAIN, *overrides, run_dir_override(runs / cell.name)]
        parent = None if base is None else f"{CELLS}/{base.name}"
        run = Element(CELLS, cell.name, {}, parent, "salt_plugin.cli", train)
        trained.append(run)
        probed.append(evaluation(PROBES, cell, run.id, f"encoder={runs / cell.name}"))
    random = [
        evaluation(BASELINES, cell, None, f"random_of={runs}", f"size={cell.encoder}")
        for cell in baselines(config)
    ]
    last = Element(REPORT, "all", {}, None, "salt_plugin.studies.report", [str(root)])
    return PipelineConfig(name=name, stages=stages), [*trained, *probed, *random, last]


def common_settings(configs: Mapping[str, RunConfig]) -> dict[str, Any]:
    """Checks that runs compare.

    Args:
        configs: Of the runs, by their names.

    Returns:
        What they have in common, by dotted key; paths are absolute.

    Raises:
        ConfigError: They differ in clip, tokens, data or batch size; names keys, values and runs.
    """
    settings = {name: _compared(config) for name, config in configs.items()}
    first = next(iter(settings.values()))
    differing = []
    for key in sorted({key for one in settings.values() for key in one}):
        runs: dict[str, str] = {}
        for name, one in settings.items():
            runs.setdefault(repr(one.get(key)), name)
        if len(runs) > 1:
            found = ", ".join(f"{value} in {name}" for value, name in runs.items())
            differing.append(f"{key}: {found}")
    if differing:
        raise ConfigError(
            f"runs of different resolution or data do not compare: {'; '.join(differing)}. Set "
            "these keys in compare.overrides, which hold for all"
        )
    return first


def require_same_rules(stored: Mapping[str, Any], config: CompareConfig) -> None:
    """Checks that what decides a comparison is what its folder has been begun with.

    Args:
        stored: What its `compare.yaml` holds.
        config: The comparison.

    Raises:
        ConfigError: It is not.
    """
    now = asdict(config)
    changed = [
        f"{key} was {stored[key]!r} and is now {now[key]!r}"
        for key in RULES
        if key in stored and stored[key] != now[key]
    ]
    if changed:
        raise ConfigError(
            f"what decides a comparison stays as it was begun: {'; '.join(changed)}. Give the same "
            "values, or another --out"
        )


def differences(
    configs: Mapping[str, RunConfig], config: CompareConfig
) -> dict[str, dict[str, str]]:
    """Returns in which keys arms differ: by their methods' defaults, or as `may_differ` allows.

    Args:
        configs: Of the runs, by their names.
        config: The comparison.

    Returns:
        The value of each arm that has the key, by dotted key; only where these differ, or an
        override has set it. The folder of a run is shown as its arm in braces.

    Raises:
        ConfigError: Overrides of methods, arms or trials set apart what has to be alike.
    """
    arms = arms_of(config)
    arm_of = {cell.name: cell.arm for cell in all_cells(config)}
    found: dict[str, dict[str, set[str]]] = {}
    for run, one in configs.items():
        for key, value in flat(asdict(one)).items():
            if key not in OPERATIONAL and (not _within(key, VARIED) or _within(key, ALIKE)):
                shown = _RUN_FOLDER.sub(lambda of: f"{{{arm_of.get(of[1], of[1])}}}", str(value))
                found.setdefault(key, {}).setdefault(arm_of[run], set()).add(shown or "''")
    names = list(dict.fromkeys(arm.name for arm in arms))
    given = {(arm.name, key_of(override)) for arm in arms for override in arm.overrides}
    differing, refused = {}, []
    for key, of_arms in sorted(found.items()):
        values_of = {name: ", ".join(sorted(of_arms.get(name, {"absent"}))) for name in names}
        if len(set(values_of.values())) == 1:
            continue
        own = {name: values_of[name] for name in names if name in of_arms}
        set_apart = sorted({name for name, of in given if _within(key, [of])})
        if set_apart or len(set(own.values())) > 1:
            differing[key] = own
        alike = _within(key, ALIKE) and not _within(key, config.may_differ)
        if set_apart and alike and len(set(own.values())) > 1:
            told = ", ".join(f"{values_of[name]} in {name}" for name in names)
            refused.append(f"{key}: {told} (overrides of {', '.join(set_apart)})")
    if refused:
        raise ConfigError(
            "methods that differ in more than themselves do not compare: "
            f"{'; '.join(refused)}. Set these keys in compare.overrides, which hold for all, or "
            "name those in which they are meant to differ in compare.may_differ"
        )
    return differing


def _within(key: str, nodes: Iterable[str]) -> bool:
    return f"{key}.".startswith(tuple(f"{node}." for node in nodes))


def _compared(config: RunConfig) -> dict[str, Any]:
    found = {key: value for key, value in flat(asdict(config)).items() if _within(key, COMPARED)}
    # How the clips of a step are split over devices and micro-batches changes nothing.
    found["method.global_batch_size"] = global_batch_size(config, max(1, config.trainer.gpus))
    inputs = config.input_dir
    listed = [inputs] if isinstance(inputs, str) else list(inputs)
    return found | {"input_dir": [absolute(path) for path in listed]}
