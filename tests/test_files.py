"""A folder is held by the process that took it, and by no other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from salt_plugin.files import hold


def test_a_process_that_was_forked_holds_nothing(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    assert lock is not None
    child = os.fork()
    if child == 0:  # as a loader worker that outlives its parent
        time.sleep(60)
        os._exit(0)
    try:
        time.sleep(0.2)
        assert hold(tmp_path) is None
        lock.close()
        again = hold(tmp_path)
        assert again is not None
        again.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
