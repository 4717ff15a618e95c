"""Prices every step before it is made, and books it afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_plugin.compute import Bill, Ledger, stage_bill
from salt_plugin.compute.pricing import Price
from salt_plugin.files import write_json
from salt_plugin.training.plan import StagePlan
from salt_plugin.training.ranks import Ranks


class Accounts:
    """Keeps the ledger of a stage, in `compute.json` and in its checkpoints, and its budget.

    Schedules of a stage under a budget follow what is spent of it, not the steps, whose cost varies
    with the masks: so they end where the stage does.

    Args:
        ranks: The processes that train together.
        path: The file.
        plan: Of the stage: its prices, and how long it is.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.

    Attributes:
        ledger: What was spent.
        last_clips_per_second: Of the last step, on all devices, the wait for its batch included.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        plan: StagePlan,
        inherited: Mapping[str, int | None],
    ) -> None:
        self.ranks = ranks
        self.path = path
        self.plan = plan
        self.inherited = inherited
        self.ledger = Ledger()
        self.last_clips_per_second = 0.0
        self._last = time.perf_counter()

    def position(self) -> float:
        """Returns how many of the planned steps are done; under a budget, by their FLOPs."""
        if self.plan.budget is None:
            return self.ledger.steps
        return self.plan.steps * self.ledger.total_flops / self.plan.budget

    def next_price(self, step: int) -> Price | None:
        """Returns what the step after `step` costs; None where the stage has no more.

        That is after its last step, or where its budget does not cover another.
        """
        if self.plan.budget is None and step >= self.plan.steps:
            return None
        price = self.plan.pricing.price(step)
        spent = self.ledger.total_flops + sum(price.flops.values())
        covered = self.plan.budget is None or spent <= self.plan.budget
        return price if covered else None

    def start(self) -> None:
        """Starts the clock."""
        self._last = time.perf_counter()

    def book(self, price: Price) -> None:
        """Books a step that is made."""
        now = time.perf_counter()
        seconds = now - self._last
        self.ledger.add_step(
            price.flops,
            price.clips,
            price.context_tokens + price.target_tokens,
            seconds,
            price.recomputed,
        )
        self.last_clips_per_second = price.clips / seconds
        self._last = now

    def bill(self) -> Bill:
        """Returns what the encoder has cost so far."""
        return stage_bill(self.plan.name, self.ledger, self.inherited)

    def as_dict(self) -> dict[str, Any]:
        """Returns ledger and bill, as `compute.json` and the encoder's card hold them."""
        return {**self.ledger.as_dict(), "bill": self.bill().as_dict()}

    def write(self) -> None:
        """Writes the file; the first process alone does."""
        if self.ranks.is_first:
            write_json(self.path, self.as_dict())
