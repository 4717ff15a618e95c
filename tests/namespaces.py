"""Commands in a mount and user namespace of their own, with other folders and another user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

# Several commands in one process: to import torch takes longer than most of them.
_RUN = """
import contextlib, io, json, sys
from salt_plugin.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["salt", *arguments]
    status, errors = 0, io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    print("ENDED", json.dumps([status, errors.getvalue()]), flush=True)
"""


class Ended(NamedTuple):
    """How a command ended: its status, and what it said on stderr."""

    status: int
    errors: str


def salt_in_namespace(
    commands: Sequence[Sequence[str]],
    mount: str | None = None,
    user: int = 0,
    environment: dict[str, str | None] | None = None,
) -> list[Ended]:
    """Runs commands of `salt`, one after the other; where that is not allowed, skips the test.

    Args:
        commands: Their arguments.
        mount: Arguments of `mount`, called first.
        user: The number of the user inside.
        environment: What differs from this process's; None: not set.
    """
    namespace = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}", "--mount"]
    if not _allows(tuple(namespace), mount):
        pytest.skip(f"NOT TESTED: this machine does not allow {' '.join(namespace)} and mount")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
    done = subprocess.run(
        [*_in(namespace, mount), sys.executable, "-c", _RUN, json.dumps(commands)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ENDED ")]
    assert len(lines) == len(commands), done.stderr
    return [Ended(*json.loads(line.removeprefix("ENDED "))) for line in lines]


def _in(namespace: Sequence[str], mount: str | None) -> list[str]:
    if mount is None:
        return [*namespace, "--"]
    return [*namespace, "sh", "-c", f'mount {mount} && exec "$@"', "sh"]


@cache
def _allows(namespace: tuple[str, ...], mount: str | None) -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_in(namespace, mount), "true"], capture_output=True).returncode == 0


def read_only(folder: Path) -> str:
    """Returns the arguments of `mount` that make a folder a read-only one."""
    return f"-t tmpfs -o ro,size=1m tmpfs '{folder}'"
