"""What a run is made of; building it finds every mistake before training starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from salt_plugin.batch import MaskCollator
from salt_plugin.config import ProbeConfig, RunConfig, build
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_loader
from salt_plugin.errors import ConfigError
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import StepMasks
from salt_plugin.models import Predictor, VideoEncoder
from salt_plugin.run_directory import RunDirectory
from salt_plugin.training.ancestors import Origin
from salt_plugin.training.labelled import Labelled
from salt_plugin.training.plan import RunPlan
from salt_plugin.training.run_shapes import RunShapes, run_shapes
from salt_plugin.transforms import SALTTransform

# Some sizes of blocks leave no context; so many draws find them before training.
TRIAL_DRAWS = 200

Loss = TypeVar("Loss", PixelLoss, LatentLoss)


@dataclass(frozen=True)
class Parts(RunShapes):
    """What methods are built from.

    Attributes:
        transform: Augments a clip.
        pixel_loss: None where no pixels are predicted.
        latent_loss: None where no latents are predicted.
        predictor_std: Standard deviation of a predictor's initial weights.
    """

    transform: SALTTransform
    pixel_loss: PixelLoss | None
    latent_loss: LatentLoss | None
    predictor_std: float

    def new_predictor(self, encoder: VideoEncoder, out_dim: int) -> Predictor:
        """Returns the predictor of an encoder, or its decoder, at its start."""
        shape = self.predictor_of(encoder.shape)
        return Predictor(encoder.embed_dim, out_dim, shape, self.predictor_std)


def build_parts(config: RunConfig) -> Parts:
    """Builds what methods are built from, and draws masks to try them.

    Raises:
        ConfigError: The first value that cannot work.
    """
    method, shapes = config.method, run_shapes(config)
    trial = StepMasks(shapes.masks, shapes.grid, config.seed, clips=1, group=1)
    for step in range(TRIAL_DRAWS):
        trial.lengths(step)
    transform = build(method.transform, "method.transform", SALTTransform, size=method.clip.size)
    if transform.local_views != shapes.masks.local_views:
        raise ConfigError(
            f"method.transform makes {transform.local_views} local views of a clip, and "
            f"method.masks is for {shapes.masks.local_views}: expected equally many; the masks of "
            "a method with local views are salt_plugin.masks.TokenDropping"
        )

    def loss(key: str, kind: type[Loss]) -> Loss | None:
        node = getattr(method, key, None)
        return None if node is None else build(node, f"method.{key}", kind)

    return Parts(
        **vars(shapes),
        transform=transform,
        pixel_loss=loss("pixel_loss", PixelLoss),
        latent_loss=loss("loss", LatentLoss),  # `method.loss` is the latent loss
        predictor_std=method.model.predictor.init_std,
    )


@dataclass(frozen=True)
class Run:
    """A run whose configuration, files and lists have been found to work.

    Attributes:
        config: Its configuration, in which `method.global_batch_size` is a number.
        parts: What its methods are built from.
        videos: What it trains on.
        plan: Its stages.
        directory: Where it is written.
        labelled: Its lists, of which `videos` is one, where it learns labels.
        probe: How its encoders are probed; None where they are not, or as the demo's table.
        monitor: How they are looked at in training; None where they are not.
        origin: What it takes over from the run that it continues; None where it continues none.
    """

    config: RunConfig
    parts: Parts
    videos: VideoList
    plan: RunPlan
    directory: RunDirectory
    labelled: Labelled | None
    probe: ProbeConfig | None
    monitor: ProbeConfig | None = None
    origin: Origin | None = None

    def batches(self, seed: int, **options: Any) -> ClipLoader:
        """Returns the micro-batches under a seed, with the options of `training_loader`."""
        parts, method = self.parts, self.config.method
        collate = MaskCollator(
            parts.masks, parts.grid, seed, method.mask_group, method.global_batch_size
        )
        return training_loader(
            self.config, self.videos, parts.transform, collate, seed=seed, **options
        )
