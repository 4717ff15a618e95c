"""Prices every step before it is made, and books it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.compute import Bill, Ledger, Tokens, stage_bill
from salt_plugin.files import write_json
from salt_plugin.masks import Batch
from salt_plugin.training.ranks import Ranks

StepCost = Callable[[int, Sequence[Tokens]], dict[str, int]]
"""FLOPs by part of a step, from the number of clips and the mask sets' tokens of each."""


class Price(NamedTuple):
    """What a step costs on all devices.

    Attributes:
        flops: FLOPs of the models by part.
        recomputed: FLOPs that activation checkpointing adds.
        clips: Clips of the step.
        tokens: Tokens that are encoded or predicted.
    """

    flops: dict[str, int]
    recomputed: int
    clips: int
    tokens: int


class Accounts:
    """Keeps the ledger of a stage, in `compute.json` and in its checkpoints, and its budget.

    Schedules of a stage under a budget follow what is spent of it, not the steps, whose cost varies
    with the masks: so they end where the stage does.

    Args:
        ranks: The processes that train together.
        path: The file.
        stage: Name of the stage.
        step_cost: FLOPs by part of a step on one device.
        recomputed: FLOPs that activation checkpointing adds to it; None where it is off.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
        total_steps: Steps of the stage; under a budget, those that it is expected to pay for.
        budget: FLOPs that the stage may spend; None where its steps are counted.

    Attributes:
        ledger: What was spent.
        last_clips_per_second: Of the last step, on all devices, the wait for its batch included.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        stage: str,
        step_cost: StepCost,
        recomputed: Callable[[int, Sequence[Tokens]], int] | None,
        inherited: Mapping[str, int | None],
        total_steps: int,
        budget: int | None = None,
    ) -> None:
        self.ranks = ranks
        self.path = path
        self.stage = stage
        self.step_cost = step_cost
        self.recomputed = recomputed
        self.inherited = inherited
        self.total_steps = total_steps
        self.budget = budget
        self.ledger = Ledger()
        self.last_clips_per_second = 0.0
        self._last = time.perf_counter()

    def position(self) -> float:
        """Returns how many of the planned steps are done; under a budget, by their FLOPs."""
        if self.budget is None:
            return self.ledger.steps
        return self.total_steps * self.ledger.total_flops / self.budget

    def price(self, batch: Batch) -> Price:
        """Returns the price of a step; every process has to call it."""
        masks = [Tokens(mask.context.shape[1], mask.target.shape[1]) for mask in batch.masks]
        # Block sizes and cuts differ between the processes.
        counts = self.ranks.gather_counts([len(batch.clips), *(n for mask in masks for n in mask)])
        on_each = [
            (row[0], [Tokens(*pair) for pair in zip(row[1::2], row[2::2], strict=True)])
            for row in counts
        ]
        # Without clips remains what a step costs once, however many devices share it.
        once = self.step_cost(0, on_each[0][1])
        flops = dict(once)
        for clips, tokens in on_each:
            for part, count in self.step_cost(clips, tokens).items():
                flops[part] += count - once[part]
        return Price(
            flops=flops,
            recomputed=sum(self.recomputed(*one) for one in on_each) if self.recomputed else 0,
            clips=sum(clips for clips, _ in on_each),
            tokens=sum(clips * sum(map(sum, tokens)) for clips, tokens in on_each),
        )

    def affords(self, price: Price) -> bool:
        """Tells whether the budget, where there is one, covers another step."""
        spent = self.ledger.total_flops + sum(price.flops.values())
        return self.budget is None or spent <= self.budget

    def start(self) -> None:
        """Starts the clock."""
        self._last = time.perf_counter()

    def book(self, price: Price) -> None:
        """Books a step that is made."""
        now = time.perf_counter()
        seconds = now - self._last
        self.ledger.add_step(**price._asdict(), seconds=seconds)
        self.last_clips_per_second = price.clips / seconds
        self._last = now

    def bill(self) -> Bill:
        """Returns what the encoder has cost so far."""
        return stage_bill(self.stage, self.ledger, self.inherited)

    def as_dict(self) -> dict[str, Any]:
        """Returns ledger and bill, as `compute.json` and the encoder's card hold them."""
        return {**self.ledger.as_dict(), "bill": self.bill().as_dict()}

    def write(self) -> None:
        """Writes the file; the first process alone does."""
        if self.ranks.is_first:
            write_json(self.path, self.as_dict())
