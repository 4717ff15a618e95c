"""Checkpoints that a thread writes while training goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from salt_plugin.files import sync
from salt_plugin.training.resume import previous_checkpoint


class Failure(NamedTuple):
    """A checkpoint that could not be written: its step, and why."""

    step: int
    reason: str


class BackgroundWriter:
    """Copies a checkpoint to the host's memory and writes the copy beside training.

    The file has another name until it is on the disk; then the last checkpoint is renamed to the
    one before it, and the new one to the last. One is written at a time: the next waits for it.

    Args:
        saved_step: Optimiser steps in the checkpoint that training goes on from.
        beside: Files that have to be on the disk before a checkpoint is: what a resume counts on.

    Attributes:
        saved_step: Optimiser steps in the last checkpoint that was written.
    """

    def __init__(self, saved_step: int, beside: Sequence[Path]) -> None:
        self.saved_step = saved_step
        self.beside = beside
        self._copy = _HostCopy()
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[Failure | None] | None = None
        self._failure: Failure | None = None

    def save(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Returns once the checkpoint is copied; it holds its step as `global_step`."""
        self._wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoints")
        copied = self._copy(checkpoint)
        self._writing = self._thread.submit(self._write, copied, path)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def failure(self) -> Failure | None:
        """Waits for what is being written, and returns what has failed since the last call."""
        self._wait()
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        """Waits for what is being written, and gives the memory of the copy back."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = None
        self._copy = _HostCopy()

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._failure = writing.result() or self._failure

    def _write(self, checkpoint: dict[str, Any], path: Path) -> Failure | None:
        unfinished = path.with_suffix(".tmp")
        step = int(checkpoint["global_step"])
        try:
            torch.save(checkpoint, unfinished)
            for file in (unfinished, *self.beside):
                sync(file)
            if path.is_file():
                os.replace(path, previous_checkpoint(path))
            os.replace(unfinished, path)
            sync(path.parent)
        except (OSError, RuntimeError) as error:
            if not _is_of_the_disk(error):
                raise
            with contextlib.suppress(OSError):
                unfinished.unlink()  # what fits of it only takes room
            return Failure(step, _reason(error))
        self.saved_step = step
        return None


class _HostCopy:
    """Copies tensors to the host, each time to the same memory: new memory is slow to come by."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def __call__(self, content: dict[str, Any]) -> dict[str, Any]:
        before, self._tensors = iter(self._tensors), []

        def keep(tensor: Tensor) -> Tensor:
            host = next(before, None)
            if host is None or (host.shape, host.dtype) != (tensor.shape, tensor.dtype):
                host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._tensors.append(host.copy_(tensor.detach(), non_blocking=True))
            return host

        copied: dict[str, Any] = apply_to_collection(content, Tensor, keep)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) or "inline_container" in str(error)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error)
    return f"the disk has taken a part of it only, for want of room or by a quota: {error}"
