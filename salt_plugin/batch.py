"""A training batch: clips on their way to a device, together with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_plugin.masks import MaskGenerator, StepMasks
from salt_plugin.shapes import Grid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """What uint8 clips are normalised by: x / 255, less the mean, over the standard deviation.

    Attributes:
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
    """

    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __call__(self, clips: Tensor) -> Tensor:
        """Normalises uint8 clips; floats are taken to be normalised and returned as they are.

        Args:
            clips: [..., C, T, H, W].

        Returns:
            float32 of the same shape, or the floats.
        """
        if clips.is_floating_point():
            return clips
        scaled = clips.to(torch.float32).mul_(1 / 255)
        # By numbers: a tensor of them would have to be moved, and waited for, at each step.
        for channel, mean, std in zip(scaled.unbind(-4), self.mean, self.std, strict=True):
            channel.sub_(mean).div_(std)
        return scaled

    def undo(self, clips: Tensor) -> Tensor:
        """Returns values in [0, 1] of clips [..., C, T, H, W], of uint8 or normalised."""
        if not clips.is_floating_point():
            return clips / 255
        shape = (-1, 1, 1, 1)
        scaled = clips * clips.new_tensor(self.std).view(shape)
        return (scaled + clips.new_tensor(self.mean).view(shape)).clamp(0, 1)


class MaskSet(NamedTuple):
    """One (context, target) pair of consecutive clips of a batch, whose lists are equally long.

    Attributes:
        context: int64 [B, K], ascending: the tokens that the encoder sees.
        target: int64 [B, M], ascending: the tokens to predict.
        number: Which of the mask sets of a clip this is.
        first: The first of the clips in the batch.
    """

    context: Tensor
    target: Tensor
    number: int = 0
    first: int = 0

    @property
    def clips(self) -> slice:
        """The clips, as an index into the batch."""
        return slice(self.first, self.first + len(self.context))

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> MaskSet:
        """Returns the mask set on a device; see `torch.Tensor.to`."""
        return self._replace(
            context=self.context.to(device, non_blocking=non_blocking),
            target=self.target.to(device, non_blocking=non_blocking),
        )


class Views(NamedTuple):
    """A clip and its local views, as a transform with several views gives them.

    Attributes:
        clip: [C, T, H, W].
        local: [V, C, T, h, w].
    """

    clip: Tensor
    local: Tensor


class Batch(NamedTuple):
    """A training batch: a step, or a micro-batch of one.

    Attributes:
        clips: [B, C, T, H, W] of uint8, or of floats that are normalised; see `normalized`.
        labels: int64 [B], -1 where there is none.
        masks: Every mask set of every group of clips that were masked together.
        step: The optimiser step that this batch is for.
        skipped: (path, reason) of files that could not be read and were replaced.
        paths: The file of each clip.
        normalization: What clips of uint8 are normalised by.
        local_views: [B, V, C, T, h, w] of the kind of `clips`, smaller views of each clip; None
            where there are none. The last V mask sets of a clip are theirs.
        seed: Of the stage; with `step` and `slot`, what a method draws from.
        slot: Place of the first clip among those of the step, over all devices.
    """

    clips: Tensor
    labels: Tensor
    masks: list[MaskSet]
    step: int = 0
    skipped: Sequence[tuple[str, str]] = ()
    paths: Sequence[str] = ()
    normalization: Normalization = Normalization()
    local_views: Tensor | None = None
    seed: int = 0
    slot: int = 0

    def normalized(self) -> Tensor:
        """Returns the clips as encoders take them, float32, on the device that they are on."""
        return self.normalization(self.clips)

    def contexts(self) -> list[Tensor]:
        """Returns for each mask set of a clip int64 [B, K] of all groups, equally long in all."""
        numbers = sorted({mask.number for mask in self.masks})
        return [
            torch.cat([mask.context for mask in self.masks if mask.number == number])
            for number in numbers
        ]

    def mean(self, losses: Sequence[Tensor]) -> Tensor:
        """Returns the mean over clips of the mean over each clip's mask sets.

        Args:
            losses: Scalars, the mean loss of the clips of each of `masks`.
        """
        clips = [len(mask.context) for mask in self.masks]
        return torch.stack([n * loss for n, loss in zip(clips, losses, strict=True)]).sum() / sum(
            clips
        )

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """Returns the batch with its tensors on a device; see `torch.Tensor.to`."""
        views = self.local_views
        return self._replace(
            clips=self.clips.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            masks=[mask.to(device, non_blocking) for mask in self.masks],
            local_views=None if views is None else views.to(device, non_blocking=non_blocking),
        )


def mask_sets(masks: StepMasks, step: int, slots: range) -> list[MaskSet]:
    """Returns the mask sets of the clips at consecutive slots of a step."""
    return [
        MaskSet(torch.from_numpy(lists.context), torch.from_numpy(lists.target), *lists[:2])
        for lists in masks.index_lists(step, slots)
    ]


@dataclass(frozen=True)
class MaskCollator:
    """Stacks samples and adds their masks; see `masks.StepMasks`.

    The number of loader workers does not change them, and the step in a checkpoint is all the
    state there is.

    Args:
        masks: Draws what is hidden.
        grid: Token grid of a clip.
        seed: Seed of the stage.
        group: Clips that are masked together, at most.
        clips: Clips of a step over all devices, of which the samples are those at consecutive
            slots. None: the samples are a step.
    """

    masks: MaskGenerator
    grid: Grid
    seed: int
    group: int
    clips: int | None = None

    def __call__(self, items: Sequence[Any]) -> Batch:
        """Collates the samples of one micro-batch, each like a `data.ClipItem`."""
        step = items[0].key.step
        first = 0 if self.clips is None else items[0].key.slot
        masks = StepMasks(self.masks, self.grid, self.seed, self.clips or len(items), self.group)
        clips, local_views = _stacked([item.clip for item in items])
        return Batch(
            clips=clips,
            labels=torch.tensor([item.label for item in items]),
            masks=mask_sets(masks, step, range(first, first + len(items))),
            step=step,
            skipped=[entry for item in items for entry in item.skipped],
            paths=[item.path for item in items],
            # A data set of one's own may know of none.
            normalization=getattr(items[0], "normalization", Normalization()),
            local_views=local_views,
            seed=self.seed,
            slot=first,
        )


def _stacked(clips: Sequence[Tensor | Views]) -> tuple[Tensor, Tensor | None]:
    """Returns clips [B, C, T, H, W], and their local views [B, V, C, T, h, w] if they have any."""
    whole = torch.stack([one.clip if isinstance(one, Views) else one for one in clips])
    local = [one.local for one in clips if isinstance(one, Views)]
    return whole, torch.stack(local) if local else None
