"""Processes that decode videos."""

from __future__ import annotations

import os

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


def one_thread(_: int) -> None:
    """Starts a worker: threads of several workers beside the model slow all of them down."""
    torch.set_num_threads(1)
