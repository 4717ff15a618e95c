"""The labelled lists of an evaluation, checked against one another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.data import read_inputs
from salt_plugin.data.demo import demo_list, spec_of
from salt_plugin.data.list_file import read_list
from salt_plugin.data.sources import classes_of
from salt_plugin.data.stores import LISTED
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.video.containers import VIDEO_SUFFIXES
from salt_plugin.video.images import IMAGE_SUFFIXES

_SHOWN = 5


class LabelledList(NamedTuple):
    """Videos with their classes.

    Attributes:
        paths: Absolute paths.
        labels_n: Places in `Lists.classes`, int64 [n].
    """

    paths: list[str]
    labels_n: Tensor


class Lists(NamedTuple):
    """What an evaluation learns from, chooses on and is scored on.

    Attributes:
        train: To learn from.
        val: To choose a probe of the grid on; None: the test list.
        test: To score on.
        classes: Names of the classes, or their numbers as text.
        groups: A group of each test video, int64 [n]; None where they are independent.
    """

    train: LabelledList
    val: LabelledList | None
    test: LabelledList
    classes: list[str]
    groups: Tensor | None


def read_lists(config: ProbeConfig) -> Lists:
    """Reads the lists that a configuration names.

    Raises:
        ConfigError: A list is not named.
        DataError: A list is missing or broken, has unlabelled rows, other classes than the others,
            or another number of classes than the configuration says.
    """
    for key in ("train", "test"):
        if not getattr(config, key):
            raise ConfigError(
                f"probe.{key}: missing; give a folder or a CSV (`path label`) by --{key}, or by "
                f"method.probe_{key} in a run, or choose a set that has one, e.g. demo"
            )
    keys = [key for key in ("train", "val", "test") if getattr(config, key)]
    read = {key: _read(config, key) for key in keys}
    # Numbers before names, numbers by their size.
    classes = {label: None for _, labels in read.values() for label in labels}
    ordered = sorted(classes, key=lambda label: (isinstance(label, str), label))
    for key, (_, labels) in read.items():
        held = set(labels)
        if missing := [str(label) for label in ordered if label not in held]:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise DataError(
                f"probe.{key}={getattr(config, key)} has {len(ordered) - len(missing)} of "
                f"{len(ordered)} classes: it lacks {shown}, which another list has; expected the "
                f"same classes in {', '.join(keys)}"
            )
    if len(ordered) < 2 or config.classes not in (None, len(ordered)):
        raise DataError(
            f"probe.train={config.train} has {len(ordered)} classes: expected "
            f"{config.classes or 'at least 2'}; name the whole list, or set probe.classes"
        )
    place_of = {label: place for place, label in enumerate(ordered)}
    lists = {
        key: LabelledList(paths, torch.tensor([place_of[label] for label in labels]))
        for key, (paths, labels) in read.items()
    }
    groups = _read_groups(config.groups, lists["test"].paths) if config.groups else None
    names = [str(label) for label in ordered]
    return Lists(lists["train"], lists.get("val"), lists["test"], names, groups)


def _read(config: ProbeConfig, key: str) -> tuple[list[str], list[int | str]]:
    """Returns the videos of a list, and the class of each: a number or a name."""
    given = getattr(config, key)
    if given.startswith(DEMO_PREFIX):
        given = demo_list(given.removeprefix(DEMO_PREFIX), spec_of(config.demo, "probe.demo"))
    suffixes = IMAGE_SUFFIXES if config.images else VIDEO_SUFFIXES
    videos = read_inputs(os.path.expanduser(given), f"probe.{key}", suffixes)
    return videos.paths, classes_of(videos, f"probe.{key}={given}")


def _read_groups(given: str, paths: list[str]) -> Tensor:
    """Returns the group of each video, int64 [n], from a list with a line `path group` for each.

    A group is any text, without a space where spaces stand between columns.
    """
    try:
        listed = read_list(Path(given).expanduser(), LISTED, any_label=True)
    except DataError as error:
        raise DataError(f"probe.groups: {error}") from None
    group_of = {path: str(group) for path, group in zip(listed.paths, listed.labels, strict=True)}
    absent = [path for path in paths if path not in group_of]
    if absent:
        raise DataError(
            f"probe.groups={given} names no group for {len(absent)} of {len(paths)} test videos; "
            f"the first is {absent[0]}: expected a line `path group` for each"
        )
    return torch.from_numpy(np.unique([group_of[path] for path in paths], return_inverse=True)[1])
