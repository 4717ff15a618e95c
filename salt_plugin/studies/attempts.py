"""The folder of an element, and what is known of its attempts."""

from __future__ import annotations

import csv
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from salt_plugin.files import write_json
from salt_plugin.stage_directory import StageDirectory

STARTED, FINISHED, FAILED, INTERRUPTED = "started", "finished", "failed", "interrupted"

# So many attempts in a row that saved no further step end an element: it would go round for ever.
MOST_WITHOUT_PROGRESS = 5

TAIL_BYTES = 4096
LOG_TAIL_BYTES = 65_536


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
        try:
            lines = self.attempts.read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def end(self, event: str, reason: str, rank: int = 0, **found: Any) -> None:
        """Notes how an attempt has ended, and says so in the log, where that does not end so."""
        self.note(event, reason=reason, rank=rank, **found)
        if self._last_lines(rank)[-1:] not in ([], [reason]):
            with self.log(rank).open("a") as log:
                log.write(f"{event}: {reason}\n")

    def last_words(self, rank: int = 0, since: int = 0) -> str:
        """Returns the last error in a log from a byte on: ours, or of a traceback; else a line."""
        line, error, in_traceback = "", "", False
        for one in self._last_lines(rank, since):
            line = re.sub(r"^\[rank\d+\]: ", "", one)
            if "Traceback (most recent call last)" in line:
                in_traceback = True
            elif line.startswith("error: ") or (in_traceback and not line[:1].isspace()):
                error, in_traceback = line, False
        return error or line

    def last_line(self) -> str:
        """Returns the last line of the log that says anything."""
        return "".join(self._last_lines(0)[-1:])

    def _last_lines(self, rank: int, since: int = 0) -> list[str]:
        try:
            with self.log(rank).open("rb") as file:
                file.seek(max(since, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def last_attempt(self) -> list[dict[str, Any]]:
        """Returns what has happened since the last attempt was started, its start first."""
        events = self.events()
        starts = [n for n, event in enumerate(events) if event["event"] == STARTED]
        if not starts:
            return []
        start, after = events[starts[-1]], events[starts[-1] + 1 :]
        # Another process of the job may have ended before the first one noted its start.
        early = [
            one
            for one in events[: starts[-1]]
            if start["job"] is not None
            and one["event"] != STARTED
            and (one.get("job"), one.get("restart")) == (start["job"], start["restart"])
        ]
        return [start, *early, *after]

    def reason(self, event: str) -> str | None:
        """Returns why a process of the last attempt has failed, or was interrupted; None: not."""
        found = [one["reason"] for one in self.last_attempt() if one["event"] == event]
        return found[-1] if found else None

    def saved(self) -> int:
        """Returns the steps that an attempt would not make again, of all stages."""
        steps = 0
        for name in _STAGES:
            ledger = StageDirectory(self.root / name).compute
            steps += json.loads(ledger.read_text())["steps"] if ledger.is_file() else 0
        return steps

    def gives_up(self, job: str | None = None) -> bool:
        """Ends an element that is stuck, as failed; returns whether it is."""
        if not self.stuck():
            return False
        self.end(
            FAILED,
            f"interrupted {MOST_WITHOUT_PROGRESS} times in a row without getting past step "
            f"{self.saved()}, at last: {self.reason(INTERRUPTED)}",
            job=job,
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
        rows = [_last_row(StageDirectory(self.root / name).metrics) for name in stages or _STAGES]
        known = [row for row in rows if row]
        if not known:
            return {"step": None, "loss": None, "flops": None}
        last = known[-1]
        return {
            "step": int(last["step"]),
            "loss": float(last["loss"]),
            "flops": sum(int(float(row["flops"])) for row in known),
        }


_STAGES = ("teacher", "student")


def _last_row(metrics: Path) -> dict[str, str] | None:
    """Returns the last whole row of a `metrics.csv` without reading the others."""
    try:
        with metrics.open("rb") as file:
            header = file.readline()
            file.seek(max(len(header), os.fstat(file.fileno()).st_size - TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None
    lines = tail[: tail.rfind(b"\n") + 1].decode(errors="replace").splitlines()
    names = next(csv.reader([header.decode()]), [])
    for line in reversed(lines):
        cells = next(csv.reader([line]), [])
        row = dict(zip(names, cells, strict=False))
        if len(cells) == len(names) and row.get("step", "").isdecimal():
            return row
    return None
