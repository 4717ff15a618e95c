"""The list of files that could not be read, and how many are too many."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from salt_plugin.errors import DataError
from salt_plugin.training.ranks import Ranks

_SHOWN = 5


class SkippedFiles:
    """Lists each unreadable file once in `skipped.csv`, when it is first met; ends at too many.

    What other processes meet is listed, and counted, with the next checkpoint.

    Args:
        ranks: The processes that train together.
        path: The list; it is made at the start, with its header alone while nothing was skipped.
        files: How many distinct files there are to train on.
        max_bad: Share of them that may be bad.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        files: int,
        max_bad: float,
    ) -> None:
        self.ranks = ranks
        self.path = path
        self.files = files
        self.allowed = int(max_bad * files)
        self._met: dict[str, str] = {}
        listed: dict[str, str] = {}
        if ranks.is_first:  # an earlier stage, or an interrupted run, may have listed some
            if _cut_torn_row(path):
                listed = {row["path"]: row["reason"] for row in read_skipped(path)}
            else:
                self._append({"path": "reason"})
        # What all processes know, so that all of them end at the same step.
        self._shared: dict[str, str] = ranks.gather(listed)[0]

    def take(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Takes down what was met in a batch, as (path, reason).

        Raises:
            DataError: More files are bad than may be.
        """
        known = self._shared.keys() | self._met.keys()
        new = {path: reason for path, reason in skipped if path not in known}
        self._met |= new
        if self.ranks.is_first and new:
            self._append(new)
        if self.ranks.size == 1:
            self.share()
        if len(self._shared) > self.allowed:
            raise self._too_many()

    def share(self) -> None:
        """Adds what other processes have met since the last call; every process has to call it."""
        learnt: dict[str, str] = {}
        for met in self.ranks.gather(self._met):
            for path, reason in met.items():
                if path not in self._shared:
                    learnt.setdefault(path, reason)
        self._shared |= learnt
        new = {path: reason for path, reason in learnt.items() if path not in self._met}
        if self.ranks.is_first and new:
            self._append(new)
        self._met = {}

    def _too_many(self) -> DataError:
        # Details stand after a colon.
        reasons = Counter(reason.partition(":")[0] for reason in self._shared.values())
        counts = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        last = list(self._shared.items())[-_SHOWN:]
        shown = "\n".join(f"  {path}: {reason}" for path, reason in last)
        return DataError(
            f"{len(self._shared)} of {self.files} files cannot be read, and method.data.max_bad "
            f"allows {self.allowed}. By reason: {counts}. The last:\n{shown}\n"
            f"All are in {self.path}. `salt data check INPUT --clean CLEAN.csv` writes a list "
            "without bad files; or raise method.data.max_bad and start again to go on."
        )

    def _append(self, rows: dict[str, str]) -> None:
        with _opened(self.path, "a") as file:
            csv.writer(file).writerows(rows.items())


def _cut_torn_row(path: Path) -> bool:
    """Cuts what a power failure has left of a last row, and tells whether there is any row."""
    if not path.is_file():
        return False
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)
    return whole > 0


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Returns the rows (path, reason) of a `skipped.csv`."""
    with _opened(path, "r") as file:
        return list(csv.DictReader(file))


def _opened(path: Path, mode: str) -> IO[str]:
    # Names of files need not be UTF-8.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
