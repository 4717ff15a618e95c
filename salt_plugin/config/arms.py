"""The arms of a comparison: methods as they are, changed ones, and trials of either."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.config.suggest import require_known
from salt_plugin.config.values import STRICT, Positive, holds
from salt_plugin.errors import ConfigError

# The name of an encoder before training.
RANDOM = "random"
# In an override of an arm: the folder of the run of another one.
PLACE = re.compile(r"\{([\w-]+)\}")
SHARE = "compute.teacher_share"

# What a comparison varies or sets itself; overrides cannot.
RESERVED = (
    "method",
    "method.encoder",
    "seed",
    "compute.budget",
    SHARE,
    "method.probe",
    "hydra.run.dir",
)


def distinct(values: Sequence[Any]) -> bool:
    """Whether no value is there twice."""
    return len(set(values)) == len(values)


def budget_name(budget: float | None) -> str:
    """Returns e.g. `2e15`; `steps` where a run ends by its steps instead."""
    return "steps" if budget is None else f"{budget:.6g}".replace("e+", "e")


Budgets = Annotated[
    list[Positive | None],
    Field(
        min_length=1,
        title="FLOPs, each more than 0 (or null: as many steps as the overrides say), each once",
    ),
    holds(lambda values: distinct([budget_name(value) for value in values])),
]
Overrides = Annotated[list[str], Field(min_length=1)]
Trials = Annotated[
    dict[str, list[Overrides]],
    Field(title="a list of trials for each method and arm, each a list of overrides"),
]


@dataclass(config=STRICT)
class ArmConfig:
    """A method with changes of its own.

    Attributes:
        method: The method.
        overrides: Come after those of the method.
        budgets: Some of those of the comparison; null: all.
    """

    method: str
    overrides: list[str] = field(default_factory=list)
    budgets: Budgets | None = None


class Arm(NamedTuple):
    """What is trained with each encoder, budget and seed.

    Attributes:
        name: That of the method, or of the entry in `arms`.
        method: Its method.
        overrides: All that are not of all runs: of the method, the arm and the trial.
        budgets: Those that it is trained with; None: all.
        trial: The overrides that make it a trial; none where there are no trials.
        base: The arm whose run, of the same encoder, budget and seed, has to end first.
        share: The teacher's share of the budget that its overrides give; None: they give none.
    """

    name: str
    method: str
    overrides: tuple[str, ...]
    budgets: list[float | None] | None = None
    trial: tuple[str, ...] = ()
    base: str | None = None
    share: float | None = None


def key_of(override: str) -> str:
    """Returns the key of an override as a dotted one."""
    return override.lstrip("+~").partition("=")[0].replace("/", ".")


def check_overrides(key: str, overrides: Sequence[str], reserved: Sequence[str] = RESERVED) -> None:
    """Checks overrides as far as it goes without Hydra.

    Raises:
        ConfigError: One is no `key=value`, or sets what the comparison sets.
    """
    for override in overrides:
        name, equals, _ = override.lstrip("+~").partition("=")
        if not equals:
            raise ConfigError(f"compare.{key}: {override!r}: expected key=value")
        if name in reserved:
            raise ConfigError(
                f"compare.{key}: {override!r}: a comparison sets {name} itself; leave it out"
            )


def all_arms(
    methods: Sequence[str],
    arms: Mapping[str, ArmConfig],
    method_overrides: Mapping[str, list[str]],
    trials: Mapping[str, list[list[str]]],
    budgets: Sequence[float | None],
) -> list[Arm]:
    """Returns the arms of a comparison, the methods first; the first trial of each, then the next.

    Args:
        methods: As the keys of a comparison of these names, and so on.
        arms: Likewise.
        method_overrides: Likewise.
        trials: Likewise.
        budgets: Likewise.

    Raises:
        ConfigError: A name or value cannot work.
    """
    for name in arms:
        if not re.fullmatch(r"\w[\w-]*", name) or name in (RANDOM, *methods):
            raise ConfigError(
                f"compare.arms.{name}: expected a name of letters, digits, - and _, which is "
                f"neither {RANDOM!r} nor one of compare.methods; choose another"
            )
    named = {**{name: ArmConfig(name) for name in methods}, **arms}
    _check_trials(list(named), trials)
    for method in method_overrides:
        known = {one.method for one in named.values()}
        require_known(method, known, f"compare.method_overrides.{method}: not one of the methods")
        check_overrides(f"method_overrides.{method}", method_overrides[method])
    found: dict[str, list[Arm]] = {}
    for name, one in named.items():
        found[name] = []
        base = _base(name, one, {key: named[key] for key in found if key != name}, budgets)
        if base is not None and trials:
            raise ConfigError(
                f"compare.arms.{name}: starts from a run of {base}, of which there are several "
                "where there are trials; leave out the arm, or compare.trials"
            )
        for trial in trials.get(name, [[]]):
            own = [*one.overrides, *trial]
            key = f"trials.{name}" if trial else f"arms.{name}"
            check_overrides(key, own, [each for each in RESERVED if each != SHARE])
            overrides = (*method_overrides.get(one.method, []), *own)
            arm = Arm(
                name, one.method, overrides, one.budgets, tuple(trial), base, _share(key, own)
            )
            found[name].append(arm)
    return [arm for each in zip(*found.values(), strict=True) for arm in each]


def _base(
    name: str, arm: ArmConfig, before: Mapping[str, ArmConfig], budgets: Sequence[float | None]
) -> str | None:
    """Returns the arm whose run another starts from."""
    key = f"compare.arms.{name}"
    for budget in arm.budgets or []:
        if budget not in budgets:
            known = ", ".join(map(budget_name, budgets))
            raise ConfigError(
                f"{key}.budgets: {budget_name(budget)}: expected one of compare.budgets: {known}"
            )
    bases = list(dict.fromkeys(base for one in arm.overrides for base in PLACE.findall(one)))
    for base in bases:
        require_known(base, before, f"{key}: {{{base}}} is no method and no arm before this one")
        missing = [b for b in arm.budgets or budgets if b not in (before[base].budgets or budgets)]
        if missing:
            raise ConfigError(
                f"{key}.budgets: {budget_name(missing[0])}: {base}, which it starts from, has no "
                f"run of this budget; expected some of those of {base}"
            )
    if len(bases) > 1:
        raise ConfigError(f"{key}: starts from {' and '.join(bases)}: expected one of them")
    return bases[0] if bases else None


def _check_trials(names: Sequence[str], trials: Mapping[str, list[list[str]]]) -> None:
    for name in trials:
        require_known(name, names, f"compare.trials.{name}: neither a method nor an arm")
    numbers = {name: len(trials.get(name, [])) for name in names}
    if trials and len(set(numbers.values())) > 1:
        found = ", ".join(f"{number} of {name}" for name, number in numbers.items())
        raise ConfigError(
            f"compare.trials: {found}: expected as many trials of each, or none is tuned fairly"
        )
    for name, found_n in trials.items():
        if not distinct(list(map(tuple, found_n))):
            raise ConfigError(f"compare.trials.{name}: a trial stands there twice; leave it out")


def _share(key: str, overrides: Sequence[str]) -> float | None:
    given = [one.partition("=")[2] for one in overrides if key_of(one) == SHARE]
    if not given:
        return None
    try:
        return float(given[-1])
    except ValueError:
        raise ConfigError(f"compare.{key}: {SHARE}={given[-1]}: expected a number") from None
