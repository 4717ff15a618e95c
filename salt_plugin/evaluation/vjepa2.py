"""V-JEPA 2's own evaluation: the encoder in the loop, all probes in one pass, no cache.

As its `evals/` and `configs/eval/` do, but for this: products are in bfloat16 on a GPU instead of
float16 with a scaled loss; probes are chosen and scored after the last epoch; and they are chosen
on a part of the training list unless `choose` says `test`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.bank import ProbeBank
from salt_plugin.evaluation.convergence import unconverged
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.epoch_file import EpochFile
from salt_plugin.evaluation.features import Progress, precision_of, quiet
from salt_plugin.evaluation.grid import (
    DTYPES,
    GridPoint,
    GridSettings,
    batches_of,
    initial_probe,
)
from salt_plugin.evaluation.lists import LabelledList, Lists
from salt_plugin.evaluation.probes import held_out
from salt_plugin.evaluation.processes import ALONE, Processes
from salt_plugin.evaluation.segment_loop import SegmentLoop
from salt_plugin.models.attentive import AttentiveProbe

TITLE = "probes and encoder"


class HeadsResult(NamedTuple):
    """What all probes came to.

    Attributes:
        points: One for each, with its accuracy on the list used for choosing.
        best: Place of the chosen one, of equal ones the first.
        probe: The chosen one.
        predicted_n: Its classes of the test videos, int64 [n].
        chosen_on: `val`, `train` for a part of the training list, or `test`; None where there is
            one probe.
        unconverged: As `convergence.unconverged` says.
    """

    points: list[GridPoint]
    best: int
    probe: AttentiveProbe
    predicted_n: Tensor
    chosen_on: str | None
    unconverged: str | None


@dataclass(frozen=True)
class _Schedule:
    """Rate and decay of a probe in each step, counted from 1."""

    rate: float
    decay: float
    warmup: int
    start_rate: float
    final_decay: float | None
    total: int

    def at(self, step: int) -> dict[str, float]:
        final = self.decay if self.final_decay is None else self.final_decay
        decay = final + (self.decay - final) * _cosine(step / self.total)
        if step < self.warmup:
            rate = self.start_rate + step / self.warmup * (self.rate - self.start_rate)
        else:
            rate = self.rate * _cosine((step - self.warmup) / max(1, self.total - self.warmup))
        return {"lr": rate, "weight_decay": decay}


def train_heads(
    encoder: FrozenEncoder,
    lists: Lists,
    config: ProbeConfig,
    progress: Progress = quiet,
    processes: Processes = ALONE,
) -> HeadsResult:
    """Trains every probe on augmented segments, whose tokens are computed anew in each epoch.

    A probe reads the tokens of all segments of a video together. In a test its softmax is averaged
    over the crops. After an interruption training goes on from the last whole epoch.

    Args:
        encoder: On the device where it computes.
        lists: As `read_lists` gives them.
        config: With the protocol `vjepa2`.
        progress: Called after each step.
        processes: Each takes every n-th video of a step.

    Raises:
        ConfigError: No probe stayed finite.
        SaltError: A video cannot be read.
    """
    settings = GridSettings(
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        precision=precision_of(config.precision, encoder.device),
    )
    train, choose, chosen_on = _choice(lists, config)
    per_epoch = math.ceil(len(train.paths) / config.batch_size)
    schedules = schedules_of(config, per_epoch)
    probes = [
        initial_probe(settings, place, encoder.embed_dim, len(lists.classes)).to(encoder.device)
        for place in range(len(schedules))
    ]
    groups = [{"params": list(probe.parameters())} for probe in probes]
    optimizer = torch.optim.AdamW(groups, fused=True)
    parameters = [one for group in groups for one in group["params"]]
    bank = ProbeBank(probes, DTYPES[settings.precision])
    loop = SegmentLoop(encoder, config, processes)
    losses_sp = torch.zeros(config.epochs * per_epoch, len(probes), device=encoder.device)
    file, done = EpochFile(encoder, train, config, processes), 0
    if (held := file.read()) is not None:
        done = held["epoch"]
        for probe, state in zip(probes, held["probes"], strict=True):
            probe.load_state_dict(state)
        optimizer.load_state_dict(held["optimizer"])
        if processes.rank == 0:  # losses are added up in the end
            losses_sp += held["losses"].to(losses_sp)
    step = done * per_epoch

    def learn(places: Tensor, tokens_bvnd: Tensor, whole: int) -> None:
        labels_b = train.labels_n[places].to(encoder.device)
        losses_sp[step] += bank.backward(tokens_bvnd[:, 0], labels_b, whole)

    for epoch in range(done + 1, config.epochs + 1):
        batches = list(batches_of(settings, epoch, len(train.paths)))
        for _ in loop.steps(train.paths, batches, epoch, learn):
            step += 1
            for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
                group.update(schedule.at(step))
            for one in parameters:
                if one.grad is None:  # the last batch of an epoch has too few videos for all
                    one.grad = torch.zeros_like(one)
            processes.add_up(one.grad for one in parameters if one.grad is not None)
            optimizer.step()
            optimizer.zero_grad()
            progress(TITLE, step, len(losses_sp))
        losses_of_all_sp = losses_sp.clone()
        processes.add_up([losses_of_all_sp])
        states = [probe.state_dict() for probe in probes]
        state = {"epoch": epoch, "probes": states, "optimizer": optimizer.state_dict()}
        file.write({**state, "losses": losses_of_all_sp})
    processes.add_up([losses_sp])
    found_pn, finite_p = loop.predictions(bank, choose.paths)
    right_p = (found_pn == choose.labels_n).double().mean(1).tolist()
    points = [
        GridPoint(one.rate, one.decay, right if finite else None, config.epochs)
        for one, right, finite in zip(schedules, right_p, finite_p.tolist(), strict=True)
    ]
    if not finite_p.any():
        raise ConfigError("probe.heads: no probe stayed finite; lower the rates")
    accuracies = [-1.0 if point.accuracy is None else point.accuracy for point in points]
    best = accuracies.index(max(accuracies))
    if choose is lists.test:
        predicted_n = found_pn[best]
    else:
        chosen = ProbeBank([probes[best]], bank.dtype)
        predicted_n = loop.predictions(chosen, lists.test.paths)[0][0]
    file.remove()
    reason = unconverged(losses_sp[:, best].cpu(), len(lists.classes))
    return HeadsResult(points, best, probes[best].eval(), predicted_n, chosen_on, reason)


def schedules_of(config: ProbeConfig, steps_of_epoch: int) -> list[_Schedule]:
    """Returns the schedule of each probe, group by group, rate by rate."""
    return [
        _Schedule(
            rate,
            decay,
            int(group.warmup * steps_of_epoch),
            group.start_rate,
            group.final_decay,
            config.epochs * steps_of_epoch,
        )
        for group in config.heads
        for rate, decay in product(group.rates, group.decays)
    ]


def _choice(lists: Lists, config: ProbeConfig) -> tuple[LabelledList, LabelledList, str | None]:
    """Returns what to learn from, what to choose on, and the name of the latter."""
    if len(config.heads) == len(config.heads[0].rates) == len(config.heads[0].decays) == 1:
        return lists.train, lists.test, None
    if lists.val is not None:
        return lists.train, lists.val, "val"
    if config.choose == "test":
        return lists.train, lists.test, "test"
    held_n = held_out(lists.train.labels_n, config.seed)
    if not held_n.any():
        raise ConfigError(
            f"probe.train={config.train}: no class has two videos, so that none can be held out to "
            "choose a probe on; give --val, or --choose test"
        )
    parts = [
        LabelledList([lists.train.paths[i] for i in rows.tolist()], lists.train.labels_n[rows])
        for rows in ((~held_n).nonzero().flatten(), held_n.nonzero().flatten())
    ]
    return parts[0], parts[1], "train"


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2
