"""Training a grid of attentive probes in one pass over the data, and choosing the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.grid_settings import GridPoint, GridSettings, halving_plan
from salt_plugin.evaluation.predictions import Features, accuracies, predict

__all__ = ["Features", "GridPoint", "GridResult", "GridSettings", "predict", "train_grid"]

DTYPES = {"bf16": torch.bfloat16, "32": torch.float32}
_INIT, _ORDER = 0, 1


class GridResult(NamedTuple):
    """A trained grid: its points (rate by rate), the best one's index and probe."""

    points: list[GridPoint]
    best: int
    probe: AttentiveProbe


def train_grid(
    features: Features,
    labels_n: Tensor,
    choose_features: Features,
    choose_labels_n: Tensor,
    num_classes: int,
    settings: GridSettings,
    progress: Callable[[int, int], None] | None = None,
    device: str | torch.device = "cpu",
) -> GridResult:
    """Trains a probe for each pair of rate and decay, all on the same batches.

    Each is trained as it would be alone: its initial weights are a function of (seed, its place in
    the grid), as V-JEPA 2 draws them for each probe, and its updates are those of
    `torch.optim.AdamW`. In step s of S, counted from 1, the rate is that of the point times
    (1 + cos(pi s / S)) / 2, so that the last step changes nothing (V-JEPA 2's way). The order of
    the videos is a function of (seed, epoch). The best is the one with the highest accuracy after
    the last epoch, of equal ones the first; probes that ended early or are not finite cannot win.

    Args:
        features: To train on, with one view each: shape (n, 1, N, D).
        labels_n: Their classes, int64 [n].
        choose_features: To choose by; shape (m, V, N, D). Softmax is averaged over the views.
        choose_labels_n: Their classes, int64 [m].
        num_classes: C.
        settings: The grid.
        progress: Called after each step with the steps done and those in all.
        device: Where the probes are trained.

    Raises:
        DataError: Features and labels do not fit each other or the number of classes.
        ConfigError: No probe stayed finite.
    """
    _check(features, labels_n, num_classes, views=1)
    _check(choose_features, choose_labels_n, num_classes)
    grid = list(product(settings.learning_rates, settings.weight_decays))
    probes = [
        _initial(settings, place, features.shape[-1], num_classes).to(device)
        for place in range(len(grid))
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(probe.parameters()), "lr": rate, "weight_decay": decay, "peak": rate}
            for probe, (rate, decay) in zip(probes, grid, strict=True)
        ],
        fused=True,
    )
    points = [GridPoint(rate, decay, None, 0) for rate, decay in grid]
    rungs = halving_plan(len(grid), settings.epochs) if settings.halving else {}
    steps_each = math.ceil(len(labels_n) / settings.batch_size)
    total = settings.epochs * steps_each
    alive, step = list(range(len(grid))), 0
    for epoch in range(1, settings.epochs + 1):
        bank = ProbeBank([probes[i] for i in alive], DTYPES[settings.precision])
        for indices in _batches(settings, epoch, len(labels_n)):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * (1 + math.cos(math.pi * step / total)) / 2
            bank.backward(features[indices][:, 0].to(device), labels_n[indices].to(device))
            optimizer.step()
            optimizer.zero_grad()
            if progress is not None:
                progress(step, total)
        if epoch in rungs or epoch == settings.epochs:
            found = accuracies(bank, choose_features, choose_labels_n, settings.batch_size, device)
            for i, accuracy in zip(alive, found, strict=True):
                points[i] = points[i]._replace(accuracy=accuracy, epochs=epoch)
            alive = _ranked(points, alive)[: rungs.get(epoch, len(grid))]
            if not alive:
                raise ConfigError(
                    "learning_rates: no probe stayed finite, the lowest rate was "
                    f"{min(settings.learning_rates)}; lower it, or look for features that are not "
                    "finite"
                )
    return GridResult(points, alive[0], probes[alive[0]].eval())


def _ranked(points: list[GridPoint], alive: list[int]) -> list[int]:
    """Returns those with an accuracy, the highest first, of equal ones the earlier."""
    scores = {i: accuracy for i in alive if (accuracy := points[i].accuracy) is not None}
    return sorted(scores, key=lambda i: (-scores[i], i))


def _initial(settings: GridSettings, place: int, dim: int, num_classes: int) -> AttentiveProbe:
    entropy = np.random.SeedSequence(settings.seed, spawn_key=(_INIT, place))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(entropy.generate_state(1)[0]))
        return AttentiveProbe(dim, num_classes, settings.num_heads, settings.depth)


def _batches(settings: GridSettings, epoch: int, num_videos: int) -> Iterator[Tensor]:
    sequence = np.random.SeedSequence(settings.seed, spawn_key=(_ORDER, epoch))
    order_n = np.random.default_rng(sequence).permutation(num_videos)
    return iter(torch.from_numpy(order_n).split(settings.batch_size))


def _check(
    features: Features, labels_n: Tensor, num_classes: int, views: int | None = None
) -> None:
    if len(features.shape) != 4 or (views is not None and features.shape[1] != views):
        expected = f"(videos, {views or 'views'}, tokens, width)"
        raise DataError(f"features: expected the shape {expected}, found {tuple(features.shape)}")
    if len(labels_n) != features.shape[0] or not len(labels_n):
        raise DataError(
            f"labels: expected one for each of {features.shape[0]} videos, found {len(labels_n)}"
        )
    if labels_n.min() < 0 or labels_n.max() >= num_classes:
        raise DataError(
            f"labels: expected classes 0 to {num_classes - 1}, found {labels_n.min()} to "
            f"{labels_n.max()}"
        )
