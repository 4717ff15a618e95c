"""What the stages of a run are made of; building it finds every mistake before training starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from salt_plugin.config import MethodConfig, RunConfig, build
from salt_plugin.errors import ConfigError
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import StepMasks
from salt_plugin.models import Predictor, VideoEncoder
from salt_plugin.training.run_shapes import RunShapes, run_shapes
from salt_plugin.transforms import SALTTransform

# Whether masks leave any context depends on the sizes drawn: enough draws find those that do not.
TRIAL_DRAWS = 200

Loss = TypeVar("Loss", PixelLoss, LatentLoss)


@dataclass(frozen=True)
class Parts(RunShapes):
    """The pieces that the configuration describes.

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
    """Builds the pieces of a run.

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
    return Parts(
        **vars(shapes),
        transform=transform,
        pixel_loss=_loss(method, "pixel_loss", PixelLoss),
        latent_loss=_loss(method, "loss", LatentLoss),
        predictor_std=method.model.predictor.init_std,
    )


def _loss(method: MethodConfig, key: str, expected: type[Loss]) -> Loss | None:
    """Builds a loss of a method that has it."""
    node = getattr(method, key, None)
    return None if node is None else build(node, f"method.{key}", expected)
