"""Videos that the lists of an evaluation share, and files with two labels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from itertools import chain

from salt_plugin.evaluation.lists import Lists

# Which list shares videos with which, and what that does to the accuracy.
SHARED = (
    ("test", "train", "the accuracy counts what was learnt by heart"),
    ("val", "train", "the choice of a probe counts what was learnt by heart"),
    ("test", "val", "the probe is chosen on videos that it is scored on"),
)


def find_leaks(lists: Lists) -> dict[str, int]:
    """Counts videos that are in two lists, and files with two labels; warns of each kind found.

    Files are told apart by their resolved paths.

    Returns:
        `test_in_train`, `val_in_train` and `test_in_val`, rows of the former list that are in the
        latter, 0 where there is no such list; `two_labels`, files with more than one label in all
        lists together.
    """
    real = RealPaths()
    videos = {"train": lists.train, "val": lists.val, "test": lists.test}
    paths = {name: real.all(one.paths) if one else [] for name, one in videos.items()}
    found: dict[str, int] = {}
    for inner, outer, effect in SHARED:
        known = set(paths[outer])
        both = [path for path in paths[inner] if path in known]
        found[f"{inner}_in_{outer}"] = len(both)
        if both:
            warnings.warn(
                f"{len(both)} of {len(paths[inner])} videos of the list {inner} are in the list "
                f"{outer}, too; the first is {both[0]}: {effect}; take them out of one list",
                stacklevel=1,
            )
    label_of: dict[str, int] = {}
    labels = chain.from_iterable(one.labels_n.tolist() for one in videos.values() if one)
    rows = zip(chain.from_iterable(paths.values()), labels, strict=True)
    twice = dict.fromkeys(path for path, at in rows if label_of.setdefault(path, at) != at)
    found["two_labels"] = len(twice)
    if twice:
        warnings.warn(
            f"videos with two labels: {len(twice)}; the first is {next(iter(twice))}: one of its "
            "labels is wrong; correct the lists",
            stacklevel=1,
        )
    return found


class RealPaths:
    """Resolves the links of many paths, those of each folder once.

    On network disks each look costs, and lists have millions of lines.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def all(self, paths: Iterable[str]) -> list[str]:
        """Returns the resolved paths; that of a file that does not exist, too."""
        return [self._resolved(path) for path in paths]

    def _resolved(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        resolved = os.path.join(self._folders[folder], name)
        if name in ("", os.curdir, os.pardir) or os.path.islink(resolved):
            return os.path.realpath(path)
        return resolved
