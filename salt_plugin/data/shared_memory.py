"""Shared memory, through which loader workers hand over their batches."""

from __future__ import annotations

import os
import sys

from salt_plugin.errors import ConfigError

FOLDER = "/dev/shm"

# Of `DataLoader`: batches that each worker makes ahead.
AHEAD = 2
_CHANNELS = 3


def clip_bytes(frames: int, height: int, width: int, value: int = 1) -> int:
    """Returns what a clip [3, frames, height, width] takes in bytes.

    Args:
        frames: Of the clip.
        height: Of a frame.
        width: Of a frame.
        value: Bytes of a value: 1 of uint8, 4 of float32.
    """
    return value * _CHANNELS * frames * height * width


def require_shared_memory(
    batch: int,
    workers: int,
    instead: str,
    processes: int = 1,
    batches: int | None = None,
    ahead: int = AHEAD,
) -> None:
    """Checks that the batches that are on their way at a time have room.

    A batch for which there is none would be lost, and waited for.

    Args:
        batch: Bytes of a batch.
        workers: Of one loader.
        instead: What loads without workers, for the message.
        processes: Loaders on this machine.
        batches: Of a loader in all, where it is known.
        ahead: Batches that each worker makes ahead.

    Raises:
        ConfigError: They have not.
    """
    free = _free()
    if workers == 0 or free is None:
        return
    waiting = ahead * workers + 1  # those ahead, and the one that is handed on
    waiting = waiting if batches is None else min(waiting, batches)
    needed = processes * waiting * batch
    if needed > free:
        size = -(-needed // 2**20)
        raise ConfigError(
            f"{FOLDER}: batches need {size} MiB of shared memory and it has {free >> 20} MiB free "
            f"({processes} x {waiting} batches of {batch / 2**20:.1f} MiB): make it larger (docker "
            f"run --shm-size={64 * (size // 64 + 1)}m), or take {instead}, fewer workers or "
            "smaller batches"
        )


def _free() -> int | None:
    """Returns the bytes that are free in `/dev/shm`; None where torch does not use it."""
    if sys.platform != "linux":
        return None
    try:
        found = os.statvfs(FOLDER)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
