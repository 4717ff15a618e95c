"""A study on this machine: elements as processes, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from salt_plugin.report.study_tables import Lines
from salt_plugin.studies.attempts import FAILED, FINISHED, INTERRUPTED
from salt_plugin.studies.elements import Element
from salt_plugin.studies.study import Study
from salt_plugin.studies.worker import Attempt

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0


def run_here(
    study: Study,
    selected: Collection[str],
    lines: Lines,
    ended: Callable[[Element], None] | None = None,
) -> dict[str, str]:
    """Runs elements, each after those it waits for; elements of late stages come first.

    Args:
        study: The study, claimed. `array_parallelism` elements run at a time and share the threads
            of the machine.
        selected: Ids of the elements to be run.
        lines: A line for each as it starts and ends.
        ended: Called with each that was finished.

    Returns:
        The reason of each element that failed, or that is based on one.
    """
    profile, stages = study.cluster(), study.pipeline().stages
    elements = study.elements()
    by_id = {one.id: one for one in elements}
    late_first = sorted(elements, key=lambda one: -list(stages).index(one.stage))
    waiting: dict[str, Element] = {}
    for one in late_first:  # what each is based on before it
        chain = [one]
        while (parent := chain[-1].parent) is not None:
            chain.append(by_id[parent])
        waiting |= {each.id: each for each in reversed(chain) if each.id in selected}
    needs: dict[str, list[str]] = {}
    for name, one in waiting.items():
        after = stages[one.stage].after
        needs[name] = [each.id for each in elements if each.stage in after or each.id == one.parent]
    threads = str(threads_of_each(profile.array_parallelism))
    running: dict[str, Attempt] = {}
    failed: dict[str, str] = {}

    def start(name: str) -> None:
        running[name] = Attempt(study, by_id[name], profile.command, OMP_NUM_THREADS=threads)

    def fail(name: str, reason: str) -> None:
        failed[name] = reason
        lines.failed(name, reason)

    try:
        while waiting or running:
            for name, one in list(waiting.items()):
                if len(running) == profile.array_parallelism:
                    break
                if any(each in waiting or each in running for each in needs[name]):
                    continue
                del waiting[name]
                if one.parent is not None and not study.finished(by_id[one.parent]):
                    fail(name, f"needs {one.parent}, which is not finished")
                    continue
                lines.started(name)
                start(name)
            time.sleep(POLL_SECONDS if running else 0)
            over = [name for name, one in running.items() if one.process.poll() is not None]
            for name in over:
                attempt = running.pop(name)
                event, reason = attempt.ended()
                if event == INTERRUPTED and not attempt.files.gives_up(**attempt.id):
                    start(name)
                elif event == FINISHED:
                    lines.finished(name, time.monotonic() - attempt.began)
                    if ended is not None:
                        ended(by_id[name])
                else:
                    fail(name, attempt.files.reason(FAILED) or reason)
            lines.running({name: one.files.last_line() for name, one in running.items()})
    finally:
        _end(list(running.values()))
    return failed


def threads_of_each(at_once: int) -> int:
    """Returns how many threads a process gets: its share of OMP_NUM_THREADS, or of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal():
        return max(1, int(given) // at_once)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // at_once)


def _end(attempts: Sequence[Attempt]) -> None:
    """Ends processes and what they have started; those that take too long are killed."""
    for one in attempts:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for one in attempts:
        try:
            one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
        one.ended(signal.SIGTERM)
