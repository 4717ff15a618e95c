"""A comparison as a study: the runs that its configuration gives, and what comes after them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.config import RunConfig, registry, values
from salt_plugin.config.application import absolute
from salt_plugin.config.compare import CompareConfig, budget_name, evaluations
from salt_plugin.config.keys import marked
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import OPERATIONAL, flat
from salt_plugin.studies.elements import Element, run_dir_override
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig, StageConfig
from salt_plugin.training.plan import global_batch_size

RANDOM = "random"

# Its stages, and the folder of its runs.
CELLS, PROBES, BASELINES = "cells", "probes", "baselines"
PRODUCT = "probe.json"
COMPARED, ALIKE = marked(values.COMPARED), marked(values.ALIKE)
# What differs between runs by the comparison itself.
VARIED = ("method.name", "method.encoder", "method.default_steps", "seed", "compute", "trainer")


class Cell(NamedTuple):
    """One run.

    Attributes:
        method: Its method; `random` for an encoder that was not trained.
        encoder: Its size.
        budget: Its FLOPs; None where its steps end it, 0 for `random`.
        seed: Of the run.
        teacher_share: Share of the budget that the teacher of SALT gets; None for other methods and
            without a budget.
    """

    method: str
    encoder: str
    budget: float | None
    seed: int
    teacher_share: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        budget = "" if self.method == RANDOM else f"-{budget_name(self.budget)}"
        share = "" if self.teacher_share is None else f"-t{self.teacher_share:g}"
        return f"{self.method}-{self.encoder}{budget}-s{self.seed}{share}"


def all_cells(config: CompareConfig) -> list[Cell]:
    """Returns the runs in the order of training: one seed of everything, then the next."""
    varied = product(config.seeds, config.budgets, config.encoders, config.methods)
    return [
        Cell(method, encoder, budget, seed, share)
        for seed, budget, encoder, method in varied
        for share in (
            config.teacher_shares if registry.get(method).teacher and budget is not None else [None]
        )
    ]


def baselines(config: CompareConfig) -> list[Cell]:
    """Returns the encoders before training; none where they are not asked for."""
    encoders = config.encoders if config.baseline else []
    return [Cell(RANDOM, encoder, 0.0, seed) for encoder in encoders for seed in config.seeds]


def train_overrides(cell: Cell, config: CompareConfig) -> list[str]:
    """Returns a run as overrides, but for its folder. A comparison evaluates its runs itself."""
    overrides = [f"method={cell.method}", f"method.encoder={cell.encoder}", f"seed={cell.seed}"]
    overrides += [*config.overrides, *config.method_overrides.get(cell.method, [])]
    if cell.budget is not None:
        overrides.append(f"compute.budget={cell.budget!r}")
    if cell.teacher_share is not None:
        overrides.append(f"compute.teacher_share={cell.teacher_share!r}")
    return [*overrides, "method.probe=null"]


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
        train = [TRAIN, *train_overrides(cell, config), run_dir_override(runs / cell.name)]
        run = Element(CELLS, cell.name, {}, None, "salt_plugin.cli", train)
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


def differences(
    configs: Mapping[str, RunConfig], config: CompareConfig
) -> dict[str, dict[str, str]]:
    """Returns in which keys methods differ: by their own defaults, or as `may_differ` allows.

    Args:
        configs: Of the runs, by their names.
        config: The comparison.

    Returns:
        The value of each method, by dotted key; only keys that several methods have.

    Raises:
        ConfigError: `method_overrides` set apart what has to be alike.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for one in configs.values():
        for key, value in flat(asdict(one)).items():
            if key not in OPERATIONAL and (not _within(key, VARIED) or _within(key, ALIKE)):
                methods = found.setdefault(key, {})
                methods.setdefault(one.method.name, set()).add(str(value))
    names = {one.method.name for one in configs.values()}
    given = {
        (method, override.lstrip("+~").partition("=")[0].replace("/", "."))
        for method, overrides in config.method_overrides.items()
        for override in overrides
    }
    differing, refused = {}, []
    for key, methods in sorted(found.items()):
        values_of = {name: ", ".join(sorted(methods.get(name, {"absent"}))) for name in names}
        if len(set(values_of.values())) == 1:
            continue
        if len(methods) > 1:
            differing[key] = {name: values_of[name] for name in config.methods if name in methods}
        set_apart = sorted(method for method, of in given if _within(key, [of]))
        if set_apart and _within(key, ALIKE) and not _within(key, config.may_differ):
            told = ", ".join(f"{values_of[name]} in {name}" for name in sorted(names))
            refused.append(f"{key}: {told} (method_overrides of {', '.join(set_apart)})")
    if refused:
        raise ConfigError(
            "methods that differ in more than themselves do not compare: "
            f"{'; '.join(refused)}. Set these keys in compare.overrides, which hold for all, or "
            "name those in which methods are meant to differ in compare.may_differ"
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
