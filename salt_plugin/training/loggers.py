"""Lightning's loggers, beside `metrics.csv`: TensorBoard, CSV, Weights & Biases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from salt_plugin.config import RunConfig
from salt_plugin.errors import ConfigError
from salt_plugin.files import read_json, write_json

# What each logger needs, and what installs it.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "salt-plugin[wandb]"}
# Seconds that a stage waits at its end for what is still to be uploaded; `wandb sync` sends it.
UPLOAD_SECONDS = 60.0


def logger_names(config: RunConfig) -> list[str]:
    """Returns the loggers of `trainer.logger`, each once."""
    given = config.trainer.logger
    return list(dict.fromkeys([given] if isinstance(given, str) else given))


def require_loggers(config: RunConfig) -> None:
    """Checks that the loggers are installed.

    Raises:
        ConfigError: One is not.
    """
    for name in logger_names(config):
        if name in PACKAGES and find_spec(name) is None:
            raise ConfigError(
                f"trainer.logger={name}: {name} is not installed; pip install "
                f"{PACKAGES[name]!r}, or leave it out"
            )


class Loggers:
    """The loggers of a stage, each in a folder of its name; nothing waits for what they write.

    They have what `metrics.csv` has, and the configuration as hyperparameters. One that is new to a
    stage that goes on is given the rows of `metrics.csv` up to there.

    Args:
        config: Of the run.
        folder: Of the stage.
        start: Steps that were done before, when the stage resumes.
        rows: Of `metrics.csv` up to there.

    Raises:
        ConfigError: Weights & Biases lets nobody in.
    """

    def __init__(
        self, config: RunConfig, folder: Path, start: int, rows: Sequence[Mapping[str, float]]
    ) -> None:
        self._loggers: list[Logger] = []
        for name in logger_names(config):
            known = name == "tensorboard" and bool(start) and (folder / name).is_dir()
            logger = _open(name, folder, start)
            logger.log_hyperparams(asdict(config))
            self._loggers.append(logger)
            _give(logger, [] if known else rows)

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Gives rows of `metrics.csv` to each logger."""
        for logger in self._loggers:
            _give(logger, rows)

    def close(self, status: str) -> None:
        """Ends them.

        Args:
            status: `success` or `failed`, as Lightning has it.
        """
        for logger in self._loggers:
            logger.finalize(status)


def _give(logger: Logger, rows: Sequence[Mapping[str, float]]) -> None:
    if isinstance(logger, _Wandb):
        rows = logger.not_given(rows)
    for row in rows:
        values = {name: value for name, value in row.items() if name != "step"}
        logger.log_metrics(values, int(row["step"]))
    logger.save()


def _open(name: str, folder: Path, start: int) -> Logger:
    if name == "tensorboard":
        # A placeholder, without which TensorBoard shows no hyperparameters, is logged once.
        new = not (folder / name).is_dir()
        return TensorBoardLogger(
            folder, name="", version=name, default_hp_metric=new, purge_step=start + 1
        )
    if name == "csv":  # Lightning's cannot go on with a file: it gets all rows again
        shutil.rmtree(folder / name, ignore_errors=True)
        return CSVLogger(folder, name="", version=name)
    return _Wandb(folder, start)


class _Wandb(WandbLogger):
    """A run of Weights & Biases, whose steps are those of the rows.

    What it was given cannot be taken back: steps that are made again, which come out the same, are
    not given again. `wandb.json` holds the run's id and the last step that it was given.

    Args:
        folder: Of the stage.
        start: Steps that were done before.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._file = folder / "wandb.json"
        before = read_json(self._file) if start and self._file.is_file() else {}
        self._given = int(before.get("step", 0))
        super().__init__(
            name=f"{folder.parent.name}/{folder.name}",
            save_dir=folder,
            version=before.get("id"),
            project=os.environ.get("WANDB_PROJECT", "salt_plugin"),
            settings={"finish_timeout": UPLOAD_SECONDS},
        )
        from wandb.errors import Error

        try:
            _ = self.experiment
        except Error as error:
            raise ConfigError(
                f"trainer.logger=wandb: {error}; run `wandb login`, or set WANDB_MODE=offline"
            ) from None

    def not_given(self, rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
        """Returns the rows that it was not given, and notes that it is given them."""
        new = [row for row in rows if row["step"] > self._given]
        if new:
            self._given = int(new[-1]["step"])
            write_json(self._file, {"id": self.experiment.id, "step": self._given})
        return new

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row, under its step in the axis of wandb and in Lightning's."""
        self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

    def finalize(self, status: str) -> None:
        """Ends the run, so that the next stage has one of its own."""
        self.experiment.finish(exit_code=int(status != "success"))
