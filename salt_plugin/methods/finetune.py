"""Fine-tuning: an encoder and a classifier learn the labels of clips."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from salt_plugin.batch import Batch
from salt_plugin.methods.base import Pieces, VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.head import Head
from salt_plugin.models.teacher import FrozenTeacher

# The last word of the seed of mixup's shares.
_OF_MIXUP = 0x6D697875


class FineTune(VideoMethod):
    """Classifies whole clips; encoder and classifier are trained together.

    loss = mean over clips of the cross-entropy between softmax(head(encoder(clip))) and its target.
    A target is the label, smoothed: (1 - s) on its class and s / C on each of C. Mixup takes the
    clips at places 2 i and 2 i + 1 of a step together, whatever device or micro-batch they are on:
    each becomes share l of itself and 1 - l of the other, and so do their targets, with l from
    Beta(alpha, alpha).

    Args:
        encoder: Starts from the weights that are given.
        head: The classifier.
        recipe: Optimiser and schedules.
        label_smoothing: s.
        mixup: alpha; 0 for none. A pair that two micro-batches share stays as it is.
        layer_decay: The rate of a block is that of the next one times this. The embedding is the
            first layer, the last norm goes with the last block, the head is the last layer (as
            timm's `param_groups_layer_decay` has it).
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        head: Head,
        recipe: Recipe,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__(recipe)
        self.encoder = encoder
        self.head = head
        self.loss = nn.CrossEntropyLoss()
        self.label_smoothing, self.mixup, self.layer_decay = label_smoothing, mixup, layer_decay

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> FineTune:
        """Builds what a configuration describes; see `VideoMethod.configured`."""
        head = Head(encoder.shape, pieces.head)
        return cls(encoder, head, recipe, node.label_smoothing, node.mixup, node.layer_decay)

    @property
    def result(self) -> VideoEncoder:
        """The encoder."""
        return self.encoder

    def trained(self) -> list[nn.Module]:
        """Returns encoder and head."""
        return [self.encoder, self.head]

    def optimizer(self) -> AdamW:
        """Returns AdamW with a rate for each layer."""
        last = self.encoder.shape.depth
        scales: dict[nn.Parameter, float] = {}
        for name, parameter in self.encoder.named_parameters():
            block = re.match(r"blocks\.(\d+)\.", name)
            layer = int(block[1]) + 1 if block else last * name.startswith("norm.")
            scales[parameter] = self.layer_decay ** (last + 1 - layer)
        return self.recipe.optimizer(self.trained(), scales)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch, all of whose clips have labels."""
        clips, targets_bc = self.mixed(batch)
        return self.loss(self.logits(clips).float(), targets_bc)

    def logits(self, clips: Tensor) -> Tensor:
        """Returns logits [B, C] of normalised clips [B, C, T, H, W]."""
        logits_bc: Tensor = self.head(self.encoder(clips))
        return logits_bc

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns normalised clips and their targets [B, C], mixed in pairs under mixup."""
        from timm.data.mixup import mixup_target  # seconds

        classes, smoothing = self.head.shape.classes, self.label_smoothing
        clips = batch.normalized()
        targets_bc = mixup_target(batch.labels, classes, smoothing=smoothing)
        if not self.mixup:
            return clips, targets_bc
        clips = clips.clone() if clips is batch.clips else clips
        for first in range(batch.slot % 2, len(clips) - 1, 2):
            seed = (batch.seed, batch.step, batch.slot + first, _OF_MIXUP)
            share = np.random.default_rng(seed).beta(self.mixup, self.mixup)
            pair = slice(first, first + 2)
            clips[pair] = torch.lerp(clips[pair].flip(0), clips[pair], share)
            targets_bc[pair] = mixup_target(batch.labels[pair], classes, share, smoothing)
        return clips, targets_bc
