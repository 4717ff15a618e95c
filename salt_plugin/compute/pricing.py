"""What the steps of a stage cost before they are made; training and planning share these prices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from salt_plugin.compute.bill import own_parts
from salt_plugin.compute.cost import recomputed
from salt_plugin.compute.step_costs import CONVENTIONS, CostedMethod, Shapes
from salt_plugin.errors import ConfigError
from salt_plugin.masks import StepMasks, split
from salt_plugin.shapes import GroupTokens

# Steps that are drawn for the mean cost of a step: at 224 px its standard error is 0.2 %, on the
# small grid of the demo 0.7 %.
SAMPLED = 512
# Steps that are drawn to find how many a budget pays for: a shorter run is priced exactly.
WALKED = 2048
# If a step has more than `MOST_GROUPS` groups, `SAMPLED` steps draw only `DRAWN_GROUPS` of them.
MOST_GROUPS, DRAWN_GROUPS = 8, 4


class Price(NamedTuple):
    """What a step costs on all devices.

    Attributes:
        flops: FLOPs of the models by part.
        recomputed: FLOPs that activation checkpointing adds.
        clips: Clips of the step.
        context_tokens: Tokens that the encoder sees, of all clips in all mask sets.
        target_tokens: Tokens that are predicted.
    """

    flops: dict[str, int]
    recomputed: int
    clips: int
    context_tokens: int
    target_tokens: int


@dataclass(frozen=True)
class Pricing:
    """The prices of a stage.

    Attributes:
        method: The method of the stage.
        shapes: Shapes of its models.
        masks: Those it is trained under.
        recomputes: Whether activations are computed a second time to save memory.
        convention: `exact` or `paper`.

    Raises:
        ConfigError: There is no such convention.
    """

    method: CostedMethod
    shapes: Shapes
    masks: StepMasks
    recomputes: bool = False
    convention: str = "exact"

    def __post_init__(self) -> None:
        """Checks the convention."""
        if self.convention not in CONVENTIONS:
            raise ConfigError(
                f"convention={self.convention}: expected one of {', '.join(CONVENTIONS)}"
            )

    def price(self, step: int) -> Price:
        """Returns what a step costs."""
        groups = self.masks.lengths(step)
        totals = [
            sum(group.clips * mask[which] for group in groups for mask in group.masks)
            for which in (0, 1)
        ]
        again = 0
        if self.recomputes:
            predictor = self.shapes.predictor if self.method.step.predicts else None
            again = recomputed(self.shapes.encoder, predictor, groups)
        flops = self.method.step.exact(self.shapes, groups)
        return Price(flops, again, self.masks.clips, *totals)

    def expected(self, steps: int, drawn: int = SAMPLED) -> dict[str, int]:
        """Returns the expected FLOPs of the first steps, by part of a bill.

        Those beyond the steps drawn cost the mean of their costs; the cost of mean lengths would be
        less, since attention is quadratic.

        Args:
            steps: How many.
            drawn: How many are drawn; `WALKED` for a number that `affordable` returned.
        """
        sample = _costs(self, max(1, min(steps, drawn)))
        known = sample[:steps]
        return {
            part: sum(one[part] for one in known)
            + (steps - len(known)) * sum(one[part] for one in sample) // len(sample)
            for part in sample[0]
        }

    def lengths(self, drawn: int = SAMPLED) -> list[list[GroupTokens]]:
        """Returns the token counts of the first steps; of large steps from a few of their groups.

        Args:
            drawn: How many steps.
        """
        return _lengths(self.masks, drawn)

    def affordable(self, budget: int) -> int:
        """Returns the most steps that a budget pays for."""
        left = budget
        costs = [sum(one.values()) for one in _costs(self, WALKED)]
        for steps, cost in enumerate(costs):
            if cost > left:
                return steps
            left -= cost
        return len(costs) + left * len(costs) // sum(costs)


@lru_cache(maxsize=16)
def _costs(pricing: Pricing, steps: int) -> list[dict[str, int]]:
    """Returns the FLOPs of the first steps by part of a bill."""
    form, shapes, masks = pricing.method.step, pricing.shapes, pricing.masks
    if pricing.convention == "paper":
        costs = [form.paper(shapes, masks.lengths(0))]
    else:
        costs = [form.exact(shapes, groups) for groups in _lengths(masks, steps)]
    return [own_parts(pricing.method.result, cost) for cost in costs]


def _lengths(masks: StepMasks, steps: int) -> list[list[GroupTokens]]:
    """Returns the token counts of the first steps; of large steps from a few of their groups.

    The first step uses all groups, because it decides whether a budget is large enough.
    """
    if len(masks.groups) <= MOST_GROUPS:
        return [_step_lengths(masks, step) for step in range(steps)]
    shares = [len(clips) for clips in split(range(masks.clips), DRAWN_GROUPS)]
    later = [
        [
            group._replace(clips=clips)
            for group, clips in zip(_step_lengths(masks, step, DRAWN_GROUPS), shares, strict=True)
        ]
        for step in range(1, min(steps, SAMPLED))
    ]
    return [_step_lengths(masks, 0), *later]


@lru_cache(maxsize=4 * WALKED)
def _step_lengths(
    masks: StepMasks, step: int, first_groups: int | None = None
) -> list[GroupTokens]:
    return masks.lengths(step, first_groups)
