"""Files that hung, which no loader worker opens again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from salt_plugin.video.opening import is_timeout
from salt_plugin.video.reader import VideoReadError

_NEVER = 2**62

# Steps: the same for every number of workers up to 127, with two batches waiting for each.
MOST_AHEAD = 256


class Quarantine:
    """Tells all loader workers of a process which files one of them has waited for in vain.

    What replaces a file does not depend on whether it was waited for, so a file that hangs every
    time gives the same stream with and without this, and costs less time with it. One that hangs
    now and then is left out from a step that is a function of the step at which it was met: the
    first end of an epoch that no worker has read ahead of. (Files that cannot be opened are
    remembered by each worker: opening them takes no time, and changes nothing.)

    Args:
        paths: The file of each video.
        clips: Clips of a step, of all processes that train together.
        ahead: Steps that workers read ahead at most.
    """

    def __init__(self, paths: Sequence[str], clips: int, ahead: int = MOST_AHEAD) -> None:
        self._paths = paths
        self._clips = clips
        self._ahead = ahead
        self._since: dict[str, int] = {}
        # Workers are processes: they see what is written here after they have started.
        self._since_n = torch.full((len(paths),), _NEVER).share_memory_()

    def require(self, index: int, step: int) -> None:
        """Checks that a video may be opened for a step.

        Raises:
            VideoReadError: It hung before.
        """
        if self._since_n[index] <= step:
            raise VideoReadError(self._paths[index], "left out, because it was not read in time")

    def add(self, met: Mapping[str, str], step: int) -> None:
        """Takes up files that hung, to leave them out from the end of an epoch on.

        Args:
            met: Reason by path of what could not be read; other reasons are passed over.
            step: Steps done, alike in all processes that train together.
        """
        new = {path for path, reason in met.items() if is_timeout(reason)} - self._since.keys()
        if new:
            total = len(self._paths)
            epochs = -(-(step + self._ahead) * self._clips // total)
            self.load(self._since | dict.fromkeys(sorted(new), -(-epochs * total // self._clips)))

    def state(self) -> dict[str, int]:
        """Returns the files, and the step from which each is left out, for a checkpoint."""
        return dict(self._since)

    def load(self, state: Mapping[str, int]) -> None:
        """Takes the place of what was known before by what `state` gave."""
        self._since = dict(state)
        since = [self._since.get(path, _NEVER) for path in self._paths]
        self._since_n.copy_(torch.tensor(since))
