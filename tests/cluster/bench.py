"""One study on the test cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from salt_plugin.studies.states import ACTIVE, Row, counts, rows_of
from salt_plugin.studies.study import Study
from tests.cluster.slurm import Cluster

HERE = Path(__file__).parent
SECONDS = 150.0

PIPELINE = """\
name: tiny
overrides: [preset=demo, trainer.max_steps=4]
stages:
  teacher:
    method: pixel_teacher
    sweep: ["seed=1,2"]
  student:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={teacher}"]
    sweep: ["seed=1,2"]
  probe:
    command: probe
    needs: student
    overrides: ["{student}", --data, demo, --json]
  report:
    command: report
    after: [teacher, student, probe]
"""

ONE_STAGE = """\
name: one
overrides: [preset=demo, trainer.max_steps=%d]
stages:
  run: {method: pixel_teacher, sweep: ["seed=%s"]}
"""


class Bench:
    """One study on the cluster, whose runs are stubs.

    Args:
        cluster: Where it runs.
        root: A folder of the test.
    """

    def __init__(self, cluster: Cluster, root: Path) -> None:
        self.cluster = cluster
        self.study = Study(root / "study")
        self.pipeline = root / "tiny.yaml"
        self.profile = root / "cluster.yaml"
        self.control = root / "control"
        self.control.mkdir()
        self.fail()
        self.hungry()
        self.step_seconds(0.05)
        self.pipeline.write_text(PIPELINE)
        self.profile_keys()

    def profile_keys(self, **keys: object) -> None:
        stub = f"{sys.executable} {HERE / 'stub_python.py'}"
        values = {"kind": "slurm", "python": stub, "time": "0:20:00", "mem": "300M"} | keys
        self.profile.write_text(json.dumps(values))

    def fail(self, *elements: str) -> None:
        (self.control / "fail").write_text(" ".join(elements))

    def hungry(self, *elements: str) -> None:
        (self.control / "hungry").write_text(" ".join(elements))

    def step_seconds(self, seconds: float) -> None:
        (self.control / "seconds").write_text(str(seconds))

    def salt(
        self,
        *arguments: str,
        status: int = 0,
        before: tuple[str, ...] = (),
        seconds: float = SECONDS,
        **environment: str,
    ) -> str:
        """Returns what `salt` prints; `before` is a command that it is given to."""
        done = subprocess.run(
            [*before, sys.executable, "-m", "salt_plugin.cli", *arguments],
            env=self.cluster.environment | {"SALT_STUB": str(self.control)} | environment,
            cwd=self.pipeline.parent,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def launch(self, *changes: str, status: int = 0, **environment: str) -> str:
        given = [str(self.pipeline), f"cluster={self.profile}", "--out", str(self.study.root)]
        return self.salt("launch", *given, *changes, status=status, **environment)

    def rows(self) -> dict[str, Row]:
        return {row.id: row for row in rows_of(self.study)[0]}

    def until(
        self, condition: Callable[[dict[str, Row]], bool], seconds: float = SECONDS
    ) -> dict[str, Row]:
        deadline = time.monotonic() + seconds
        while not condition(rows := self.rows()):
            if time.monotonic() > deadline:
                listed = "\n".join(map(str, rows.values()))
                raise AssertionError(f"waited {seconds:g} s for a study:\n{listed}")
            time.sleep(0.5)
        return rows

    def ended(self) -> dict[str, Row]:
        return self.until(lambda rows: not any(row.state in ACTIVE for row in rows.values()))

    def counts(self) -> dict[str, int]:
        return counts(list(self.rows().values()))

    def losses(self, element: str) -> list[float]:
        (saved,) = (self.study.root / element).glob("*/saved.json")
        found: list[float] = json.loads(saved.read_text())
        return found
