"""Processes that decode videos."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import threading

import torch

# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Signals by which a terminal or a cluster asks to stop.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def loader_workers(asked: int, sharing: int = 1) -> int:
    """Returns the number of loader processes: what was asked for, or the cores for -1.

    Args:
        asked: 0 or more, or -1.
        sharing: Training processes that share the cores; each gets one at least.
    """
    if asked != -1:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, cores // sharing)


def start_worker(_: int) -> None:
    """Starts a worker, with one thread: those of several beside the model slow all of them down.

    A terminal and a cluster send signals to the workers too. When to stop is for the process that
    trains to decide, which needs them for its last step: they end when it closes their queues, or
    is dead.
    """
    torch.set_num_threads(1)
    _return_memory()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    trainer = multiprocessing.parent_process()  # os.getppid may be the fork server
    assert trainer is not None
    trainer.join()
    os._exit(0)


def _return_memory() -> None:
    """Keeps a worker from growing for long before it settles (docs/benchmarks/soak.md).

    Frames go back to the system once they are freed, where the C library is glibc: it would keep
    what was the largest so far for the next ones. And garbage is not looked for in what the
    process that trains had before: to look there copies its pages, which are shared.
    """
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**22)
        mallopt(_M_TRIM_THRESHOLD, 2**24)
