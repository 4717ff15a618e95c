"""The folder of a study: all that any machine needs to say how it is, and to go on."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from salt_plugin import __version__
from salt_plugin.config.typed import typed
from salt_plugin.errors import ConfigError
from salt_plugin.files import LOCK, held, hold, write_json, write_text
from salt_plugin.studies.attempts import ElementDirectory
from salt_plugin.studies.cluster import ClusterConfig, profile_from
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig
from salt_plugin.studies.snapshot import keep_code

COMPARISON = "compare.yaml"


class Submission(NamedTuple):
    """A job that was submitted.

    Attributes:
        job: Its id.
        stage: Whose elements it runs.
        elements: Their ids; of more than one, the job is an array in this order.
        dependency: As sbatch was given it, or an empty text.
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
        self.code = root / "code"
        self.jobs = root / "jobs"
        self.submitted = root / "submissions.jsonl"
        self._planned: dict[str, Any] = {}
        self._files: dict[str, str] = {}

    def element(self, element: Element) -> ElementDirectory:
        """Returns the folder of an element."""
        return ElementDirectory(self.root / element.id)

    def early_log(self, stage: str, job: str) -> Path:
        """Returns where submitit leaves what a job says before its element starts."""
        return self.jobs / stage / f"{job}_0_log.err"

    def finished(self, element: Element) -> bool:
        """Whether an element is over and has its result."""
        return self.element(element).finished.is_file()

    def stored(self) -> dict[str, Any]:
        """Returns what `study.json` holds: `pipeline`, `cluster`, `elements`, `cwd`, `version`.

        Raises:
            ConfigError: The folder holds no study.
        """
        if self._planned:
            return self._planned
        try:
            found: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            raise ConfigError(
                f"{self.root} is no study: {self.file.name} is missing or torn; name the folder "
                "that salt launch wrote (--out), or to salt status also one of a run"
            ) from None
        return found

    def pipeline(self) -> PipelineConfig:
        """Returns the pipeline that was launched."""
        found: PipelineConfig = typed(PipelineConfig, self.stored()["pipeline"], "pipeline.")
        return found

    def cluster(self) -> ClusterConfig:
        """Returns the profile of the last launch."""
        return profile_from(self.stored()["cluster"])

    def elements(self) -> list[Element]:
        """Returns the elements, stage by stage."""
        return [Element(**one) for one in self.stored()["elements"]]

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Takes the folder; one that is made for it, and not written to, is removed again.

        Raises:
            ConfigError: Another process submits or runs it, or it cannot be written to.
        """
        made = [one for one in (self.root, *self.root.parents) if not one.exists()]
        try:
            lock = hold(self.root)
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be written to ({error.strerror})") from None
        if lock is None:
            raise ConfigError(
                f"another process works on {self.root} (salt launch, compare, retry or cancel); "
                "wait for it, or choose another --out"
            )
        with lock:
            try:
                yield
            finally:
                if made and not self.file.is_file():
                    (self.root / LOCK).unlink(missing_ok=True)
                    for folder in made:
                        with suppress(OSError):  # of another study by now
                            folder.rmdir()

    def worked_on_by(self) -> int | None:
        """Returns the process that has taken the folder; None where there is none."""
        return int((self.root / LOCK).read_text() or 0) if held(self.root) else None

    def plan(
        self,
        config: PipelineConfig,
        cluster: ClusterConfig,
        elements: Sequence[Element],
        **files: str,
    ) -> None:
        """Sets what is to be run; `write` writes it.

        Args:
            config: The pipeline.
            cluster: Where it runs.
            elements: Of the pipeline. Those of the same study in the folder have to be among them.
            **files: Further files of the folder, by what comes before `.yaml`.

        Raises:
            ConfigError: The folder holds something else; lists what differs.
        """
        content = {"version": __version__, "cwd": os.getcwd()}
        if self.file.is_file():
            self._check(elements)
            content = {key: self.stored()[key] for key in content}
        else:
            found = {one.name for one in self.root.iterdir()} if self.root.is_dir() else set()
            # A launch that was killed has left some; a comparison may be of an earlier version.
            if found - {LOCK, self.jobs.name} and COMPARISON not in found:
                raise ConfigError(f"--out {self.root}: not empty, and no study; choose another")
        pipeline = asdict(config)
        self._files = {"pipeline": yaml.safe_dump(pipeline, sort_keys=False), **files}
        self._planned = content | {
            "pipeline": pipeline,
            "cluster": asdict(cluster),
            "elements": [one._asdict() for one in elements],
        }

    def _check(self, elements: Sequence[Element]) -> None:
        """Checks that all elements of the study in the folder are among these.

        Resources may change: they change how fast a study goes, not what it computes.
        """
        now = {one.id: _settings(one) for one in elements}
        changed: dict[str, list[str]] = defaultdict(list)
        for one in self.elements():
            if one.id not in now:
                changed["missing now"].append(one.id)
                continue
            before, after = _settings(one), now[one.id]
            for key in sorted(before.keys() | after.keys()):
                was, is_ = before.get(key, "absent"), after.get(key, "absent")
                if was != is_:
                    changed[f"{key} was {was} and is now {is_}"].append(one.id)
        if changed:
            lines = [f"{what}: {_few(ids)}" for what, ids in changed.items()]
            raise ConfigError(
                f"{self.root} holds another study: {_few(lines, '; ', 5)}. Give the same values to "
                "go on with it, add values to its sweeps, or stages, or choose another --out"
            )

    def write(self) -> None:
        """Writes what was planned, and a copy of the code that runs it, where there is none."""
        if self._planned:
            keep_code(self.code)
            for name, text in self._files.items():
                write_text(self.root / f"{name}.yaml", text)
            write_json(self.file, self._planned)

    def submissions(self) -> list[Submission]:
        """Returns the jobs that were submitted, in order."""
        if not self.submitted.is_file():
            return []
        rows = [json.loads(line) for line in self.submitted.read_text().splitlines()]
        return [Submission(**{name: row[name] for name in Submission._fields}) for row in rows]

    def last_jobs(self) -> dict[str, str]:
        """Returns the id of the last job of each element that had one."""
        return {element: job for one in self.submissions() for element, job in one.jobs().items()}

    def add_submission(self, submission: Submission) -> None:
        """Notes a job, at once: one that is not noted cannot be cancelled."""
        row = submission._asdict() | {"time": round(time.time(), 3)}
        with self.submitted.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _settings(element: Element) -> dict[str, str]:
    """Returns the arguments of an element by their keys."""
    parts = (argument.partition("=") for argument in element.arguments)
    return {key: value if equals else "given" for key, equals, value in parts}


def _few(texts: Sequence[str], between: str = ", ", most: int = 2) -> str:
    rest = f"{between}and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + rest
