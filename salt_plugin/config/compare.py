"""The configuration of a comparison: a named one or a file of yours, and changes to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import conf_folder
from salt_plugin.config.evaluation import ProbeConfig, probe_config, with_absolute_paths
from salt_plugin.config.suggest import BASE, require_known, shipped_file
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT, Part, Positive, Seed32, holds
from salt_plugin.config.yaml_file import read_changes, read_yaml
from salt_plugin.errors import ConfigError

# What a comparison varies or sets itself; the overrides of all runs cannot.
RESERVED = (
    "method",
    "method.encoder",
    "seed",
    "compute.budget",
    "compute.teacher_share",
    "method.probe",
    "hydra.run.dir",
)


def _distinct(values: Sequence[Any]) -> bool:
    return len(set(values)) == len(values)


Names = Annotated[list[str], Field(min_length=1, title="at least one, each once"), holds(_distinct)]
Budgets = Annotated[
    list[Positive | None],
    Field(
        min_length=1,
        title="FLOPs, each more than 0 (or null: as many steps as the overrides say), each once",
    ),
    holds(lambda values: _distinct([budget_name(value) for value in values])),
]
Seeds = Annotated[
    list[Seed32],
    Field(min_length=1, title="at least one, each once, 0 to 2^32 - 1"),
    holds(_distinct),
]
Shares = Annotated[
    list[Part],
    Field(min_length=1, title="at least one, each once, more than 0 and less than 1"),
    holds(_distinct),
]
Evaluations = Annotated[
    list[dict[str, Any]],
    Field(min_length=1, title="at least one evaluation, e.g. [{data: demo}]"),
]


@dataclass(config=STRICT)
class CompareConfig:
    """The keys of a comparison; `conf/compare/base.yaml` holds the defaults.

    Attributes:
        methods: Of `salt`, `vjepa`, `vjepa2`, `videomae`, `pixel_teacher`.
        encoders: Sizes, e.g. `[vit_nano]`; of SALT the student's. Its teacher has the same unless
            `method_overrides` says otherwise.
        budgets: FLOPs of a run, e.g. `[1e13, 3e13]`. `null`: a run ends by its steps, and what it
            spent is reported, not matched.
        seeds: Of the runs.
        teacher_shares: Of SALT: shares of the budget for its teacher; a run for each.
        overrides: Of all runs, as on the command line of `salt train`, e.g. `[input_dir=VIDEOS]` or
            `[preset=demo]`: one of both is required. Relative paths count from where the command is
            given.
        method_overrides: Further ones of a method, e.g. `{salt:
            [method.teacher.encoder=vit_large]}`.
        may_differ: Keys or nodes that `method_overrides` may set apart between methods, although
            they have to be alike, e.g. `[method.masks]`.
        probe: Evaluations: `data`, a set or a `.yaml` file, and other keys of it
            (docs/evaluation.md), e.g. `[{data: ssv2, train: a.csv, test: b.csv, protocols:
            [attentive]}]`; `name` where two have the same data.
        choose: Name of an evaluation, on validation videos: of methods with two encoders, what was
            trained and its EMA, the one with the higher mean over all runs is drawn and starred;
            null: the one that their papers evaluate. Both have their rows.
        baseline: Also evaluate the encoder before training, at 0 FLOPs.
    """

    methods: Names
    encoders: Names
    budgets: Budgets
    seeds: Seeds
    teacher_shares: Shares
    overrides: list[str]
    method_overrides: dict[str, list[str]]
    may_differ: list[str]
    probe: Evaluations
    choose: str | None
    baseline: bool


def budget_name(budget: float | None) -> str:
    """Returns e.g. `2e15`; `steps` where a run ends by its steps instead."""
    return "steps" if budget is None else f"{budget:.6g}".replace("e+", "e")


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
    _check_overrides(config)
    found = evaluations(config)
    if config.choose is not None:
        require_known(config.choose, found, "compare.choose: not one of the evaluations")
    return config


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


def _check_overrides(config: CompareConfig) -> None:
    given = {"overrides": config.overrides}
    for method, overrides in config.method_overrides.items():
        key = f"method_overrides.{method}"
        require_known(method, config.methods, f"compare.{key}: not one of the methods")
        given[key] = overrides
    for key, overrides in given.items():
        for override in overrides:
            name, equals, _ = override.lstrip("+~").partition("=")
            if not equals:
                raise ConfigError(f"compare.{key}: {override!r}: expected key=value")
            if name in RESERVED:
                raise ConfigError(
                    f"compare.{key}: {override!r}: a comparison sets {name} itself; leave it out"
                )
