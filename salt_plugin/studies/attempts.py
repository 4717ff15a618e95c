"""The folder of an element, and what is known of its attempts."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

from salt_plugin.files import write_json
from salt_plugin.stage_directory import StageDirectory

STARTED, FINISHED, FAILED, INTERRUPTED = "started", "finished", "failed", "interrupted"

# An element fails after this many attempts in a row that save no further step.
MOST_WITHOUT_PROGRESS = 5

TAIL_BYTES = 65_536
STAGES = ("teacher", "student")


class ElementDirectory:
    """Beside what the command writes: `attempts.jsonl`, `log.txt`, `output.txt`, `finished.json`.

    Args:
        root: The folder; of a stage that trains, also its run directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.attempts = root / "attempts.jsonl"
        self.output = root / "output.txt"
        self.finished = root / "finished.json"

    def log(self, rank: int = 0) -> Path:
        """Returns where a process of the element writes."""
        return self.root / ("log.txt" if rank == 0 else f"log-{rank}.txt")

    def note(self, event: str, **found: Any) -> None:
        """Adds a line to the attempts, in one write."""
        row = {"event": event, "time": round(time.time(), 3), **found}
        with self.attempts.open("ab", buffering=0) as file:
            file.write(json.dumps(row).encode() + b"\n")

    def finish(self, seconds: float) -> None:
        """Marks the element as finished, last of all."""
        self.note(FINISHED)
        write_json(self.finished, {"seconds": seconds})

    def events(self) -> list[dict[str, Any]]:
        """Returns the attempts; a torn line is left out."""
        found = []
        for line in _lines(self.attempts):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def end(self, event: str, reason: str, rank: int = 0, **found: Any) -> None:
        """Notes how an attempt has ended, also in the log unless that is its last line."""
        self.note(event, reason=reason, rank=rank, **found)
        if _tail(self.log(rank))[-1:] not in ([], [reason]):
            with self.log(rank).open("a") as log:
                log.write(f"{event}: {reason}\n")

    def last_words(self, rank: int = 0, since: int = 0) -> str:
        """Returns the last error in a log from a byte on: ours, or of a traceback; else a line."""
        line, error, in_traceback = "", "", False
        for one in _tail(self.log(rank), since):
            line = re.sub(r"^\[rank\d+\]: ", "", one)
            if "Traceback (most recent call last)" in line:
                in_traceback = True
            elif line.startswith("error: ") or (in_traceback and not line[:1].isspace()):
                error, in_traceback = line, False
        return error or line

    def last_line(self) -> str:
        """Returns the last line of the log that says anything."""
        return "".join(_tail(self.log())[-1:])

    def starts(self) -> list[dict[str, Any]]:
        """Returns the start of each attempt."""
        return [event for event in self.events() if event["event"] == STARTED]

    def last_attempt(self) -> list[dict[str, Any]]:
        """Returns the events of the last attempt, of all its processes."""
        last = [(start.get("job"), start.get("restart")) for start in self.starts()[-1:]]
        return [one for one in self.events() if (one.get("job"), one.get("restart")) in last]

    def reason(self, event: str) -> str | None:
        """Returns why a process of the last attempt has failed, or was interrupted; None: not."""
        found = [one["reason"] for one in self.last_attempt() if one["event"] == event]
        return found[-1] if found else None

    def saved(self) -> int:
        """Returns the steps that an attempt would not make again, of all stages."""
        ledgers = [StageDirectory(self.root / name).compute for name in STAGES]
        return sum(json.loads(one.read_text())["steps"] for one in ledgers if one.is_file())

    def gives_up(self, **attempt: Any) -> bool:
        """Ends an element that is stuck, as failed; returns whether it is."""
        if not self.stuck():
            return False
        self.end(
            FAILED,
            f"interrupted {MOST_WITHOUT_PROGRESS} times in a row without getting past step "
            f"{self.saved()}, at last: {self.reason(INTERRUPTED)}",
            **attempt,
        )
        return True

    def stuck(self) -> bool:
        """Whether so many attempts in a row, since one failed, have saved no further step."""
        before: list[int] = []
        for event in self.events():
            if event["event"] == STARTED:
                before.append(event["saved"])
            elif event["event"] == FAILED:
                before = []
        few = len(before) < MOST_WITHOUT_PROGRESS
        return not few and self.saved() <= before[-MOST_WITHOUT_PROGRESS]

    def progress(self, *stages: str) -> dict[str, Any]:
        """Returns `step` and `loss` of the last of some stages, `flops` of them; None: unknown."""
        rows = [_last_row(StageDirectory(self.root / name).metrics) for name in stages or STAGES]
        known = [row for row in rows if row]
        if not known:
            return {"step": None, "loss": None, "flops": None}
        return {
            "step": int(known[-1]["step"]),
            "loss": float(known[-1]["loss"]),
            "flops": sum(int(float(row["flops"])) for row in known),
        }


def _lines(file: Path, since: int = 0) -> list[str]:
    """Returns the lines of a file that are not empty, from a byte on; none of a missing file."""
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        opened.seek(since)
        lines = opened.read().decode(errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _tail(file: Path, since: int = 0) -> list[str]:
    """Returns the last lines of a file that may be long."""
    size = file.stat().st_size if file.is_file() else 0
    return _lines(file, max(since, size - TAIL_BYTES))


def _last_row(metrics: Path) -> dict[str, str] | None:
    """Returns the last whole row of a `metrics.csv` without reading the others."""
    if not metrics.is_file():
        return None
    with metrics.open() as file:
        rows = csv.DictReader([file.readline(), *_tail(metrics)[-2:]])
    whole = [row for row in rows if None not in (*row, *row.values()) and row["step"].isdecimal()]
    return whole[-1] if whole else None
