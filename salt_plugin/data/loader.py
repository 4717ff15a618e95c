"""Batches from workers; when none comes, the error says which files they read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from salt_plugin.data.workers import IGNORED, start_worker
from salt_plugin.errors import LoaderError, LostOthersError, SaltError

# Seconds. A process that is suspended, however long, loses at most one of these.
_SLICE = 5.0
# torch may report that a worker has died so long before its process has ended.
_END_SECONDS = 1.0
_PATH_BYTES = 4096
_MOST_NAMED = 16

_HINTS = {
    signal.SIGKILL: " (as for want of memory)",
    signal.SIGBUS: " (as where /dev/shm is full)",
}

# Where this process, a loader worker, writes the file that it reads; None elsewhere.
_file: np.ndarray | None = None

# Iterators of killed workers. To shut them down may wait for a lock that died with a worker.
_abandoned: list[Any] = []


def note_file(path: str | None) -> None:
    """Notes which file a loader worker reads, None for none; does nothing in other processes."""
    if _file is not None:
        text = b"%d %s\0" % (os.getpid(), os.fsencode(path or "")[:_PATH_BYTES])
        _file[: len(text)] = np.frombuffer(text, np.uint8)


class ClipLoader(DataLoader[Any]):
    """A `DataLoader` that waits for a batch only so long, and explains itself.

    Args:
        dataset: Its items are made in `workers` processes, or in this one for 0. It calls
            `note_file`.
        workers: Number of processes.
        stall: Seconds to wait for a batch of the workers, without most of the time in which this
            process was suspended; None waits for ever.
        key: Where `stall` is set, for the message.
        **settings: Further arguments of `DataLoader`.
    """

    def __init__(
        self, dataset: Dataset[Any], *, workers: int, stall: float | None, key: str, **settings: Any
    ) -> None:
        self._stall = stall
        self._key = key
        self._processes: list[BaseProcess] = []
        self._files_wn = torch.zeros(workers, _PATH_BYTES + 32, dtype=torch.uint8)
        if workers:
            self._files_wn.share_memory_()
        super().__init__(
            dataset,
            num_workers=workers,
            worker_init_fn=partial(_start, self._files_wn) if workers else None,
            timeout=min(stall, _SLICE) if workers and stall is not None else 0,
            **settings,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # what is promised of it
        """Starts the workers, and returns what yields their batches.

        Raises:
            LoaderError: None came in time.
            LostOthersError: A worker has ended.
        """
        return self._watched(self._started())

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        waited = 0.0
        while True:
            failure: SaltError | None = None
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                if str(error).startswith("DataLoader timed out"):
                    waited += self.timeout
                    if self._stall is not None and waited >= self._stall:
                        reason = f"no batch has come for {self._stall:g} s ({self._key})"
                        failure = LoaderError(f"{reason}. {self._states()}")
                elif self._lost_one():  # torch raises errors of any kind then
                    reason = "a process that reads videos has ended"
                    failure = LostOthersError(f"{reason}. {self._states()}")
                else:
                    raise
            else:
                waited = 0.0
                yield batch
            if failure is not None:
                _abandoned.append(batches)
                for process in self._processes:
                    process.kill()
                    process.join(_SLICE)
                raise failure

    def _lost_one(self) -> bool:
        ends = [process.sentinel for process in self._processes]
        ended = connection.wait(ends, _END_SECONDS) if ends else []
        for process in self._processes:
            if process.sentinel in ended:
                process.join(_END_SECONDS)  # it may still be on its way to a status
        return bool(ended)

    def _started(self) -> Iterator[Any]:
        before = set(multiprocessing.active_children())
        handler = signal.getsignal(signal.SIGCHLD)
        if getattr(handler, "__module__", "") == signal_handling.__name__:
            handler = signal.SIG_DFL  # left by another loader of this process
        # A fork server, and workers until they can ignore signals, inherit what is blocked.
        if (self.multiprocessing_context or multiprocessing).get_start_method() != "fork":
            resource_tracker.ensure_running()  # it would unblock SIGTERM where it starts
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        try:
            batches = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._processes = [one for one in multiprocessing.active_children() if one not in before]
        for process in self._processes:
            # Before multiprocessing sends them SIGTERM, which they ignore, and waits for them.
            Finalize(None, process.kill, exitpriority=10)
        # torch's handler would raise its error anywhere, even while a checkpoint is written.
        # Without it, the end of a worker is noticed some seconds later, in the wait for a batch.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
        return batches

    def _states(self) -> str:
        """Returns sentences on what has become of each worker, and which file it is at."""
        texts = [row.tobytes().partition(b"\0")[0] for row in self._files_wn.numpy()]
        files = dict(os.fsdecode(text).split(" ", 1) for text in texts if text)
        told = []
        for process in self._processes[:_MOST_NAMED]:
            file = files.get(str(process.pid))
            place = f", at {file}" if file else ""
            told.append(f"Worker {process.pid} {_fate(process.exitcode)}{place}.")
        more = len(self._processes) - len(told)
        return " ".join(told) + (f" {more} more are not listed." if more else "")


def _fate(status: int | None) -> str:
    if status is None:
        return "is alive"
    if status >= 0:
        return f"has ended with status {status}"
    number = signal.Signals(-status)
    return f"was ended by {number.name}{_HINTS.get(number, '')}"


def _start(files_wn: Tensor, worker: int) -> None:
    global _file
    start_worker(worker)
    _file = files_wn[worker].numpy()
