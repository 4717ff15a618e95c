"""The folder that a run writes to, and nowhere else."""

from __future__ import annotations

import csv
import math
import re
import shlex
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from salt_plugin.config import RunConfig, read_yaml, registry, require_known_classes, values
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.config.command_line import quoted
from salt_plugin.config.keys import marked
from salt_plugin.errors import ConfigError
from salt_plugin.files import held, hold, write_text
from salt_plugin.stage_directory import StageDirectory, unwritable

# Keys that may differ when a run is resumed.
OPERATIONAL = {
    *marked(values.OPERATIONAL),
    "method.data.root",  # of earlier versions
}

# Keys that earlier versions did not have, with the values that do what these did.
ABSENT = {
    "method.optim.cooldown_share": 0.0,
    "method.optim.cooldown_lr": 0.0,
    "method.optim.stretch": 1.0,
    "method.optim.clip_each": False,
    "method.optim.clip_after": 0.0,
    "method.ema": 0.0,
    "method.data.demo.val": 0,
}

# Commands that train, as users type them; Hydra sees the first without its verb.
PROGRAMS = (["salt", "train"], ["lightly-ssl-train"])

# Steps whose mean is called the loss at a step: one batch alone says little.
LOSS_WINDOW = 100


class RunDirectory:
    """A run's folder: `config.yaml`, `skipped.csv`, `figures/`, a folder for each stage.

    Args:
        root: The folder; Hydra's `hydra.run.dir`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.summary = root / "summary.json"
        self.skipped = root / "skipped.csv"
        self.figures = root / "figures"
        self.teacher = StageDirectory(root / "teacher")
        self.student = StageDirectory(root / "student")
        self._lock: IO[str] | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has written its summary, which it does last."""
        return self.summary.is_file()

    @property
    def at_work(self) -> bool:
        """Whether a process trains in the folder."""
        return held(self.root)

    @property
    def result(self) -> StageDirectory:
        """The stage that the run is for: the student, or the teacher of `pixel_teacher`.

        Raises:
            ConfigError: The folder holds no run.
        """
        return self.stage(registry.get(self.stored_config()["method"]["name"]).result)

    def stage(self, name: str) -> StageDirectory:
        """Returns the folder of a stage, `teacher` or `student`."""
        return {"teacher": self.teacher, "student": self.student}[name]

    def stored_config(self) -> dict[str, Any]:
        """Returns what `config.yaml` holds.

        Raises:
            ConfigError: The folder holds no run, or its file names classes of neither this
                package nor `SALT_TRUSTED_PACKAGES`, or refers to the environment.
        """
        if not self.config.is_file():
            raise ConfigError(
                f"{self.root} is no run directory: {self.config.name} is missing; name the folder "
                "that a training run wrote (hydra.run.dir)"
            )
        stored = _read_config(self.config)
        method = stored.get("method")
        if not isinstance(method, dict) or method.get("name") not in registry.METHODS:
            raise ConfigError(
                f"{self.config} is no configuration of ours: method.name is none of "
                f"{', '.join(registry.METHODS)}"
            )
        require_known_classes(stored, self.config)
        return stored

    def stored_batch_size(self) -> int | None:
        """Returns the clips of a step of the run in the folder; None where there is none."""
        stored = _read_config(self.config) if self.config.is_file() else {}
        found = (stored.get("method") or {}).get("global_batch_size")
        return found if isinstance(found, int) else None

    def check(self, config: RunConfig) -> None:
        """Checks that the folder is free, or holds a run of the same configuration.

        Raises:
            ConfigError: It holds a run of another configuration.
        """
        if not self.config.is_file():
            return
        now = comparable(asdict(config))
        before = {key: value for key, value in ABSENT.items() if key in now}
        before |= comparable(_read_config(self.config))
        if self.finished:  # by an earlier version, which stored other things
            for key in ("method.mask_group", "method.global_batch_size"):
                if before.get(key) is None:
                    before[key] = now[key]
        absent = "absent"
        changed = [
            f"{key} was {before.get(key, absent)!r} and is now {now.get(key, absent)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)  # a key that a version lacks is as if null
        ]
        if changed:
            raise ConfigError(
                f"{self.root} holds a run of another configuration: {'; '.join(changed)}. Give the "
                "same values to resume it, or another hydra.run.dir"
            )

    def claim(self, config: RunConfig) -> None:
        """Takes the folder for a configuration, once `check` has passed, until the process ends.

        Raises:
            ConfigError: Another process trains in it, or it cannot be written to.
        """
        try:
            self._lock = hold(self.root)
        except OSError as error:
            raise unwritable(self.root, error) from None
        if self._lock is None:
            raise ConfigError(
                f"another process trains in hydra.run.dir={self.root}; wait for it, or choose "
                "another folder"
            )
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(asdict(config))))

    @property
    def goes_on(self) -> str:
        """How to go on with the run once it was stopped."""
        name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
        program = next((words for words in PROGRAMS if words[0] == name), None)
        if program is None or {"-m", "--multirun"} & set(arguments):
            return f"the same configuration with hydra.run.dir={self.root} goes on"
        if not any(one.startswith("hydra.run.dir=") for one in arguments):
            root = str(self.root)
            plain = re.fullmatch(r"[\w/.+-]+", root)
            arguments.append(f"hydra.run.dir={root if plain else quoted(root)}")
        return f"this goes on: {shlex.join([*program, *arguments])}"

    def release(self) -> None:
        """Lets another process train in the folder; nothing happens where it was not taken."""
        if self._lock is not None:
            self._lock.close()


def _read_config(file: Path) -> dict[str, Any]:
    stored = read_yaml(file)
    if stored.get("input_dir") == "":  # of earlier versions: the demo
        stored["input_dir"] = f"{DEMO_PREFIX}train.csv"
    return stored


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a `metrics.csv`, without empty cells; a torn last line is left out.

    Raises:
        ConfigError: It holds something else than numbers.
    """
    with path.open(newline="") as file:
        integers = {"step", "clips", "flops", "peak_memory_mib"}
        try:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
            return [
                {k: int(v) if k in integers else float(v) for k, v in row.items() if v != ""}
                for row in rows
            ]
        except (ValueError, TypeError, csv.Error) as error:
            raise ConfigError(
                f"{path} holds other rows than numbers under a header of names ({error}); copy "
                "it again from the run that wrote it"
            ) from None


def recent_loss(path: Path, window: int = LOSS_WINDOW) -> float:
    """Returns the mean loss of the last rows of a `metrics.csv`, or of all if fewer.

    Losses that are not finite are left out, as their steps were.
    """
    losses = [row["loss"] for row in read_metrics(path)[-window:]]
    return statistics.fmean([loss for loss in losses if math.isfinite(loss)] or losses)


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a configuration that decide what a run computes, by dotted key."""
    return {key: value for key, value in flat(config).items() if key not in OPERATIONAL}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a configuration by their dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
