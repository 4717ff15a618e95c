"""Deaths of a training process: when, in the middle of what, and what it does to the files."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from faults import Step, each_step

# In the middle of a step, of a checkpoint, of rows of metrics.csv, or before some file is opened
# or renamed.
PLACES = ("step",) * 7 + ("checkpoint",) * 7 + ("rows",) * 2 + ("file",) * 4
ONE_OF_EACH = tuple(dict.fromkeys(PLACES))
DAMAGES = ("torn", "flipped")
STEP_SECONDS = 0.05


class Death(NamedTuple):
    """A signal to one of the processes that train together.

    Attributes:
        stage: In which stage.
        step: From which of its steps on, counted from 1.
        place: One of `PLACES`.
        share: How far into the step, or into what is written, from 0 to 1.
        rank: Which process; the first one writes the files.
        number: The signal.
        damage: What becomes of the last checkpoint afterwards, as if power had been lost; None
            leaves it.
    """

    stage: str
    step: int
    place: str
    share: float
    rank: int
    number: signal.Signals
    damage: str | None


def draw_deaths(
    places: Sequence[str], seed: int, stages: dict[str, int], ranks: int = 1
) -> list[Death]:
    """Draws a kill for each place, and two requests to stop, over the steps of the stages in order.

    Args:
        places: In the middle of what each kill comes.
        seed: Seed of all that is drawn.
        stages: Steps of each.
        ranks: Processes that train together.
    """
    rng = random.Random(seed)
    kinds = [(place, signal.SIGKILL) for place in places]
    kinds += [("step", number) for number in (signal.SIGTERM, signal.SIGUSR2)]
    rng.shuffle(kinds)
    # The last steps are left out: something has to be left that a death can come into.
    moments = [(stage, step) for stage, last in stages.items() for step in range(1, last - 3)]
    chosen = sorted(rng.choices(range(len(moments)), k=len(kinds)))
    return [
        Death(
            *moments[moment],
            place,
            rng.random(),
            rng.randrange(ranks) if place == "step" else 0,
            number,
            rng.choice(DAMAGES) if rng.random() < 0.3 else None,
        )
        for moment, (place, number) in zip(chosen, kinds, strict=True)
    ]


def armed(death: Death | None, run_dir: Path) -> AbstractContextManager[None]:
    """Has this process die as described while it trains."""
    if death is None:
        return nullcontext()
    due = threading.Event()
    die = {
        "step": _in_a_step,
        "checkpoint": _in_a_checkpoint,
        "rows": _in_rows,
        "file": _at_a_file,
    }[death.place](death, due, run_dir)

    def watch(now: Step) -> None:
        if now.stage == death.stage and now.number >= death.step and not due.is_set():
            due.set()
            die()

    return each_step(watch)


def damage(checkpoint: Path, death: Death) -> None:
    """Tears a file at a place, or flips a bit there."""
    content = bytearray(checkpoint.read_bytes())
    place = int(death.share * (len(content) - 1))
    if death.damage == "torn":
        del content[place:]
    else:
        content[place] ^= 1 << place % 8
    checkpoint.write_bytes(content)


def _nothing() -> None:
    pass


def _in_a_step(death: Death, due: threading.Event, run_dir: Path) -> Any:
    def later() -> None:
        time.sleep(death.share * STEP_SECONDS)
        os.kill(os.getpid(), death.number)

    return lambda: threading.Thread(target=later).start()


def _in_a_checkpoint(death: Death, due: threading.Event, run_dir: Path) -> Any:
    save = torch.save

    def torn(state: Any, path: Path) -> None:
        whole = io.BytesIO()
        save(state, whole)
        if due.is_set():
            _write_part(path, whole.getvalue(), death)
        path.write_bytes(whole.getvalue())

    torch.save = torn
    return _nothing


def _in_rows(death: Death, due: threading.Event, run_dir: Path) -> Any:
    opened = Path.open

    def watched(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not due.is_set() or (path.name, mode) != ("metrics.csv", "a"):
            return opened(path, mode, *args, **kwargs)
        return _Torn(path, death)

    setattr(Path, "open", watched)  # noqa: B010
    return _nothing


class _Torn(io.StringIO):
    def __init__(self, path: Path, death: Death) -> None:
        super().__init__(newline="")
        self.path, self.death = path, death

    def __exit__(self, *_: object) -> None:
        before = self.path.read_bytes()
        _write_part(self.path, self.getvalue().encode(), self.death, before)


def _write_part(path: Path, content: bytes, death: Death, before: bytes = b"") -> None:
    path.write_bytes(before + content[: int(death.share * len(content))])
    os.kill(os.getpid(), death.number)


def _at_a_file(death: Death, due: threading.Event, run_dir: Path) -> Any:
    left = [int(death.share * 12)]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove") or not due.is_set():
            return
        reads = event == "open" and not any(c in str(arguments[1] or "r") for c in "wax+")
        if str(arguments[0]).startswith(str(run_dir)) and not reads:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), death.number)

    sys.addaudithook(hook)
    return _nothing
