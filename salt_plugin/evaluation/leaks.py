"""Videos that the lists of an evaluation share, and files with two labels."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict

from salt_plugin.evaluation.lists import Lists

# The first list shares videos with the second; what that does to the accuracy.
SHARED = (
    ("test", "train", "the accuracy counts what was learnt by heart"),
    ("val", "train", "the choice of a probe counts what was learnt by heart"),
    ("test", "val", "the probe is chosen on videos that it is scored on"),
)


def find_leaks(lists: Lists) -> dict[str, int]:
    """Counts videos that are in two lists, and files with two labels; warns of each kind found.

    Files count by their resolved paths.

    Returns:
        `test_in_train`, `val_in_train` and `test_in_val`, rows of the former list that are in the
        latter, 0 where there is no such list; `two_labels`, files with more than one label in all
        lists together.
    """
    paths: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    labels_of: defaultdict[str, set[int]] = defaultdict(set)
    for name, found in paths.items():
        if (videos := getattr(lists, name)) is not None:
            found += map(os.path.realpath, videos.paths)
            for path, label in zip(found, videos.labels_n.tolist(), strict=True):
                labels_of[path].add(label)
    leaks: dict[str, int] = {}
    for inner, outer, effect in SHARED:
        known = set(paths[outer])
        both = [path for path in paths[inner] if path in known]
        leaks[f"{inner}_in_{outer}"] = len(both)
        if both:
            warnings.warn(
                f"{len(both)} of {len(paths[inner])} videos of the list {inner} are in the list "
                f"{outer}, too; the first is {both[0]}: {effect}; take them out of one list",
                stacklevel=1,
            )
    twice = [path for path, labels in labels_of.items() if len(labels) > 1]
    leaks["two_labels"] = len(twice)
    if twice:
        warnings.warn(
            f"videos with two labels: {len(twice)}; the first is {twice[0]}: one of its labels is "
            "wrong; correct the lists",
            stacklevel=1,
        )
    return leaks
