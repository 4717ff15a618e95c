"""Shapes of clips, encoders and predictors; no torch, so that planning can read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from salt_plugin.errors import ConfigError

Grid = tuple[int, int, int]
"""Tokens along time, height and width; N = T * H * W, row-major."""


def local_side(side: int, unit: int = 1) -> int:
    """Returns the side of a local view of a clip: 96 of 224 pixels, as LeVJEPA's, in proportion.

    Args:
        side: Of the clip, in pixels or patches.
        unit: What the result is a multiple of.
    """
    return max(1, round(side * 3 / 7 / unit)) * unit


class Tokens(NamedTuple):
    """Token counts of one clip in one mask set."""

    context: int
    target: int


class GroupTokens(NamedTuple):
    """Token counts of clips that are masked together.

    Attributes:
        clips: Number of clips.
        masks: Of each clip, in each mask set.
    """

    clips: int
    masks: Sequence[Tokens]


# Width, depth, heads and MLP ratio (the paper's table of encoders; V-JEPA 2's repository).
# vit_nano is ours, for the demo on two CPU cores.
ENCODER_SIZES: dict[str, tuple[int, int, int, float]] = {
    "vit_nano": (128, 4, 4, 4.0),
    "vit_tiny": (192, 12, 3, 4.0),
    "vit_small": (384, 12, 6, 4.0),
    "vit_base": (768, 12, 12, 4.0),
    "vit_large": (1024, 24, 16, 4.0),
    "vit_huge": (1280, 32, 16, 4.0),
    "vit_giant": (1408, 40, 16, 48 / 11),
    "vit_gigantic": (1664, 48, 16, 64 / 13),
}

# Three axes of at least one rotated pair each (3D RoPE).
MIN_HEAD_DIM = 6
# Blocks or mask tokens of a model. What a file states is built, without memory for its tensors,
# before it is compared with what the file holds.
MOST_PARTS = 1000


@dataclass(frozen=True)
class EncoderShape:
    """Everything that an encoder's parameters depend on; stored in `encoder.json`.

    Attributes:
        name: Name of the size.
        embed_dim: Token width D.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        mlp_ratio: Hidden width of a block's MLP over `embed_dim`.
        patch_size: Height and width of a tubelet in pixels.
        tubelet_size: Frames of a tubelet.
        in_chans: Colour channels.
        cls_token: Whether a learned `[cls]` token goes before the tokens of a clip.
        block_causal: Whether tokens attend to their own frame and earlier ones only.

    Raises:
        ConfigError: The width is no multiple of the heads, a head is too narrow for RoPE, or there
            are no blocks, or more than any model has.
    """

    name: str
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    tubelet_size: int = 2
    in_chans: int = 3
    cls_token: bool = False
    block_causal: bool = False

    def __post_init__(self) -> None:
        """Checks the heads and the number of blocks."""
        _check(f"encoder {self.name}", self.embed_dim, self.num_heads, self.depth)

    @classmethod
    def named(cls, name: str, key: str = "encoder", **changes: Any) -> EncoderShape:
        """Returns the shape of a named size, e.g. `vit_large`.

        Args:
            name: One of `ENCODER_SIZES`.
            key: Where the name came from, for messages.
            **changes: Other fields, e.g. `patch_size`.

        Raises:
            ConfigError: The name is unknown.
        """
        if name not in ENCODER_SIZES:
            raise ConfigError(f"{key}={name}: no such size; one of {', '.join(ENCODER_SIZES)}")
        return cls(name, *ENCODER_SIZES[name], **changes)

    @classmethod
    def of(
        cls, embed_dim: int, depth: int, num_heads: int, hidden_dim: int, **changes: Any
    ) -> EncoderShape:
        """Returns the shape of given numbers, under its name where it is a named size.

        Args:
            embed_dim: Token width D.
            depth: Number of blocks.
            num_heads: Attention heads of a block.
            hidden_dim: Hidden width of a block's MLP.
            **changes: Other fields, e.g. `patch_size`.

        Raises:
            ConfigError: As the constructor.
        """
        for name in ENCODER_SIZES:
            shape = cls.named(name, **changes)
            found = (shape.embed_dim, shape.depth, shape.num_heads, shape.hidden_dim)
            if found == (embed_dim, depth, num_heads, hidden_dim):
                return shape
        return cls("custom", embed_dim, depth, num_heads, hidden_dim / embed_dim, **changes)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.embed_dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        """Hidden width of a block's MLP."""
        return round(self.embed_dim * self.mlp_ratio)

    @property
    def patch_dim(self) -> int:
        """Values of a flattened tubelet, P."""
        return self.in_chans * self.tubelet_size * self.patch_size**2

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """Returns the token grid of a clip.

        Raises:
            ConfigError: A side of the clip is no multiple of the tubelet's.
        """
        for key, length, unit, name in (
            ("method.clip.frames", frames, self.tubelet_size, "method.model.tubelet_size"),
            ("method.clip.size", height, self.patch_size, "method.model.patch_size"),
            ("method.clip.size", width, self.patch_size, "method.model.patch_size"),
        ):
            if length < unit or length % unit:
                nearest = max(unit, round(length / unit) * unit)
                raise ConfigError(f"{key}={length}: not divisible by {name}={unit}; use {nearest}")
        return frames // self.tubelet_size, height // self.patch_size, width // self.patch_size


@dataclass(frozen=True)
class CountedShape:
    """What planning needs of an encoder that is none of ours.

    Attributes:
        name: Where it comes from.
        embed_dim: Token width D.
        parameters: Of the encoder.
        flops: Of encoding one clip, as `compute.counter` counts them.
    """

    name: str
    embed_dim: int
    parameters: int
    flops: int


@dataclass(frozen=True)
class PredictorShape:
    """Shape of a predictor or pixel decoder.

    Attributes:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads (the paper says 16, V-JEPA 2's configs 12).
        mlp_ratio: Hidden width of a block's MLP over `dim`.
        num_mask_tokens: One for each mask set.

    Raises:
        ConfigError: The width is no multiple of the heads, a head is too narrow for RoPE, or there
            are no blocks, or more than any model has.
    """

    dim: int = 384
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_mask_tokens: int = 2

    def __post_init__(self) -> None:
        """Checks the heads and the number of blocks and mask tokens."""
        parts = (self.depth, self.num_mask_tokens)
        _check("method.model.predictor", self.dim, self.num_heads, *parts)

    @classmethod
    def beside(
        cls,
        encoder: EncoderShape,
        num_mask_tokens: int,
        dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
    ) -> PredictorShape:
        """Returns the predictor of an encoder; what is given goes before the rule.

        The rule: 384 wide and 12 deep (the paper) from ViT-B on. Narrower encoders, of which the
        paper has none, get half their width, as ViT-B does, and at most their depth [ours]. Heads
        are 32 wide, as V-JEPA 2's 12 of 384.
        """
        dim = dim or min(384, encoder.embed_dim // 2)
        depth = depth or min(12, encoder.depth)
        heads = num_heads or max(1, dim // 32)
        return cls(dim, depth, heads, num_mask_tokens=num_mask_tokens)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        """Hidden width of a block's MLP."""
        return round(self.dim * self.mlp_ratio)


@dataclass(frozen=True)
class ProjectorShape:
    """Shape of a projector on `[cls]`, and of what its embeddings are compared along.

    Attributes:
        hidden_dim: Width of its hidden layer.
        out_dim: Width of an embedding.
        directions: Random directions along which embeddings are compared with a Gaussian.
    """

    hidden_dim: int = 2048
    out_dim: int = 256
    directions: int = 1024


# V-JEPA 2's attentive pooling: blocks in all, heads at most, MLP over width.
ATTENTIVE_DEPTH, ATTENTIVE_HEADS, ATTENTIVE_MLP_RATIO = 4, 16, 4


@dataclass(frozen=True)
class HeadShape:
    """Shape of a classifier on the tokens of a clip.

    Attributes:
        pool: `mean`, `time` or `attentive`; see `models.Head`.
        classes: Number of classes, C.
        frames: Token frames of a clip, which `time` keeps apart.
    """

    pool: str = "mean"
    classes: int = 2
    frames: int = 1

    def features(self, dim: int) -> int:
        """Returns the width of what the linear classifier reads of tokens of width `dim`."""
        return dim * self.frames if self.pool == "time" else dim


def as_dict(shape: EncoderShape | PredictorShape | HeadShape) -> dict[str, Any]:
    """Returns the fields; options that are off are left out, as before there were any."""
    return {name: value for name, value in asdict(shape).items() if value is not False}


def _check(what: str, dim: int, num_heads: int, *parts: int) -> None:
    fits = num_heads >= 1 and dim % num_heads == 0
    if not fits or dim // num_heads < MIN_HEAD_DIM or dim // num_heads % 2:
        raise ConfigError(
            f"{what}: width {dim} over {num_heads} heads; the width must be a multiple of the "
            f"heads and a head at least {MIN_HEAD_DIM} wide and even (3D RoPE)"
        )
    if not all(1 <= count <= MOST_PARTS for count in parts):
        raise ConfigError(
            f"{what}: {max(parts)} blocks or mask tokens; expected 1 to {MOST_PARTS} of each"
        )
