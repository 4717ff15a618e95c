"""The folder of a study: all that any machine needs to tell how it goes, and to go on."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from salt_plugin import __version__
from salt_plugin.config import RunConfig
from salt_plugin.errors import ConfigError
from salt_plugin.files import write_json, write_text
from salt_plugin.studies.attempts import ElementDirectory
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig
from salt_plugin.studies.snapshot import commit, copy_code
from salt_plugin.run_directory import flat

LOCK = ".lock"


class Submission(NamedTuple):
    """A job that was submitted.

    Attributes:
        job: Its id.
        stage: Whose elements it runs.
        elements: Their ids; of more than one, the job is an array in this order.
        dependency: As Slurm was told, or an empty text.
    """

    job: str
    stage: str
    elements: list[str]
    dependency: str

    def jobs(self) -> dict[str, str]:
        """Returns the id of the job of each element."""
        if len(self.elements) == 1:
            return {self.elements[0]: self.job}
        return {element: f"{self.job}_{n}" for n, element in enumerate(self.elements)}


class Study:
    """`study.json`, `pipeline.yaml`, `code/`, `jobs/`, and a folder for each stage and element.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "study.json"
        self.pipeline = root / "pipeline.yaml"
        self.configs = root / "configs"
        self.code = root / "code"
        self.jobs = root / "jobs"
        self.submitted = root / "submissions.jsonl"
        self._lock: IO[str] | None = None

    def element(self, element: Element) -> ElementDirectory:
        """Returns the folder of an element."""
        return ElementDirectory(self.root / element.id)

    def finished(self, element: Element) -> bool:
        """Whether an element is over and has its result."""
        return self.element(element).finished.is_file()

    def stored(self) -> dict[str, Any]:
        """Returns what `study.json` holds: `pipeline`, `cluster`, `elements`, `cwd`, `version`.

        Raises:
            ConfigError: The folder holds no study.
        """
        try:
            found: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            raise ConfigError(
                f"{self.root} is no study: {self.file.name} is missing or torn; name the folder "
                "that salt launch wrote (--out)"
            ) from None
        return found

    def elements(self) -> list[Element]:
        """Returns the elements, stage by stage."""
        return [Element(**one) for one in self.stored()["elements"]]

    def check(self, config: PipelineConfig, elements: Sequence[Element]) -> None:
        """Checks that the folder is free, or holds the same study.

        Raises:
            ConfigError: It holds another one; lists what differs.
        """
        if not self.file.is_file():
            if self.root.is_dir() and {one.name for one in self.root.iterdir()} - {LOCK}:
                raise ConfigError(f"--out {self.root}: not empty, and no study; choose another")
            return
        stored = self.stored()
        before = flat(stored["pipeline"]) | {
            f"{e['stage']}/{e['name']}": e["arguments"] for e in stored["elements"]
        }
        now = flat(asdict(config)) | {one.id: one.arguments for one in elements}
        # Resources change how fast a study goes, not what it computes.
        changed = [
            f"{key} was {before.get(key, 'absent')!r} and is now {now.get(key, 'absent')!r}"
            for key in sorted(before.keys() | now.keys())
            if ".resources" not in key and before.get(key, "absent") != now.get(key, "absent")
        ]
        if changed:
            shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" * (len(changed) > 5))
            raise ConfigError(
                f"{self.root} holds another study: {shown}. Give the same values to continue it, "
                "or another --out"
            )

    def claim(self) -> None:
        """Takes the folder until `release` or the end of the process.

        Raises:
            ConfigError: Another process submits or runs it, or it cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / LOCK).open("a+")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process works on {self.root} (salt launch, retry or cancel); wait for it"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be written to ({error.strerror})") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def worked_on_by(self) -> int | None:
        """Returns the process that has taken the folder; None where there is none."""
        try:
            with (self.root / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int((self.root / LOCK).read_text() or 0)
        except OSError:
            pass
        return None

    def release(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()

    def write(
        self,
        config: PipelineConfig,
        cluster: ClusterConfig,
        elements: Sequence[Element],
        composed: Mapping[str, RunConfig],
    ) -> None:
        """Writes what is to be run, and a copy of the code that runs it, where there is none.

        Args:
            config: The pipeline.
            cluster: Where it runs.
            elements: Of the pipeline.
            composed: A configuration of each stage that trains.
        """
        before = self.stored() if self.file.is_file() else None
        if not self.code.is_dir():
            copy_code(self.code)
        self.configs.mkdir(exist_ok=True)
        for stage, one in composed.items():
            text = yaml.safe_dump(asdict(one), sort_keys=False)
            write_text(self.configs / f"{stage}.yaml", text)
        write_text(self.pipeline, yaml.safe_dump(asdict(config), sort_keys=False))
        content = {
            "version": before["version"] if before else __version__,
            "commit": before["commit"] if before else commit(),
            "cwd": before["cwd"] if before else os.getcwd(),
            "pipeline": asdict(config),
            "cluster": asdict(cluster),
            "elements": [one._asdict() for one in elements],
        }
        write_json(self.file, content)

    def submissions(self) -> list[Submission]:
        """Returns the jobs that were submitted, in order."""
        if not self.submitted.is_file():
            return []
        rows = [json.loads(line) for line in self.submitted.read_text().splitlines()]
        return [Submission(**{name: row[name] for name in Submission._fields}) for row in rows]

    def add_submission(self, submission: Submission) -> None:
        """Notes a job, at once: one that is not noted cannot be cancelled."""
        row = submission._asdict() | {"time": round(time.time(), 3)}
        with self.submitted.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def job_of(self) -> dict[str, str]:
        """Returns the last job of each element that had one."""
        found: dict[str, str] = {}
        for submission in self.submissions():
            found |= submission.jobs()
        return found
