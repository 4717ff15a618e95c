"""An encoder with pooling and a classifier on its tokens, as timm's models have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from salt_plugin.errors import ConfigError
from salt_plugin.models.attentive import AttentivePooler, heads_that_divide
from salt_plugin.models.block import INIT_STD
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.intermediates import forward_intermediates, taken_blocks
from salt_plugin.shapes import ATTENTIVE_DEPTH, ATTENTIVE_HEADS, EncoderShape

POOLS = ("", "avg", "token", "map")
HEAD_PARTS = ("attn_pool.", "head.")


class VideoClassifier(VideoEncoder):
    """A `VideoEncoder` whose `forward` pools the tokens and classifies the clip.

    What is `VideoEncoder`'s keeps its names, so that an encoder's weights load into it: the pooling
    and the classifier then stay as they are. `forward_sets`, `forward_patches` and the others give
    tokens, as an encoder's.

    Args:
        shape: Width, depth, heads and tubelet.
        drop_path: Stochastic depth rate of the last block.
        init_std: Standard deviation of the encoder's initial weights; the classifier has torch's.
        num_classes: C; 0 for features without a classifier.
        global_pool: `avg`, the mean over tokens at places; `token`, the `[cls]` token; `map`, the
            pooling of `AttentiveProbe`, over all tokens; or nothing: tokens stay.
        pool_depth: Blocks of `map`; see `AttentiveProbe`.
        drop_rate: Dropout before the classifier.

    Raises:
        ConfigError: There is no such pooling, or no `[cls]` token for it.
    """

    attn_pool: AttentivePooler | None
    head: nn.Module

    def __init__(
        self,
        shape: EncoderShape,
        drop_path: float = 0.0,
        init_std: float = INIT_STD,
        *,
        num_classes: int = 0,
        global_pool: str = "avg",
        pool_depth: int = ATTENTIVE_DEPTH,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(shape, drop_path, init_std)
        self.head_hidden_size, self.pool_depth = shape.embed_dim, pool_depth
        self.in_chans = shape.in_chans
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": shape.embed_dim, "reduction": shape.patch_size}
            for i in range(shape.depth)
        ]
        self.attn_pool = None
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.register_load_state_dict_pre_hook(_keep_head)

    @classmethod
    def around(
        cls, encoder: VideoEncoder, num_classes: int, drop_path: float = 0.0, **head: Any
    ) -> VideoClassifier:
        """Returns a classifier with a copy of an encoder's weights, on its device.

        Args:
            encoder: The encoder.
            num_classes: C.
            drop_path: Stochastic depth rate of the last block.
            **head: `global_pool`, `pool_depth` and `drop_rate`.
        """
        model = cls(encoder.shape, drop_path, num_classes=num_classes, **head)
        model.load_state_dict(encoder.state_dict())
        model.card, model.preprocessing = encoder.card, encoder.preprocessing
        return model.to(encoder.norm.weight)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        num_classes: int = 0,
        global_pool: str = "avg",
        **given: Any,
    ) -> VideoClassifier:
        """Returns a new classifier around a trained encoder, in evaluation mode.

        Args:
            pretrained_model_name_or_path: As of `VideoEncoder.from_pretrained`.
            num_classes: C.
            global_pool: As of the class.
            **given: As of `VideoEncoder.from_pretrained`.
        """
        encoder = VideoEncoder.from_pretrained(pretrained_model_name_or_path, **given)
        return cls.around(encoder, num_classes, global_pool=global_pool).eval()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Makes a new classifier; and another pooling, where it is given and is another.

        Args:
            num_classes: C; 0 for none.
            global_pool: As of the class.

        Raises:
            ConfigError: As the class.
        """
        if global_pool is not None:
            if global_pool not in POOLS:
                known = ", ".join(map(repr, POOLS))
                raise ConfigError(f"global_pool={global_pool}: expected one of {known}")
            if global_pool == "token" and not self.num_prefix_tokens:
                raise ConfigError("global_pool=token: the encoder has no [cls] token; use avg")
            self.global_pool = global_pool
            if global_pool != "map":
                self.attn_pool = None
            elif self.attn_pool is None:
                heads = heads_that_divide(self.embed_dim, ATTENTIVE_HEADS)
                self.attn_pool = self._placed(
                    AttentivePooler(self.embed_dim, heads, self.pool_depth)
                )
        self.num_classes = num_classes
        linear = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
        self.head = self._placed(linear)

    def _placed(self, module: Any) -> Any:
        return module.to(self.patch_embed.proj.weight).train(self.training)

    def get_classifier(self) -> nn.Module:
        """Returns the linear classifier; an identity where there is none."""
        return self.head

    def forward_features(self, clip_bcthw: Tensor) -> Tensor:
        """Encodes clips [B, C, T, H, W] into tokens [B, N, D], `[cls]` first, as `VideoEncoder`."""
        return super().forward(clip_bcthw)

    def pool(self, tokens_bnd: Tensor) -> Tensor:
        """Pools tokens [B, N, D] of `forward_features`: [B, D]; unpooled where `global_pool=''`."""
        if self.attn_pool is not None:
            return self.attn_pool(tokens_bnd)
        if self.global_pool == "token":
            return tokens_bnd[:, 0]
        places_bnd = tokens_bnd[:, self.num_prefix_tokens :]
        return places_bnd.mean(1) if self.global_pool == "avg" else tokens_bnd

    def forward_head(self, tokens_bnd: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns logits [B, C] of tokens [B, N, D]; features [B, D] with `pre_logits`."""
        features = self.head_drop(self.pool(tokens_bnd))
        return features if pre_logits else self.head(features)

    def forward(self, clip_bcthw: Tensor, indices_bk: Tensor | None = None) -> Tensor:
        """Returns logits [B, C] of clips [B, C, T, H, W]; features [B, D] without a classifier.

        Args:
            clip_bcthw: As of `VideoEncoder`.
            indices_bk: int64 [B, K] of the tokens to keep; None keeps all.
        """
        return self.forward_head(super().forward(clip_bcthw, indices_bk))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns which parameters are of which layer, for timm's layer decay.

        Embedding and `[cls]` are the first layer; the last norm goes with the last block; pooling
        and classifier, which match nothing, are the last.
        """
        blocks = [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^cls_token|^patch_embed", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Returns the names of matrices that take no weight decay, for timm's optimisers."""
        return {"cls_token"}

    def forward_intermediates(self, clip_bcthw: Tensor, *args: Any, **given: Any) -> Any:
        """Returns features after blocks; see `intermediates.forward_intermediates`."""
        return forward_intermediates(self, clip_bcthw, *args, **given)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Removes the blocks after the last of `indices`, and returns these from 0.

        Args:
            indices: As of `intermediates`.
            prune_norm: Remove the last LayerNorm.
            prune_head: Remove pooling and classifier.
        """
        taken = taken_blocks(len(self.blocks), indices)
        depth = max(taken) + 1
        self.shape = replace(self.shape, depth=depth)
        del self.blocks[depth:]
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps less for the backward pass and computes it again; see `BlockStack`."""
        self.blocks.activation_checkpointing = enable


def _keep_head(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds the model's own pooling and classifier to the weights of an encoder, which has none."""
    parts = tuple(prefix + part for part in HEAD_PARTS)
    if not any(name.startswith(parts) for name in state):
        own = model.state_dict(prefix=prefix)
        state |= {name: value for name, value in own.items() if name.startswith(parts)}
