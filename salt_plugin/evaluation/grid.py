"""Training a grid of attentive probes in one pass over the data, and choosing the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.convergence import unconverged
from salt_plugin.evaluation.processes import ALONE, Processes
from salt_plugin.models.attentive import AttentiveProbe

DTYPES = {"bf16": torch.bfloat16, "32": torch.float32}
VIDEOS_AT_ONCE = 16
_INIT, _ORDER = 0, 1
# Steps after which processes wait for one another, so that none waits long at the end.
TOGETHER = 20


@dataclass(frozen=True)
class GridSettings:
    """How a grid is trained; the defaults are SALT's.

    Printed in its section 6: the rates, the decays, the epochs, AdamW, four blocks. From V-JEPA 2's
    repository: 16 heads, betas (0.9, 0.999), decay of every parameter, no warm-up, no clipping, and
    the schedule; its batches hold 128 to 1024 clips over 64 GPUs, and it computes in float16.

    Attributes:
        learning_rates: At the first step; each is paired with each weight decay.
        weight_decays: The same in every step.
        epochs: Passes over the data.
        batch_size: Videos of a step; the last batch of an epoch may hold fewer.
        num_heads: Of a probe's attention; see `AttentiveProbe`.
        depth: Blocks of a probe.
        halving: Whether hopeless probes end early; see `halving_plan`. Not for reported numbers.
        seed: Of initial weights and of the order of the videos.
        precision: `bf16` for products and attention in bfloat16, or `32`.
    """

    learning_rates: tuple[float, ...] = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4)
    weight_decays: tuple[float, ...] = (0.8, 0.4, 0.1, 0.01)
    epochs: int = 20
    batch_size: int = 64
    num_heads: int = 16
    depth: int = 4
    halving: bool = False
    seed: int = 0
    precision: str = "bf16"


class GridPoint(NamedTuple):
    """One probe of a grid.

    Attributes:
        learning_rate: Its learning rate.
        weight_decay: Its weight decay.
        accuracy: On the split used for choosing, when its training ended; None where its outputs
            were no longer finite.
        epochs: Number of epochs it was trained.
    """

    learning_rate: float
    weight_decay: float
    accuracy: float | None
    epochs: int


class GridResult(NamedTuple):
    """A trained grid.

    Attributes:
        points: Rate by rate.
        best: Place of the best one.
        probe: The best one.
        unconverged: Why it has not converged, as `convergence.unconverged` says; None where it has.
    """

    points: list[GridPoint]
    best: int
    probe: AttentiveProbe
    unconverged: str | None = None


def train_grid(
    features: Tensor,
    labels_n: Tensor,
    choose_features: Tensor,
    choose_labels_n: Tensor,
    num_classes: int,
    settings: GridSettings,
    progress: Callable[[int, int], None] | None = None,
    device: str | torch.device = "cpu",
    processes: Processes = ALONE,
) -> GridResult:
    """Trains a probe for each pair of rate and decay, all on the same batches.

    Each is trained as it would be alone: its initial weights are a function of (seed, its place in
    the grid), as V-JEPA 2 draws them for each probe, and its updates are those of
    `torch.optim.AdamW`. In step s of S, counted from 1, the rate is that of the point times
    (1 + cos(pi s / S)) / 2, so that the last step changes nothing (V-JEPA 2's way). The order of
    the videos is a function of (seed, epoch). The best is the one with the highest accuracy after
    the last epoch, of equal ones the first; probes that ended early or are not finite cannot win.

    Args:
        features: To train on, with one view each: floating [n, 1, N, D].
        labels_n: Their classes, int64 [n].
        choose_features: To choose by, [m, V, N, D]; the softmax is averaged over the views.
        choose_labels_n: Their classes, int64 [m].
        num_classes: C.
        settings: The grid.
        progress: Called after each step with the steps done and those in all.
        device: Where the probes are trained.
        processes: Each trains every n-th probe; all return the same.

    Raises:
        ConfigError: No probe stayed finite.
    """
    grid = list(product(settings.learning_rates, settings.weight_decays))
    first = processes.rank % len(grid)  # where there are fewer probes, some train the same one
    probes = {
        place: initial_probe(settings, place, features.shape[-1], num_classes).to(device)
        for place in range(first, len(grid), processes.size)
    }
    optimizer = torch.optim.AdamW(
        [
            {"params": list(probe.parameters()), "lr": grid[i][0], "weight_decay": grid[i][1]}
            for i, probe in probes.items()
        ],
        fused=True,
    )
    points = [GridPoint(rate, decay, None, 0) for rate, decay in grid]
    rungs = halving_plan(len(grid), settings.epochs) if settings.halving else {}
    total = settings.epochs * math.ceil(len(labels_n) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: (1 + math.cos(math.pi * (done + 1) / total)) / 2
    )
    alive, step = list(range(len(grid))), 0
    losses_sp = torch.full((total, len(grid)), torch.nan, device=device)
    for epoch in range(1, settings.epochs + 1):
        own = [i for i in alive if i in probes]
        bank = ProbeBank([probes[i] for i in own], DTYPES[settings.precision])
        for indices in batches_of(settings, epoch, len(labels_n)):
            step += 1
            tokens = features[indices].to(device).squeeze(1)
            losses_sp[step - 1, own] = bank.backward(tokens, labels_n[indices].to(device))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if progress is not None:
                progress(step, total)
            if step % TOGETHER == 0:
                processes.gather(None)
        if epoch in rungs or epoch == settings.epochs:
            found = _accuracies(bank, choose_features, choose_labels_n, settings.batch_size)
            everywhere: dict[int, float | None] = {}
            for one in processes.gather(dict(zip(own, found, strict=True))):
                everywhere |= one
            scores: list[tuple[float, int]] = []
            for i, accuracy in sorted(everywhere.items()):
                points[i] = points[i]._replace(accuracy=accuracy, epochs=epoch)
                if accuracy is not None:
                    scores.append((-accuracy, i))
            alive = [i for _, i in sorted(scores)][: rungs.get(epoch, len(grid))]
            if not alive:
                raise ConfigError(
                    "learning_rates: no probe stayed finite, the lowest rate was "
                    f"{min(settings.learning_rates)}; lower it, or look for features that are not "
                    "finite"
                )
    best = alive[0]
    held = (probes[best].cpu(), losses_sp[:, best].cpu()) if best in probes else None
    probe, losses_s = next(filter(None, processes.gather(held)))
    reason = unconverged(losses_s, num_classes)
    return GridResult(points, best, probe.to(device).eval(), reason)


def halving_plan(num_probes: int, epochs: int) -> dict[int, int]:
    """Returns how many probes go on after which epoch, in successive halving.

    After a tenth, a quarter and half of the epochs the best 2/5, 1/5 and 1/10 of the grid go on, at
    least one. Of 20 probes that costs at most 6 full trainings from 5 epochs on, 5.2 at 20 epochs.
    """
    shares = ((10, num_probes * 2 // 5), (4, num_probes // 5), (2, num_probes // 10))
    return {max(1, epochs // part): max(1, kept) for part, kept in shares}


@torch.no_grad()
def predict(probe: AttentiveProbe, features: Tensor, batch_size: int = 64) -> Tensor:
    """Returns class probabilities, float32 [n, C], averaged over the views, on the CPU.

    Args:
        probe: As `train_grid` returns it; it computes in float32.
        features: Tokens, floating [n, V, N, D].
        batch_size: Clips at once; a video counts for as many as it has views.
    """
    parts = _by_view(probe, probe, features, batch_size)
    return torch.cat([logits_bvc.softmax(-1).mean(1).cpu() for logits_bvc in parts])


@torch.no_grad()
def pooled(probe: AttentiveProbe, features: Tensor) -> Tensor:
    """Returns what the probe's query gathers, before the classifier, float32 [n, V, D]."""
    parts = _by_view(probe.pooler, probe, features, VIDEOS_AT_ONCE * features.shape[1])
    return torch.cat([pooled_bvd.cpu() for pooled_bvd in parts])


def _accuracies(
    bank: ProbeBank, features: Tensor, labels_n: Tensor, batch_size: int
) -> list[float | None]:
    """Returns the accuracy of each probe of a bank; None where an output is not finite."""
    if not bank.probes:
        return []
    parts = _by_view(bank.logits, bank.probes[0], features, batch_size)
    scores_pnc = torch.cat([logits_pbvc.softmax(-1).mean(2).cpu() for logits_pbvc in parts], 1)
    right_p = (scores_pnc.argmax(-1) == labels_n.cpu()).double().mean(1).tolist()
    finite_p = scores_pnc.isfinite().flatten(1).all(1).tolist()
    return [right if finite else None for right, finite in zip(right_p, finite_p, strict=True)]


def _by_view(
    function: Callable[[Tensor], Tensor], probe: AttentiveProbe, features: Tensor, batch_size: int
) -> Iterator[Tensor]:
    """Yields what a function makes of tokens [b * V, N, D], as [..., b, V, E], in order."""
    videos, views = features.shape[:2]
    for indices_b in torch.arange(videos).split(max(1, batch_size // views)):
        tokens_bvnd = features[indices_b].to(probe.linear.weight)
        yield function(tokens_bvnd.flatten(0, 1)).unflatten(-2, tokens_bvnd.shape[:2])


def initial_probe(settings: GridSettings, place: int, dim: int, num_classes: int) -> AttentiveProbe:
    """Returns a probe as its training starts, a function of the seed and its place."""
    entropy = np.random.SeedSequence(settings.seed, spawn_key=(_INIT, place))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(entropy.generate_state(1)[0]))
        return AttentiveProbe(dim, num_classes, settings.num_heads, settings.depth)


def batches_of(settings: GridSettings, epoch: int, num_videos: int) -> Iterator[Tensor]:
    """Yields the places of the videos of each step, in an order of the epoch, int64 [b]."""
    sequence = np.random.SeedSequence(settings.seed, spawn_key=(_ORDER, epoch))
    order_n = np.random.default_rng(sequence).permutation(num_videos)
    return iter(torch.from_numpy(order_n).split(settings.batch_size))
