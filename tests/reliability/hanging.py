"""A transform that does as the environment tells it: a run that goes on needs no other class."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor

from salt_plugin.transforms import SALTTransform

TARGET = "method.transform._target_=hanging.Hanging"
ORDER = "SALT_TEST_ORDER"


class Hanging(SALTTransform):
    """Obeys `ORDER`, e.g. `sleep:4`: sleeps, or for `kill:4` kills itself, after 4 clips."""

    def __call__(self, frames: Tensor) -> Tensor:
        order, after = os.environ.get(ORDER, "none:0").split(":")
        self.made = getattr(self, "made", 0) + 1
        if self.made > int(after):
            if order == "sleep":
                print("hanging", flush=True)
                time.sleep(600)
            if order == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(frames)


def last_checkpoint(run_dir: Path) -> Path:
    return run_dir / "teacher" / "checkpoints" / "last.ckpt"
