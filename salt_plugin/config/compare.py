"""The configuration of a comparison: a named one or a file of yours, and changes to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import conf_folder
from salt_plugin.config.arms import (
    Arm,
    ArmConfig,
    Budgets,
    Trials,
    all_arms,
    check_overrides,
    distinct,
)
from salt_plugin.config.evaluation import ProbeConfig, probe_config, with_absolute_paths
from salt_plugin.config.suggest import BASE, require_known, shipped_file
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT, NotNegative, Part, Seed32, holds
from salt_plugin.config.yaml_file import read_changes, read_yaml
from salt_plugin.errors import ConfigError

Names = Annotated[list[str], Field(min_length=1, title="at least one, each once"), holds(distinct)]
Seeds = Annotated[
    list[Seed32],
    Field(min_length=1, title="at least one, each once, 0 to 2^32 - 1"),
    holds(distinct),
]
Shares = Annotated[
    list[Part],
    Field(min_length=1, title="at least one, each once, more than 0 and less than 1"),
    holds(distinct),
]
Evaluations = Annotated[
    list[dict[str, Any]],
    Field(min_length=1, title="at least one evaluation, e.g. [{data: demo}]"),
]
Columns = Annotated[list[str], Field(title="a list of evaluations, or EVALUATION.PROTOCOL")]


@dataclass(config=STRICT)
class CompareConfig:
    """The keys of a comparison; `conf/compare/base.yaml` holds the defaults.

    Attributes:
        methods: Of `salt`, `vjepa`, `vjepa2`, `videomae`, `levjepa`, `pixel_teacher`.
        encoders: Sizes, e.g. `[vit_nano]`; of SALT the student's. Its teacher has the same unless
            `method_overrides` says otherwise.
        budgets: FLOPs of a run, e.g. `[1e13, 3e13]`. `null`: a run ends by its steps, and what it
            spent is reported, not matched.
        seeds: Of the runs.
        teacher_shares: Of SALT: shares of the budget for its teacher; a run for each.
        arms: Further arms beside the methods: `NAME: {method, overrides, budgets}`, a method with
            overrides of its own, at some of the budgets (null: at all). `{ARM}` in an override
            stands for the folder of the run of a method, or of an arm before this one, of the same
            encoder, budget and seed.
        trials: For tuning, by method or arm: a list of trials, each a list of overrides; a run for
            each. As many of every method and arm. `{}`: none.
        overrides: Of all runs, as on the command line of `salt train`, e.g. `[input_dir=VIDEOS]` or
            `[preset=demo]`: one of both is required. Relative paths count from where the command is
            given.
        method_overrides: Further ones of a method, e.g. `{salt:
            [method.teacher.encoder=vit_large]}`.
        may_differ: Keys or nodes that `method_overrides`, arms and trials may set apart, although
            they have to be alike, e.g. `[method.masks]`.
        probe: Evaluations: `data`, a set or a `.yaml` file, and other keys of it
            (docs/evaluation.md), e.g. `[{data: ssv2, train: a.csv, test: b.csv, protocols:
            [attentive]}]`; `name` where two have the same data.
        choose: An evaluation, on validation videos, or its protocol, e.g. `val.linear`, or a list
            of these: of methods with two encoders, what was trained and its EMA, the one with the
            higher mean at a budget, or of a trial, is drawn and starred; null: the one that their
            papers evaluate. Both have their rows. It also chooses among trials.
        endpoint: Likewise: the mean of these accuracies is the `endpoint` of a run, e.g.
            `[motion.linear, digit.linear]`. It chooses among trials where `choose` is null.
        reference: The method or arm that all others are compared with, seed by seed, by the
            endpoint; null: the first.
        margin: Largest difference of endpoints that does not matter.
        baseline: Also evaluate the encoder before training, at 0 FLOPs.
    """

    methods: Names
    encoders: Names
    budgets: Budgets
    seeds: Seeds
    teacher_shares: Shares
    arms: dict[str, ArmConfig]
    trials: Trials
    overrides: list[str]
    method_overrides: dict[str, list[str]]
    may_differ: list[str]
    probe: Evaluations
    choose: str | Columns | None
    endpoint: Columns
    reference: str | None
    margin: NotNegative
    baseline: bool


def compare_config(name: str, changes: Sequence[str] = ()) -> CompareConfig:
    """Returns the configuration of a comparison.

    Args:
        name: One of `conf/compare/`, or a YAML file of keys that differ from `base.yaml`'s. Files
            of the evaluations that it names count from the file.
        changes: Further keys, e.g. ``["seeds=[1,2]", "budgets=[1e14]"]``; here such files count
            from the working directory.

    Raises:
        ConfigError: There is no such comparison, or a key or value cannot work.
    """
    folder = conf_folder() / "compare"
    file = shipped_file(name, folder, "comparison")
    values = read_yaml(folder / f"{BASE}.yaml") | read_yaml(file)
    values |= read_changes(changes, "seeds=[1,2]")
    config: CompareConfig = typed(CompareConfig, values, "compare.")
    probe_is_changed = any(change.startswith("probe=") for change in changes)
    base = Path.cwd() if probe_is_changed else file.absolute().parent
    config.probe = [_with_absolute_paths(entry, base) for entry in config.probe]
    check_overrides("overrides", config.overrides)
    arms = arms_of(config)
    if config.reference is not None:
        names = {arm.name for arm in arms}
        require_known(config.reference, names, "compare.reference: neither a method nor an arm")
    known = [
        name
        for evaluation, one in evaluations(config).items()
        for name in (evaluation, *(f"{evaluation}.{protocol}" for protocol in one.protocols))
    ]
    for key in ("choose", "endpoint"):
        for name in listed(getattr(config, key)):
            require_known(name, known, f"compare.{key}: {name!r}: not one of the evaluations")
    if config.trials and not (config.choose or config.endpoint):
        raise ConfigError("compare.trials: needs compare.choose, or compare.endpoint, to choose by")
    return config


def arms_of(config: CompareConfig) -> list[Arm]:
    """Returns the arms of a comparison; raises as `arms.all_arms` does."""
    return all_arms(
        config.methods, config.arms, config.method_overrides, config.trials, config.budgets
    )


def listed(names: str | list[str] | None) -> list[str]:
    """Returns what `choose` or `endpoint` name as a list."""
    return [names] if isinstance(names, str) else names or []


def evaluations(config: CompareConfig) -> dict[str, ProbeConfig]:
    """Returns the evaluations of a comparison by name: its `name`, or that of its data.

    Raises:
        ConfigError: A key or value cannot work, or two have one name.
    """
    found: dict[str, ProbeConfig] = {}
    for number, entry in enumerate(config.probe):
        changes = dict(entry)
        data = str(changes.pop("data", "folder"))
        name = str(changes.pop("name", Path(data).stem))
        try:
            one = probe_config(data, **changes)
        except ConfigError as error:
            raise ConfigError(f"compare.probe[{number}]: {error}") from None
        if name in found:
            raise ConfigError(
                f"compare.probe[{number}]: a second evaluation is called {name!r}; give it another "
                "`name`"
            )
        found[name] = one
    return found


def _with_absolute_paths(entry: dict[str, Any], base: Path) -> dict[str, Any]:
    entry = with_absolute_paths(dict(entry), base / "any")
    data = entry.get("data")
    if isinstance(data, str) and data.endswith((".yaml", ".yml")):
        entry["data"] = str(base / Path(data).expanduser())
    return entry
