"""The list of files that could not be read, and how many are too many."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from salt_plugin.errors import DataError
from salt_plugin.files import write_csv
from salt_plugin.training.world import Ranks

_SHOWN = 5


@dataclass
class SkippedFiles:
    """Lists each unreadable file once in `skipped.csv`, when it is first met; ends at too many.

    What several processes meet is listed, and counted, with the next checkpoint.

    Attributes:
        ranks: The processes that train together.
        path: The list; it is made at the start, with its header alone while nothing was skipped.
        files: How many distinct files there are to train on.
        max_bad: Share of them that may be bad.
    """

    ranks: Ranks
    path: Path
    files: int
    max_bad: float
    _known: dict[str, str] = field(default_factory=dict, init=False)
    _met: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Reads what an earlier stage, or an interrupted run, has listed."""
        if self.ranks.is_first and self.path.is_file():
            self._known = {row["path"]: row["reason"] for row in read_skipped(self.path)}
        # All processes know the same, so that all of them end at the same step.
        self._known = self.ranks.gather(self._known)[0]
        self._write()

    def take(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Takes down what was met in the batches of a step, as (path, reason).

        Raises:
            DataError: More files are bad than may be.
        """
        for path, reason in skipped:
            self._met.setdefault(path, reason)
        if self.ranks.size == 1:
            self.share()
        allowed = int(self.max_bad * self.files)
        if len(self._known) > allowed:
            raise self._too_many(allowed)

    def share(self) -> None:
        """Lists what all processes have met since the last call; every process has to call it."""
        new: dict[str, str] = {}
        for met in self.ranks.gather(self._met):
            for path, reason in met.items():
                if path not in self._known:
                    new.setdefault(path, reason)
        self._met = {}
        if new:
            self._known |= new
            self._write()

    def _write(self) -> None:
        if self.ranks.is_first:
            rows = [{"path": path, "reason": reason} for path, reason in self._known.items()]
            write_csv(self.path, ("path", "reason"), rows)

    def _too_many(self, allowed: int) -> DataError:
        # Details stand after a colon.
        reasons = Counter(reason.partition(":")[0] for reason in self._known.values())
        counts = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        last = list(self._known.items())[-_SHOWN:]
        shown = "\n".join(f"  {path}: {reason}" for path, reason in last)
        return DataError(
            f"{len(self._known)} of {self.files} files cannot be read, and method.data.max_bad "
            f"allows {allowed}. By reason: {counts}. The last:\n{shown}\n"
            f"All are in {self.path}. `salt data check INPUT --clean CLEAN.csv` writes a list "
            "without bad files; or raise method.data.max_bad and start again to go on."
        )


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Returns the rows (path, reason) of a `skipped.csv`."""
    # Names of files need not be UTF-8.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
