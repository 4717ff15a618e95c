"""Processes that decode videos."""

from __future__ import annotations

import os
import signal
import threading

import torch


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
    trains to decide, which needs them for its last step: they end when it tells them.
    """
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
