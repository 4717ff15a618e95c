"""A classifier on the tokens of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from salt_plugin.models.attentive import AttentiveProbe
from salt_plugin.models.block import INIT_STD
from salt_plugin.models.divided import divided_as
from salt_plugin.shapes import EncoderShape, HeadShape


class Head(nn.Module):
    """Maps the tokens of an encoder, as its `forward` gives them, to logits.

    `mean` reads their mean, or `[cls]` where the encoder has one, as probes do; `time` the mean
    over places at each time, the times one after the other, so that order is not lost;
    `attentive` is the attentive probe, on all tokens.

    Args:
        encoder: Shape of the encoder.
        shape: Pooling, classes, and token frames of a clip.
        names: Names of the classes, where they are known.
    """

    classifier: nn.Linear | AttentiveProbe

    def __init__(self, encoder: EncoderShape, shape: HeadShape, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.shape, self.dim, self.cls_token = shape, encoder.embed_dim, encoder.cls_token
        self.names = list(names)
        if shape.pool == "attentive":
            self.classifier = AttentiveProbe(self.dim, shape.classes)
        else:
            self.classifier = nn.Linear(shape.features(self.dim), shape.classes)
            trunc_normal_(self.classifier.weight, std=INIT_STD)
            zeros_(self.classifier.bias)

    def pool(self, tokens_bnd: Tensor) -> Tensor:
        """Returns what the classifier reads: [B, F], or the tokens [B, N, D] of `attentive`."""
        if self.shape.pool == "attentive":
            return tokens_bnd
        if self.shape.pool == "mean" and self.cls_token:
            return tokens_bnd[:, 0]
        places_bnd = tokens_bnd[:, int(self.cls_token) :]
        if self.shape.pool == "mean":
            return places_bnd.mean(1)
        return places_bnd.unflatten(1, (self.shape.frames, -1)).mean(2).flatten(1)

    def forward(self, tokens_bnd: Tensor) -> Tensor:
        """Returns logits [B, C] of tokens [B, N, D]."""
        return self.classifier(self.pool(tokens_bnd))

    @torch.no_grad()
    def start_as(self, weight_cf: Tensor, bias_c: Tensor) -> None:
        """Takes the weights [C, F] and biases [C] of a linear probe on what `pool` gives."""
        assert isinstance(self.classifier, nn.Linear)
        for own, given in ((self.classifier.weight, weight_cf), (self.classifier.bias, bias_c)):
            own.copy_(divided_as(given, own))
