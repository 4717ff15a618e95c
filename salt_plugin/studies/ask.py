"""Asking Slurm: its commands, and patience while its controller is away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from salt_plugin.errors import SaltError

Answer = TypeVar("Answer")

TIMEOUT = 120.0
LONGEST_PAUSE = 30.0

# What commands say while the controller is down, starts or has too much to do.
AWAY = re.compile(
    "contact slurm controller|timed out|connection refused|temporarily unable|standby mode"
    "|unexpected message received|zero bytes|no answer within",
    re.IGNORECASE,
)

# Seconds for which commands are tried again while the controller is away: the profile's key. Jobs
# are told by this variable, commands by the study.
PATIENCE = "SALT_SLURM_PATIENCE"
patience = float(os.environ.get(PATIENCE, "600"))


class SlurmError(SaltError):
    """A command of Slurm that is missing, or says no."""


def call(*command: str) -> str:
    """Returns what a command prints, `patiently`.

    Raises:
        SlurmError: It is missing, fails or does not answer.
    """
    return patiently(lambda: call_once(*command))


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Returns what Slurm answers; while its controller is away, asks again after growing pauses.

    Raises:
        SlurmError: It refuses, or was away until `patience` ended, or Ctrl-C the wait.
    """
    deadline, pause = time.monotonic() + patience, 1.0
    away: SlurmError | None = None
    try:
        while True:
            try:
                return ask()
            except SlurmError as error:
                left = deadline - time.monotonic()
                if left <= 0 or not _passing(str(error)):
                    raise
                if away is None:
                    print(
                        f"Slurm's controller does not answer, or has just started ({error}); "
                        f"trying again for {patience:g} s, or until Ctrl-C",
                        file=sys.stderr,
                    )
                away = error
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
    except KeyboardInterrupt:
        if away is None:
            raise
        raise away from None


def _passing(said: str) -> bool:
    """Tells whether Slurm may say something else soon."""
    if "node configuration is not available" in said:
        # A controller that has just started does not know its nodes yet.
        return bool(call_once("sinfo", "-h", "-t", "unknown", "-o", "%D"))
    return AWAY.search(said) is not None


def call_once(*command: str) -> str:
    """Returns what a command prints.

    Raises:
        SlurmError: It is missing, fails or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise SlurmError(
            f"{command[0]} is not installed here: give cluster=local, or launch where Slurm's "
            "commands are"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} gave no answer within {TIMEOUT:g} s") from None
    if done.returncode:
        text = done.stderr.strip() or done.stdout.strip()
        said = [line for line in text.splitlines() if not line.startswith('Try "')]
        last = said[-1].removeprefix(f"{command[0]}: ") if said else f"status {done.returncode}"
        raise SlurmError(f"{command[0]}: {last}")
    # sbatch --test-only speaks on stderr.
    return done.stdout
