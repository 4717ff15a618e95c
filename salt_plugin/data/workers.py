"""Processes that decode videos."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import torch

# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def signals_held(method: str) -> Iterator[None]:
    """Lets workers start without taking signals: a spawned one needs seconds until it may.

    They inherit what is blocked, and so do all threads of theirs.

    Args:
        method: How they are started.
    """
    if method != "fork":
        resource_tracker.ensure_running()  # would unblock SIGTERM where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_IGNORED, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    trains to decide, which needs them for its last step: they end when it tells them, or is dead.
    """
    torch.set_num_threads(1)
    _return_memory()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # os.getppid may be the fork server.
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(trainer.pid,), daemon=True).start()
    else:  # macOS does not tell who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()


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


def _end_when_told(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def _end_with(trainer: Any) -> None:
    trainer.join()
    os._exit(0)
