"""How an encoder develops in training: its loss beside what its frozen features are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from salt_plugin.checkpoints import read_card, read_input
from salt_plugin.config import ProbeConfig, probe_config_for
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.data import DemoSpec, make_demo
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.evaluation.protocol import probe
from salt_plugin.evaluation.results import ProbeReport
from salt_plugin.evaluation.spectrum import effective_rank, spread
from salt_plugin.run_directory import RunDirectory


class TrackPoint(NamedTuple):
    """One encoder of a run.

    Attributes:
        step: Optimiser steps done.
        loss: Training loss at that step, as on the encoder's card.
        accuracy: On the test videos.
        effective_rank: Of the mean tokens of the test clips; see `spectrum.effective_rank`.
        spread: Of the same; see `spectrum.spread`.
    """

    step: int
    loss: float
    accuracy: float
    effective_rank: float
    spread: float


def kept_encoders(run: RunDirectory) -> dict[int, Path]:
    """Returns the encoders that a run kept, by step.

    Raises:
        ConfigError: The folder holds no run.
        CheckpointError: It kept none.
    """
    kept = run.result.kept_encoders()
    if not kept:
        raise CheckpointError(
            f"{run.result.encoders} holds no encoders: the run kept none on its way; train with "
            "method.encoders_every_n_steps=N"
        )
    return kept


def demo_lists(config: Mapping[str, Any], task: str) -> tuple[Path, Path]:
    """Returns the labelled lists, train and test, of a run's own demo set.

    Args:
        config: As `RunDirectory.stored_config` gives it.
        task: `direction` or `digit`.

    Raises:
        ConfigError: The run was not trained on the demo set.
    """
    inputs = config["input_dir"]
    if not (isinstance(inputs, str) and inputs.startswith(DEMO_PREFIX)):
        raise ConfigError(
            f"the run was trained on input_dir={inputs}, not on the demo set; name "
            "labelled videos by --train CSV --test CSV"
        )
    folder = make_demo(DemoSpec(**config["method"]["data"]["demo"]))
    return folder / f"train_{task}.csv", folder / f"test_{task}.csv"


def track_config(
    encoder: Path, lists: tuple[Path, Path], protocol: str, **changes: Any
) -> ProbeConfig:
    """Returns the configuration by which encoders of one run are compared.

    With `attentive` it is the paper's fast protocol (section 6): one probe, learning rate 1e-3,
    weight decay 0.01, one centred view.

    Args:
        encoder: A file, on whose card the clip is.
        lists: Videos to learn from and to score on: CSVs (`path label`) or folders of classes.
        protocol: `attentive`, `linear` or `knn`.
        **changes: Further keys of the evaluation, e.g. `cache`.
    """
    train, test = (str(one.absolute()) for one in lists)
    given = {"train": train, "test": test, "grid": "fast", "protocols": [protocol], **changes}
    return probe_config_for(read_input(encoder), "folder", given)


def track(kept: Mapping[int, Path], config: ProbeConfig) -> Iterator[TrackPoint]:
    """Probes encoders one after the other.

    Args:
        kept: Encoder files by step, as `kept_encoders` gives them.
        config: As `track_config` gives it.

    Raises:
        SaltError: As `probe`.
    """
    for step, path in kept.items():
        report = probe_once(path, config)
        assert report.means_nvd is not None
        means_nd = report.means_nvd[:, 0]
        yield TrackPoint(
            step=step,
            loss=read_card(path)["loss"],
            accuracy=accuracy_of(report),
            effective_rank=effective_rank(means_nd),
            spread=spread(means_nd),
        )


def probe_once(encoder: Path, config: ProbeConfig) -> ProbeReport:
    """Probes an encoder; where the configuration has no `cache`, its features are not kept."""
    with TemporaryDirectory(prefix="salt-track-") as folder:
        return probe(str(encoder), replace(config, cache=config.cache or folder))


def accuracy_of(report: ProbeReport) -> float:
    """Returns the accuracy of the first protocol."""
    return next(iter(report.results.values())).accuracy
