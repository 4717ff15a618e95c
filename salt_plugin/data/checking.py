"""Many files checked at once, each in a process of its own, and the lists that come of it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from salt_plugin.data.sources import VideoList
from salt_plugin.files import write_csv, write_text
from salt_plugin.video.check import Verdict, check_video
from salt_plugin.video.time_limit import heard_by

Result = TypeVar("Result")

# Seconds between two signs of life of a process.
_SECOND = 0.5


def check_videos(
    paths: list[str],
    *,
    reader: str,
    positions: int,
    seed: int,
    workers: int,
    timeout: float,
    done: Callable[[], None],
) -> list[Verdict]:
    """Checks files in parallel; one that hangs or kills its process is a verdict like others.

    Args:
        paths: The files.
        reader: As of `check_video`.
        positions: Frames to compare in each file.
        seed: Draws them.
        workers: Processes at a time, at least 1.
        timeout: Seconds without a packet or a frame after which a file is given up.
        done: Called after each file.

    Returns:
        The verdicts, in the order of the files, copies of earlier ones marked.
    """

    def check(path: str) -> Verdict:
        work = partial(check_video, path, reader, positions, seed)
        try:
            return apart(work, timeout, lambda reason: Verdict(path, reason=reason))
        finally:
            done()

    with ThreadPoolExecutor(workers) as pool:
        return _with_copies(list(pool.map(check, paths)))


def apart(work: Callable[[], Result], timeout: float, failed: Callable[[str], Result]) -> Result:
    """Reads a file in a process of its own, which may hang or be killed by it.

    Args:
        work: Reads it; it is pickled, and so is what it returns.
        timeout: Seconds without a packet or a frame after which the file is given up.
        failed: Makes what is returned then, of the reason.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["salt_plugin.video.check", "salt_plugin.video.conversion"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    try:
        while ours.poll(timeout):
            result: Result | None = ours.recv()
            if result is not None:
                return result
        return failed(f"not read within {timeout:g} s")
    except EOFError:
        process.join(timeout)
        return failed(f"reading it kills the process ({process.exitcode})")
    finally:
        process.kill()
        process.join()
        ours.close()


def write_lists(
    videos: VideoList, verdicts: list[Verdict], clean: Path | None, quarantine: Path | None
) -> None:
    """Writes the good files as a list that training reads, and the others with their reasons.

    Args:
        videos: What was checked.
        verdicts: One for each, in order.
        clean: Where to, lines `path label`; None writes none.
        quarantine: Where to, a CSV `path,reason`; None writes none.
    """
    if clean is not None:
        pairs = zip(verdicts, videos.labels, strict=True)
        write_text(clean, "".join(f"{v.path} {label}\n" for v, label in pairs if v.reason is None))
    if quarantine is not None:
        bad = [{"path": v.path, "reason": v.reason} for v in verdicts if v.reason is not None]
        write_csv(quarantine, ("path", "reason"), bad)


def _report(connection: Connection, work: Callable[[], Any]) -> None:
    """Sends the result, and None now and then while the file is being read."""
    said = time.monotonic()

    def alive() -> None:
        nonlocal said
        if time.monotonic() - said > _SECOND:
            connection.send(None)
            said = time.monotonic()

    with heard_by(alive):
        connection.send(work())


def _with_copies(verdicts: list[Verdict]) -> list[Verdict]:
    """Marks copies of earlier files, and files that no list can name."""
    first: dict[str, str] = {}
    marked = []
    for verdict in verdicts:
        path = verdict.path
        if verdict.reason is None and (path != path.strip() or {"\n", "\r"} & set(path)):
            verdict = replace(verdict, reason="a list cannot hold its name: rename the file")
        elif verdict.reason is None and first.setdefault(str(verdict.content), path) != path:
            verdict = replace(verdict, copy_of=first[str(verdict.content)])
        marked.append(verdict)
    return marked
