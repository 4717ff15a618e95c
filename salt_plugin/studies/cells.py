"""The runs of a comparison, as its configuration gives them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.types import Quote

from salt_plugin.config import registry
from salt_plugin.config.arms import PLACE, RANDOM, SHARE, Arm, budget_name, distinct, key_of
from salt_plugin.config.command_line import quoted
from salt_plugin.config.compare import CompareConfig, arms_of
from salt_plugin.errors import ConfigError
from salt_plugin.studies.elements import names_of


class Cell(NamedTuple):
    """One run.

    Attributes:
        arm: Its arm; `random` for an encoder that was not trained.
        method: The method of the arm.
        encoder: Its size.
        budget: Its FLOPs; None where its steps end it, 0 for `random`.
        seed: Of the run.
        teacher_share: Share of the budget that the teacher gets, which SALT trains first, or the
            run that this one starts from; None where there is none, and without a budget.
        trial: The overrides that make it a trial.
    """

    arm: str
    method: str
    encoder: str
    budget: float | None
    seed: int
    teacher_share: float | None = None
    trial: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        budget = "" if self.arm == RANDOM else f"-{budget_name(self.budget)}"
        share = "" if self.teacher_share is None else f"-t{self.teacher_share:g}"
        trial = names_of(dict(one.lstrip("+~").split("=", 1) for one in self.trial))
        return "-".join([f"{self.arm}-{self.encoder}{budget}-s{self.seed}{share}", *trial])


def all_cells(config: CompareConfig) -> list[Cell]:
    """Returns the runs in the order of training: one seed of everything, then the next.

    Raises:
        ConfigError: Two would share a folder.
    """
    arms = arms_of(config)
    by_name = {arm.name: arm for arm in arms}

    def shares(arm: Arm, budget: float | None) -> list[float | None]:
        if arm.base is not None:
            return shares(by_name[arm.base], budget)
        if registry.get(arm.method).teacher is None or budget is None:
            return [None]
        return [*config.teacher_shares] if arm.share is None else [arm.share]

    cells = [
        Cell(arm.name, arm.method, encoder, budget, seed, share, arm.trial)
        for seed, budget, encoder, arm in product(
            config.seeds, config.budgets, config.encoders, arms
        )
        if arm.budgets is None or budget in arm.budgets
        for share in shares(arm, budget)
    ]
    names = [cell.name for cell in cells]
    if not distinct(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"compare: two runs would share the folder {twice}; make trials that differ in more "
            "than such characters, or arms of other names"
        )
    return cells


def baselines(config: CompareConfig) -> list[Cell]:
    """Returns the encoders before training; none where they are not asked for."""
    encoders = config.encoders if config.baseline else []
    return [
        Cell(RANDOM, RANDOM, encoder, 0.0, seed) for encoder in encoders for seed in config.seeds
    ]


def train_overrides(cell: Cell, config: CompareConfig) -> list[str]:
    """Returns a run as overrides, but for its folder. A comparison evaluates its runs itself."""
    overrides = [f"method={cell.method}", f"method.encoder={cell.encoder}", f"seed={cell.seed}"]
    own = [one for one in _arm_of(cell, config).overrides if key_of(one) != SHARE]
    overrides += [*config.overrides, *own]
    if cell.budget is not None:
        overrides.append(f"compute.budget={cell.budget!r}")
    if cell.teacher_share is not None:
        overrides.append(f"{SHARE}={cell.teacher_share!r}")
    return [*overrides, "method.probe=null"]


def base_of(cell: Cell, config: CompareConfig) -> Cell | None:
    """Returns the run that a run starts from; None where there is none."""
    base = _arm_of(cell, config).base
    return None if base is None else cell._replace(arm=base)


def placed(override: str, folder: Path) -> str:
    """Returns an override with the folder of a run in the place of its arm in braces."""
    key, equals, value = override.partition("=")
    if not PLACE.search(value):
        return override
    return f"{key}{equals}{quoted(PLACE.sub(lambda _: str(folder), value), Quote.single)}"


def _arm_of(cell: Cell, config: CompareConfig) -> Arm:
    return next(arm for arm in arms_of(config) if (arm.name, arm.trial) == (cell.arm, cell.trial))
