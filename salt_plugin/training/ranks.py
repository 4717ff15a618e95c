"""The processes that train together, as they talk beside the gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from salt_plugin.errors import ConfigError
from salt_plugin.training import world


class Ranks:
    """Exchanges a few numbers over a group of its own, on the CPU: nothing waits for a device.

    Every process has to call the same methods in the same order. Alone, a process talks to nobody.

    Args:
        rank: Which of the processes this is.
        size: How many there are; where there are several, `torch.distributed` is initialised.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._group: Any = None
        if size > 1:
            self._group = dist.new_group(backend="gloo", timeout=world.PATIENCE)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def require_alike(self, own: Mapping[str, Any]) -> None:
        """Checks that every process was started with the same values.

        Args:
            own: This process's values, by the name to show where they differ.

        Raises:
            ConfigError: They differ.
        """
        everyone = self.gather(dict(own))
        for name in sorted({name for values in everyone for name in values}):
            found = [values.get(name, "absent") for values in everyone]
            if any(value != found[0] for value in found):
                listed = ", ".join(f"{value!r} in process {i}" for i, value in enumerate(found))
                raise ConfigError(
                    f"{name} differs between the processes that train together: {listed}. Give all "
                    "of them the same command, hydra.run.dir and files"
                )

    def gather(self, own: Any) -> list[Any]:
        """Returns what each process has given, in the order of their ranks."""
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own, group=self._group)
        return found

    def largest(self, own: Sequence[int]) -> list[int]:
        """Returns each number's largest value in any process."""
        if self._group is None:
            return list(own)
        numbers = torch.tensor(own)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group)
        return numbers.tolist()

    def mean(self, own: Tensor) -> Tensor:
        """Returns the mean over processes, on the CPU and in float64; waits for the device."""
        return torch.stack(self._gather(own.double().cpu())).mean(0)

    def _gather(self, own: Tensor) -> list[Tensor]:
        if self._group is None:
            return [own]
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own, group=self._group)
        return found


def lost_others(error: BaseException) -> bool:
    """Tells whether an error is that of a process whose partners have gone, or are silent."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
