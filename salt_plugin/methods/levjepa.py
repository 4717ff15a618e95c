"""LeVJEPA: views of a clip get one embedding, and embeddings of a batch the shape of a Gaussian."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.methods.average import follow, rising
from salt_plugin.methods.base import Pieces, VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.teacher import FrozenTeacher
from salt_plugin.shapes import ProjectorShape
from salt_plugin.stage_directory import ONLINE

# The last word of the seed of SIGReg's directions.
_OF_DIRECTIONS = 0x64697273


class LeVJEPA(VideoMethod):
    """Draws the views of a clip together, and keeps clips apart by SIGReg.

    With the embedding z_v = projector(encoder(view v)) of each of V views, of which view 0 is the
    global one, loss = mean over clips, views and channels of (z_v - z_0)^2, plus `sigreg_weight`
    times the mean over views of SIGReg(z_v). SIGReg is a statistic of the clips of a micro-batch
    on all devices, and grows with their number. Nothing is predicted, and no gradient is stopped.

    Args:
        encoder: Has a `[cls]` token; it alone is supervised.
        projector: Shape of the projector, and SIGReg's directions.
        recipe: Optimiser and schedules.
        sigreg_weight: Printed: 0.02.
        sync_batch_norm: Whether the projector's BatchNorm takes its statistics over all devices.
        momentum: Of the moving average, as `average.rising` takes it.

    Attributes:
        ema: The moving average of the encoder; it is kept, and plays no part in training.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        projector: ProjectorShape,
        recipe: Recipe,
        sigreg_weight: float = 0.02,
        sync_batch_norm: bool = False,
        momentum: float = 0.9999,
    ) -> None:
        from lightly.loss.lejepa_loss import SIGReg  # seconds: with timm
        from lightly.models.modules.heads import ProjectionHead

        super().__init__(recipe)
        self.encoder = encoder
        norm = BatchNorm(projector.hidden_dim, sync_batch_norm)
        self.projector = ProjectionHead(
            [
                (encoder.embed_dim, projector.hidden_dim, norm, nn.GELU()),
                (projector.hidden_dim, projector.out_dim, None, None),
            ]
        )
        self.sigreg = SIGReg(num_vectors=projector.directions, gather_distributed=True)
        self.ema = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.sigreg_weight = sigreg_weight
        self.momentum = momentum

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> LeVJEPA:
        """Builds what a configuration describes; see `VideoMethod.configured`."""
        weight, synchronised = node.sigreg_weight, node.projector.sync_batch_norm
        return cls(encoder, pieces.projector, recipe, weight, synchronised, node.ema)

    @property
    def result(self) -> VideoEncoder:
        """The moving average."""
        return self.ema

    @property
    def others(self) -> dict[str, VideoEncoder]:
        """The encoder that was trained."""
        return {ONLINE: self.encoder}

    def trained(self) -> list[nn.Module]:
        """Returns encoder and projector."""
        return [self.encoder, self.projector]

    def train(self, mode: bool = True) -> LeVJEPA:
        """Leaves the moving average in evaluation mode."""
        super().train(mode)
        self.ema.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        from lightly.loss.lejepa_loss import lejepa_invariance_loss  # seconds: with timm

        z_vbd = self.embed(batch)
        seed = np.random.SeedSequence((batch.seed, batch.step, _OF_DIRECTIONS))
        devices = [z_vbd.device] if z_vbd.is_cuda and torch.cuda.is_initialized() else []
        with torch.autocast(z_vbd.device.type, enabled=False), torch.random.fork_rng(devices):
            torch.manual_seed(int(seed.generate_state(1)[0]))
            z_vbd = z_vbd.float()
            distance = lejepa_invariance_loss(all_proj=z_vbd, global_proj=z_vbd[:1])
            return distance + self.sigreg_weight * self.sigreg(z_vbd)

    def embed(self, batch: Batch) -> Tensor:
        """Returns the embeddings [V, B, D] of the views of a batch, the global one first."""
        context, *local_contexts = batch.contexts()
        cls_tokens = [self._cls_token(batch.normalized(), context)]
        if batch.local_views is not None:
            views = batch.normalization(batch.local_views).transpose(0, 1).flatten(0, 1)
            cls_tokens.append(self._cls_token(views, torch.cat(local_contexts)))
        z_nd: Tensor = self.projector(torch.cat(cls_tokens))
        return z_nd.unflatten(0, (-1, len(batch.clips)))

    def _cls_token(self, clips: Tensor, indices_bk: Tensor) -> Tensor:
        patches_bnp, grid = self.encoder.patchify(clips), self.encoder.grid(clips)
        return self.encoder.forward_cls(patches_bnp, grid, indices_bk)

    def update_ema(self, position: float) -> None:
        """Moves the moving average towards the encoder, after the step at `position`."""
        done = self.recipe.steps_before + position
        follow(self.ema, self.encoder, rising(self.momentum, done))


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of [N, D] by the batch alone, without running statistics, which nothing reads.

    Args:
        dim: D.
        synchronised: Whether the batch is that of all devices; also on CPUs, which torch's
            `SyncBatchNorm` refuses.
    """

    def __init__(self, dim: int, synchronised: bool = False) -> None:
        super().__init__(dim, track_running_stats=False)
        self.synchronised = synchronised

    def forward(self, x_nd: Tensor) -> Tensor:
        """Returns [N, D], of mean 0 and variance 1 in the batch before weight and bias."""
        if not self.synchronised or not dist.is_initialized():
            return super().forward(x_nd)
        with torch.autocast(x_nd.device.type, enabled=False):
            x = x_nd.float()
            rows = _SumOverRanks.apply(torch.full((1,), float(len(x)), device=x.device))
            centred = x - _SumOverRanks.apply(x.sum(0)) / rows
            variance = _SumOverRanks.apply(centred.square().sum(0)) / rows
            return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class _SumOverRanks(torch.autograd.Function):
    """The sum over all processes; the gradient of their losses' sum flows back to each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
