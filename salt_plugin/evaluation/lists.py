"""The labelled lists of an evaluation, checked against one another."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig, require_lists
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.data import DemoSpec, VideoList, make_demo, read_inputs
from salt_plugin.data.list_file import read_list
from salt_plugin.errors import DataError
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
        DataError: A list is missing or broken, has unlabelled rows, other classes than the training
            list, or fewer videos than classes.
    """
    require_lists(config)
    found = {key: _read(config, key) for key in ("train", "val", "test") if getattr(config, key)}
    names = _names(config, found)
    number_of = {name: number for number, name in enumerate(names)}
    numbered = {
        key: LabelledList(
            videos.paths, torch.tensor([number_of[_name(videos, at)] for at in videos.labels])
        )
        for key, videos in found.items()
    }
    groups = read_groups(Path(config.groups), found["test"].paths) if config.groups else None
    return Lists(numbered["train"], numbered.get("val"), numbered["test"], names, groups)


def read_groups(file: Path, paths: list[str]) -> Tensor:
    """Returns the group of each video from a list with a line `path group` for each.

    Args:
        file: A list as of `read_inputs`, with a group in place of a label: any text, without a
            space where spaces stand between columns.
        paths: The videos, absolute paths.

    Returns:
        Numbers of the groups, int64 [n].

    Raises:
        DataError: The file is missing, or does not name each of these videos.
    """
    try:
        listed = read_list(file.expanduser(), VIDEO_SUFFIXES + IMAGE_SUFFIXES, any_label=True)
    except DataError as error:
        raise DataError(f"probe.groups: {error}") from None
    group_of = {path: str(group) for path, group in zip(listed.paths, listed.labels, strict=True)}
    absent = [path for path in paths if path not in group_of]
    if absent:
        raise DataError(
            f"probe.groups={file} names no group for {len(absent)} of {len(paths)} test videos; "
            f"the first is {absent[0]}: expected a line `path group` for each"
        )
    names = sorted({group_of[path] for path in paths})
    return torch.tensor([names.index(group_of[path]) for path in paths])


def _read(config: ProbeConfig, key: str) -> VideoList:
    given = getattr(config, key)
    if given.startswith(DEMO_PREFIX):
        given = str(make_demo(DemoSpec()) / given.removeprefix(DEMO_PREFIX))
    suffixes = IMAGE_SUFFIXES if config.images else VIDEO_SUFFIXES
    videos = read_inputs(Path(given).expanduser(), f"probe.{key}", suffixes)
    unlabelled = [path for path, at in zip(videos.paths, videos.labels, strict=True) if at < 0]
    if unlabelled:
        raise DataError(
            f"probe.{key}={given} has {len(unlabelled)} unlabelled of {len(videos.paths)} videos; "
            f"the first is {unlabelled[0]}: expected a class for each; remove them or label them"
        )
    return videos


def _names(config: ProbeConfig, found: dict[str, VideoList]) -> list[str]:
    for key, videos in found.items():
        if config.classes is not None and len(videos.paths) < config.classes:
            raise DataError(
                f"probe.{key}={getattr(config, key)} has {len(videos.paths)} videos for "
                f"{config.classes} classes: expected at least one of each; give the whole list"
            )
    numbered = {at for videos in found.values() if videos.classes is None for at in videos.labels}
    names = [str(number) for number in sorted(numbered)]
    names += sorted({name for videos in found.values() for name in videos.classes or []})
    for key, videos in found.items():
        missing = sorted(set(names) - {_name(videos, at) for at in videos.labels}, key=names.index)
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise DataError(
                f"probe.{key}={getattr(config, key)} has {len(names) - len(missing)} of "
                f"{len(names)} classes: it lacks {shown}, which another list has; expected the "
                f"same classes in {', '.join(found)}"
            )
    if len(names) < 2 or (config.classes is not None and len(names) != config.classes):
        expected = "at least 2" if config.classes is None else config.classes
        raise DataError(
            f"probe.train={config.train} has {len(names)} classes: expected {expected}; name the "
            "whole list, or set probe.classes"
        )
    return names


def _name(videos: VideoList, label: int) -> str:
    return str(label) if videos.classes is None else videos.classes[label]
