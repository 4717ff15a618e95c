"""The folder of an element, and what is known of its attempts."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

from salt_plugin.files import write_json

STARTED, FINISHED, FAILED, INTERRUPTED = "started", "finished", "failed", "interrupted"

# So many attempts in a row that got no further end an element: it would go round for ever.
MOST_WITHOUT_PROGRESS = 5

TAIL_BYTES = 4096


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

    def stuck(self) -> bool:
        """Whether the last attempts, since one failed, were interrupted and got no further."""
        steps: list[int] = []
        for event in self.events():
            if event["event"] == INTERRUPTED:
                steps.append(event["step"])
            elif event["event"] == FAILED:
                steps = []
        last = steps[-MOST_WITHOUT_PROGRESS:]
        return len(last) == MOST_WITHOUT_PROGRESS and max(last) <= last[0]

    def failure(self) -> str | None:
        """Returns why a process of the last attempt has failed; None where none has."""
        for event in reversed(self.events()):
            if event["event"] == FAILED:
                return str(event["reason"])
            if event["event"] == STARTED:
                break
        return None

    def progress(self, *stages: str) -> dict[str, Any]:
        """Returns `step` and `loss` of the last of some stages, `flops` of them; None: unknown."""
        from salt_plugin.run_directory import StageDirectory  # elements start without it

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


def last_line(log: Path) -> str:
    """Returns the last line of a log that says anything."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
