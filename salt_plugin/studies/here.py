"""A study on this machine: elements as processes, several at a time, or in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Protocol

from salt_plugin.studies.cluster import DEBUG, ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig
from salt_plugin.studies.slurm import work_of
from salt_plugin.studies.study import Study
from salt_plugin.studies.worker import (
    DIE_WITH_PARENT,
    SAFE_PATH,
    TO_BE_CONTINUED,
    ElementFailedError,
    InterruptedElementError,
    arguments_of,
    work_once,
)

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0


class Reporter(Protocol):
    """Told how elements go."""

    def started(self, element: str) -> None:
        """An element was started."""

    def running(self, states: Mapping[str, str]) -> None:
        """Elements at work, each with what it said last; called several times a second."""

    def finished(self, element: str, seconds: float) -> None:
        """An element has finished in this time."""

    def failed(self, element: str, reason: str) -> None:
        """An element has failed, or needs one that has."""


def run_here(
    study: Study,
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str],
    profile: ClusterConfig,
    reporter: Reporter,
) -> dict[str, str]:
    """Runs elements, each after those it waits for; what others wait for late stages comes first.

    Args:
        study: The study, claimed.
        config: Its pipeline.
        elements: All, in the order of its stages.
        selected: Ids of those to be run.
        profile: `array_parallelism` of them run at a time and share the threads of the machine.
        reporter: Told how they go.

    Returns:
        The reason of each element that failed, or that is based on one.
    """
    graph = _graph(config, elements, selected)
    by_id = {one.id: one for one in elements}
    place = {one.id: (-list(config.stages).index(one.stage), n) for n, one in enumerate(elements)}
    cwd = study.stored()["cwd"]
    ready: list[Element] = []
    running: dict[str, subprocess.Popen[bytes]] = {}
    began: dict[str, float] = {}
    failed: dict[str, str] = {}

    def start(one: Element) -> None:
        work = work_of(one, study, profile, cwd)
        if profile.kind != DEBUG:
            log = study.element(one).log()
            running[one.id] = _process(arguments_of(work), log, profile.array_parallelism)
            return
        with suppress(ElementFailedError, InterruptedElementError):
            work_once(work, in_process=True)
        end(one)

    def end(one: Element) -> None:
        files = study.element(one)
        if files.finished.is_file():
            reporter.finished(one.id, time.monotonic() - began[one.id])
        else:
            said = [str(event["reason"]) for event in files.events() if "reason" in event]
            failed[one.id] = said[-1] if said else files.last_words()
            reporter.failed(one.id, failed[one.id])
        graph.done(one.id)

    try:
        while graph.is_active():
            ready += [by_id[one] for one in graph.get_ready()]
            ready.sort(key=lambda one: place[one.id])
            while ready and len(running) < profile.array_parallelism:
                one = ready.pop(0)
                if one.parent is not None and not study.finished(by_id[one.parent]):
                    failed[one.id] = f"needs {one.parent}, which is not finished"
                    reporter.failed(one.id, failed[one.id])
                    graph.done(one.id)
                    continue
                began[one.id] = time.monotonic()
                reporter.started(one.id)
                start(one)
            time.sleep(POLL_SECONDS if running else 0)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code, files = running.pop(name).returncode, study.element(by_id[name])
                if code == TO_BE_CONTINUED and not files.gives_up():
                    start(by_id[name])
                else:
                    end(by_id[name])
            reporter.running({name: study.element(by_id[name]).last_line() for name in running})
    finally:
        _end(list(running.values()))
    return failed


def threads_of_each(at_once: int) -> int:
    """Returns how many threads a process gets: its share of OMP_NUM_THREADS, or of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() else _cores()
    return max(1, threads // at_once)


def _graph(
    config: PipelineConfig, elements: Sequence[Element], selected: Collection[str]
) -> TopologicalSorter[str]:
    graph: TopologicalSorter[str] = TopologicalSorter()
    for one in elements:
        if one.id in selected:
            after = [each.id for each in elements if each.stage in config.stages[one.stage].after]
            needs = [one.parent] if one.parent is not None else []
            graph.add(one.id, *(each for each in [*needs, *after] if each in selected))
    graph.prepare()
    return graph


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _process(arguments: Sequence[str], log: Path, at_once: int) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [*DIE_WITH_PARENT, sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | SAFE_PATH | {"OMP_NUM_THREADS": str(threads_of_each(at_once))},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
        )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes and what they have started; those that take too long are killed."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
