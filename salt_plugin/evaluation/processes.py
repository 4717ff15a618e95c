"""The processes that evaluate together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor


class Processes(Protocol):
    """What an evaluation asks of them; `training.world.Ranks` is such.

    Attributes:
        rank: Which of them this is.
        size: How many there are.
    """

    rank: int
    size: int

    def gather(self, own: Any) -> list[Any]:
        """Returns what each process has given, in the order of their ranks."""

    def to_first(self, own: Any) -> list[Any]:
        """Returns the same in the first process, and nothing in the others."""

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Puts into each tensor its sum over the processes."""


class Alone:
    """A process that evaluates by itself."""

    rank, size = 0, 1

    def gather(self, own: Any) -> list[Any]:
        """Returns what was given."""
        return [own]

    to_first = gather

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Leaves them as they are."""


ALONE = Alone()
