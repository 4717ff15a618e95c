"""The folder of a study: all that any machine needs to say how it is, and to go on."""

from __future__ import annotations

import json
import os
import shutil
import time
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
from salt_plugin.studies.slurm_commands import SlurmError
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
        try:
            found: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            raise ConfigError(
                f"{self.root} is no study: {self.file.name} is missing or torn; name the folder "
                "that salt launch wrote (--out)"
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

    def check(self, elements: Sequence[Element]) -> None:
        """Checks that the folder is free, or holds a part of the same study.

        Elements may be added, and resources may change: they change how fast a study goes, not what
        it computes.

        Raises:
            ConfigError: It holds another study; lists what differs.
        """
        if not self.file.is_file():
            found = {one.name for one in self.root.iterdir()} if self.root.is_dir() else set()
            if found - {LOCK} and COMPARISON not in found:  # a comparison of an earlier version
                raise ConfigError(f"--out {self.root}: not empty, and no study; choose another")
            return
        now = {one.id: _settings(one) for one in elements}
        changed: dict[str, list[str]] = {}
        for one in self.elements():
            if one.id not in now:
                changed.setdefault("missing now", []).append(one.id)
                continue
            before, after = _settings(one), now[one.id]
            for key in sorted(before.keys() | after.keys()):
                was, is_ = before.get(key, "absent"), after.get(key, "absent")
                if was != is_:
                    changed.setdefault(f"{key} was {was} and is now {is_}", []).append(one.id)
        if changed:
            lines = [f"{what}: {_few(ids)}" for what, ids in changed.items()]
            raise ConfigError(
                f"{self.root} holds another study: {_few(lines, '; ', 5)}. Give the same values to "
                "go on with it, add values to its sweeps, or stages, or choose another --out"
            )

    @contextmanager
    def claimed(self, elements: Sequence[Element] | None = None) -> Iterator[None]:
        """Takes the folder; where the cluster refuses a launch, it is afterwards as it was.

        Args:
            elements: That it is to hold; it is checked again for them.

        Raises:
            ConfigError: Another process submits or runs it, it cannot be written to, or it holds
                another study.
        """
        missing = [one for one in (self.root, *self.root.parents) if not one.exists()]
        before = self._written()
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
            if elements is not None:
                self.check(elements)
            # A launch adds to the other files, or leaves them alone.
            contents = {one: one.read_bytes() for one in before if one.suffix in (".json", ".yaml")}
            try:
                yield
            except SlurmError:
                for path in self._written() - before:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)
                for path, content in contents.items():
                    path.write_bytes(content)
                for folder in missing:
                    with suppress(OSError):  # of another study by now
                        folder.rmdir()
                raise

    def _written(self) -> set[Path]:
        """Returns what is there of what a launch writes."""
        return {*self.root.glob("*"), *self.jobs.glob("*/*")}

    def worked_on_by(self) -> int | None:
        """Returns the process that has taken the folder; None where there is none."""
        return int((self.root / LOCK).read_text() or 0) if held(self.root) else None

    def write(
        self, config: PipelineConfig, cluster: ClusterConfig, elements: Sequence[Element]
    ) -> None:
        """Writes what is to be run, and a copy of the code that runs it, where there is none.

        Args:
            config: The pipeline.
            cluster: Where it runs.
            elements: Of the pipeline.
        """
        content = {
            "version": __version__,
            "cwd": os.getcwd(),
            "pipeline": asdict(config),
            "cluster": asdict(cluster),
            "elements": [one._asdict() for one in elements],
        }
        if self.file.is_file():
            content |= {key: self.stored()[key] for key in ("version", "cwd")}
        keep_code(self.code)
        text = yaml.safe_dump(content["pipeline"], sort_keys=False)
        write_text(self.root / "pipeline.yaml", text)
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


def _settings(element: Element) -> dict[str, str]:
    """Returns the arguments of an element by their keys."""
    parts = (argument.partition("=") for argument in element.arguments)
    return {key: value if equals else "given" for key, equals, value in parts}


def _few(texts: Sequence[str], between: str = ", ", most: int = 2) -> str:
    rest = f"{between}and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + rest
