"""The masks of a step, as functions of the place of a clip in the global batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from salt_plugin.errors import ConfigError
from salt_plugin.masks.generator import MaskGenerator
from salt_plugin.shapes import Grid, GroupTokens, Tokens

# The last word of each seed: clips (`data.dataset`) and orders (`data.sampler`) have other ones.
_OF_MASKS = 0x6D61736B


class IndexLists(NamedTuple):
    """What a mask set keeps and hides of consecutive clips.

    Attributes:
        number: Which mask set.
        first: The first of the clips, from 0 among those asked for.
        context: int64 [B, K], ascending: the tokens that the encoder sees.
        target: int64 [B, M], ascending: the tokens to predict.
    """

    number: int
    first: int
    context: np.ndarray
    target: np.ndarray


def split(slots: range, parts: int) -> list[range]:
    """Cuts consecutive slots into parts whose sizes differ by at most one, larger ones first."""
    size, larger = divmod(len(slots), parts)
    ends = [slots.start + i * size + min(i, larger) for i in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


@dataclass(frozen=True)
class StepMasks:
    """The masks of every step: functions of (seed, step, slot) in every process.

    The slots of a step form groups of at most `group` clips. Block sizes are functions of (seed,
    step, mask set), as V-JEPA 2's devices share them; places of (seed, step, group, mask set). Each
    mask set of a group is cut to its shortest, as V-JEPA cuts the batch of a device, and nothing is
    cut further: so neither devices nor micro-batches change what is trained.

    Attributes:
        masks: Draws what is hidden.
        grid: Token grid of a clip.
        seed: Seed of the stage.
        clips: Clips of a step, over all devices.
        group: Clips that are masked together, at most.

    Raises:
        ConfigError: There are no clips, or groups are empty; when masks are drawn, they are of
            another shape, or hide all of a clip, or nothing.
    """

    masks: MaskGenerator = field(hash=False)  # one of a user's own may have no hash
    grid: Grid
    seed: int
    clips: int
    group: int

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for key, found in (
            ("method.global_batch_size", self.clips),
            ("method.mask_group", self.group),
        ):
            if found < 1:
                raise ConfigError(f"{key}={found}: expected at least 1")

    @cached_property
    def groups(self) -> list[range]:
        """The slots of each group."""
        return split(range(self.clips), math.ceil(self.clips / self.group))

    def lengths(self, step: int, first_groups: int | None = None) -> list[GroupTokens]:
        """Returns the token counts of the groups of a step, or of the first of them."""
        numbers = range(self.masks.num_sets)
        fixed = [self.masks.counts(number, self._grid(number)) for number in numbers]
        known = [tokens for tokens in fixed if tokens is not None]
        if len(known) == len(fixed):
            return [GroupTokens(len(slots), known) for slots in self.groups[:first_groups]]
        return [
            GroupTokens(len(slots), [tokens for tokens, _ in self._drawn(step, group)])
            for group, slots in enumerate(self.groups[:first_groups])
        ]

    def index_lists(self, step: int, slots: range) -> list[IndexLists]:
        """Returns the index lists of consecutive slots, by group, then by mask set."""
        found = []
        for group, whole in enumerate(self.groups):
            own = range(max(whole.start, slots.start), min(whole.stop, slots.stop))
            if not own:
                continue
            rows = slice(own.start - whole.start, own.stop - whole.start)
            for number, (tokens, hidden) in enumerate(self._drawn(step, group)):
                grid = self._grid(number)
                context = _lists(~hidden[rows], tokens.context, grid)
                target = _lists(hidden[rows], tokens.target, grid)
                found.append(IndexLists(number, own.start - slots.start, context, target))
        return found

    def _drawn(self, step: int, group: int) -> Iterator[tuple[Tokens, np.ndarray]]:
        """Yields for each mask set what it leaves and hides of each clip, and where that is."""
        clips = len(self.groups[group])
        for number in range(self.masks.num_sets):
            T, H, W = grid = self._grid(number)
            entropy = (self.seed, step, number)
            hidden = self.masks.hidden(
                number,
                clips,
                grid,
                np.random.default_rng((*entropy, 0, _OF_MASKS)),
                np.random.default_rng((*entropy, 1 + group, _OF_MASKS)),
            )
            if hidden.dtype != bool or hidden.shape not in ((clips, T * H * W), (clips, H * W)):
                raise ConfigError(
                    f"method.masks: mask set {number} is {hidden.dtype} {list(hidden.shape)}; "
                    f"expected bool [{clips}, {T * H * W}], or [{clips}, {H * W}] where frames are "
                    "alike"
                )
            fixed = self.masks.counts(number, grid)
            if fixed is not None:
                yield fixed, hidden
                continue
            hidden_b, frames = np.count_nonzero(hidden, axis=1), _repeats(hidden, grid)
            context, target = hidden.shape[1] - int(hidden_b.max()), int(hidden_b.min())
            if not context or not target:
                raise ConfigError(
                    f"method.masks: mask set {number} hides {'nothing' if context else 'all'} of a "
                    "clip; expected something to see and something to predict in each"
                )
            yield Tokens(context * frames, target * frames), hidden

    def _grid(self, number: int) -> Grid:
        return self.masks.grid(number, self.grid)


def _repeats(chosen: np.ndarray, grid: Grid) -> int:
    """Returns how often what is chosen repeats in the frames of a clip."""
    return math.prod(grid) // chosen.shape[1]


def _lists(chosen_bs: np.ndarray, length: int, grid: Grid) -> np.ndarray:
    """Returns int64 [B, K]: the first K chosen tokens of each clip.

    Lists are cut from their end, as in V-JEPA's collator, so the last frames lose most.
    """
    (B, S), frames = chosen_bs.shape, _repeats(chosen_bs, grid)
    if not length:
        return np.empty((B, 0), np.int64)
    counts_b = np.count_nonzero(chosen_bs, axis=1) * frames
    flat = np.flatnonzero(np.repeat(chosen_bs[:, None], frames, axis=1))
    # A clip's tokens are a run of `flat`: taking windows is faster than gathering one by one.
    windows_nk = np.ndarray(
        (len(flat) - length + 1, length), flat.dtype, flat, strides=(flat.itemsize,) * 2
    )
    tokens_bk = windows_nk[np.cumsum(counts_b) - counts_b]
    tokens_bk -= np.arange(0, B * S * frames, S * frames)[:, None]
    return tokens_bk
