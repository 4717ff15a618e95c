"""Elements as processes of this machine: order, threads, and that none is left behind."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from salt_plugin.studies.attempts import ElementDirectory
from salt_plugin.studies.cluster import cluster_config
from salt_plugin.studies.elements import Element
from salt_plugin.studies.local import run_here, threads_of_each
from salt_plugin.studies.pipeline import PipelineConfig, StageConfig
from salt_plugin.studies.study import Study

# Stands for Python in an element: runs its first argument as code.
PYTHON = "import os, sys; exec(sys.argv[3])"


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def started(self, element: str) -> None:
        self.said.append(f"{element} started")

    def running(self, states: Mapping[str, str]) -> None:
        pass

    def finished(self, element: str, seconds: float) -> None:
        self.said.append(f"{element} finished")

    def failed(self, element: str, reason: str) -> None:
        self.said.append(f"{element} failed")


def element(stage: str, name: str, code: str, parent: str | None = None) -> Element:
    return Element(stage, name, {}, parent, "-", [code])


def run(
    root: Path, elements: Sequence[Element], at_once: int = 1, reporter: Quiet | None = None
) -> dict[str, str]:
    study = Study(root / "study")
    stages = {one.stage: StageConfig() for one in elements}
    if "last" in stages:
        stages["last"].after = [stage for stage in stages if stage != "last"]
    config = PipelineConfig(name="tiny", stages=stages)
    (root / "python.py").write_text(PYTHON)
    python = f"{sys.executable} -S {root / 'python.py'}"
    profile = cluster_config("local", {"array_parallelism": at_once, "python": python})
    study.plan(config, profile, elements)
    study.write()
    selected = {one.id for one in elements}
    return run_here(study, selected, reporter or Quiet())


def test_what_others_need_comes_first_and_late_stages_before_early_ones(tmp_path: Path) -> None:
    elements = [
        element("train", "a", "pass"),
        element("train", "b", "sys.exit(1)"),
        element("probe", "a", "pass", "train/a"),
        element("probe", "b", "pass", "train/b"),
        element("last", "all", "pass"),
    ]
    reporter = Quiet()
    failed = run(tmp_path, elements, reporter=reporter)
    assert failed.keys() == {"train/b", "probe/b"}
    assert failed["probe/b"] == "needs train/b, which is not finished"
    assert reporter.said == [
        *("train/a started", "train/a finished", "probe/a started", "probe/a finished"),
        *("train/b started", "train/b failed", "probe/b failed"),
        *("last/all started", "last/all finished"),
    ]


def test_what_is_based_on_its_own_stage_keeps_its_place(tmp_path: Path) -> None:
    elements = [
        element("train", "a", "pass"),
        element("train", "b", "pass", "train/a"),
        element("train", "c", "pass"),
        *(element("probe", name, "pass", f"train/{name}") for name in "abc"),
    ]
    reporter = Quiet()
    assert run(tmp_path, elements, reporter=reporter) == {}
    order = [one.split()[0] for one in reporter.said if "started" in one]
    assert order == [f"{stage}/{name}" for name in "abc" for stage in ("train", "probe")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('first'); sys.exit('error: no luck\\n\\n')", "error: no luck"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failure_is_told_and_stops_no_other(tmp_path: Path, code: str, reason: str) -> None:
    elements = [element("train", "a", code), element("train", "b", "pass")]
    failed = run(tmp_path, elements, 2)
    assert failed.keys() == {"train/a"}
    assert re.fullmatch(reason, failed["train/a"])


def test_elements_at_a_time_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    write = f"open({str(tmp_path / 'threads')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"
    assert run(tmp_path, [element("train", "a", write)], 2) == {}
    assert (tmp_path / "threads").read_text() == "2"
    assert threads_of_each(9) == 1


def test_an_interruption_ends_the_processes_and_what_they_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        f"import signal; child = os.fork(); child and open({str(pids)!r}, 'w')"
        ".write(f'{os.getpid()} {child}'); signal.pause()"
    )

    class Impatient(Quiet):
        def running(self, states: Mapping[str, str]) -> None:
            if pids.exists() and len(pids.read_text().split()) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [element("train", "a", code)], reporter=Impatient())
    time.sleep(0.2)
    for pid in map(int, pids.read_text().split()):
        assert not _at_work(pid)


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    files = ElementDirectory(tmp_path)
    assert files.last_line() == ""
    files.log().write_bytes(b"x" * 100_000 + b"\nlast \xff line\n \n")
    assert files.last_line() == "last � line"


def _at_work(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc").is_dir():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return stat.is_file() and stat.read_text().split()[2] != "Z"
