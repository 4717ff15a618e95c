"""A launch that the cluster refuses leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from salt_plugin.studies.ask import SlurmError
from salt_plugin.studies.elements import Element
from salt_plugin.studies.study import Study


@contextmanager
def claimed(study: Study, elements: Sequence[Element] | None = None) -> Iterator[None]:
    """Takes the folder of a study; where the cluster refuses, it is afterwards as it was.

    Args:
        study: The study.
        elements: What it is to hold.

    Raises:
        ConfigError: Another process works on it, or it holds another study.
    """
    missing = [one for one in (study.root, *study.root.parents) if not one.exists()]
    before = _written(study)
    with study.claimed(elements):
        # A launch adds to the other files, or leaves them alone.
        contents = {one: one.read_bytes() for one in before if one.suffix in (".json", ".yaml")}
        try:
            yield
        except SlurmError:
            for path in _written(study) - before:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            for path, content in contents.items():
                path.write_bytes(content)
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()
            raise


def _written(study: Study) -> set[Path]:
    """Returns what is there of what a launch writes."""
    return {*study.root.glob("*"), *study.configs.glob("*"), *study.jobs.glob("*/*")}
