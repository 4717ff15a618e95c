"""What the encoder in training is worth, on a few labelled videos, every so many steps."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from lightning_fabric.plugins.precision import Precision
from torch import Tensor

from salt_plugin.compute import Ledger
from salt_plugin.compute.cost import encoder_forward
from salt_plugin.config import ProbeConfig, RunConfig
from salt_plugin.errors import DataError, SaltError
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import encode
from salt_plugin.evaluation.lists import LabelledList, read_lists
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy
from salt_plugin.evaluation.spectrum import effective_rank
from salt_plugin.evaluation.views import ViewDataset, clip_batches
from salt_plugin.methods import VideoMethod
from salt_plugin.training.build import Stage
from salt_plugin.training.execution import evaluation_views
from salt_plugin.training.world import Ranks, within_patience

# Tokens of the targets whose rank is measured.
TARGET_TOKENS = 1024


def monitor_settings(config: RunConfig) -> ProbeConfig | None:
    """Returns which videos are looked at, and how; None where nothing is monitored.

    Raises:
        DataError: The lists cannot work.
    """
    method, monitor = config.method, config.method.monitor
    if monitor.train is None:
        return None
    stall = within_patience(method.data.stall)
    settings = evaluation_views(config, train=monitor.train, test=monitor.test, stall=stall)
    try:
        read_lists(settings)
    except SaltError as error:
        raise DataError(f"method.monitor: {error}") from None
    return settings


class Monitor:
    """Encodes the same clips every so often, each process its share, and measures their features.

    Accuracies are those that `salt probe` gives on these videos, of the encoder that a run leaves
    (`VideoMethod.result`). A copy of it is measured, and nothing random is drawn that training
    draws: it goes on as if it had not been measured. Clips are read once, before training, and kept
    in memory as uint8.

    Args:
        stage: What is trained.
        settings: As `monitor_settings` gives them.
        ranks: The processes that train together; every one makes its own.
        precision: Of Fabric; targets are made in it.

    Raises:
        DataError: A video cannot be read.
    """

    def __init__(
        self, stage: Stage, settings: ProbeConfig, ranks: Ranks, precision: Precision
    ) -> None:
        self._stage, self._settings, self._ranks = stage, settings, ranks
        self._precision = precision
        transform, monitor = stage.run.parts.transform, stage.run.config.method.monitor
        self._normalization, self._every = transform.normalization, monitor.every
        lists = read_lists(settings)
        self._lists = [first_of_classes(one, monitor.videos) for one in (lists.train, lists.test)]
        failure = None
        try:
            self._clips = [self._read(one.paths) for one in self._lists]
        except SaltError as error:
            failure = f"method.monitor: {error}"
        for found in ranks.gather(failure):
            if found is not None:
                raise DataError(found)
        train, test = (len(one.paths) for one in self._lists)
        pricing = stage.plan.pricing
        step, shape = pricing.price(0), stage.method.result.shape
        self.flops = (train + test) * encoder_forward(shape, pricing.shapes.clip_tokens)
        self.flops += test * step.flops.get("teacher_forward", 0) // step.clips

    def measure_if_due(self, ledger: Ledger) -> dict[str, float]:
        """Measures after every so many steps and after the last, and books what that costs.

        Every process has to call it after each step.

        Returns:
            Columns of the metrics, in the first process; nothing where it is not time, or features
            are not finite.
        """
        if ledger.steps % self._every and self._stage.plan.next_price(ledger) is not None:
            return {}
        began = time.perf_counter()
        found = self._measured()
        ledger.add_evaluation(self.flops, time.perf_counter() - began)
        return found

    def _measured(self) -> dict[str, float]:
        method = self._stage.whole()
        own = [self._features(clips, method) for clips in self._clips]
        parts = self._ranks.gather([*own, self._targets(method)])
        if not self._ranks.is_first:
            return {}
        train, test, targets = (
            self._whole([part[i] for part in parts], len(one.paths))
            for i, one in enumerate([*self._lists, self._lists[1]])
        )
        features, targets_kd = torch.cat([train, test]), targets.flatten(0, 1)
        if not (features.isfinite().all() and targets_kd.isfinite().all()):
            return {}
        (_, train_n), (_, test_n) = self._lists
        found = {
            "monitor_knn": knn_accuracy(train, train_n, test, test_n),
            "monitor_linear": linear_accuracy(train, train_n, test, test_n),
            "monitor_rank": effective_rank(features),
        }
        if len(targets_kd):
            found["monitor_target_rank"] = effective_rank(targets_kd)
        return found

    def _features(self, clips: Tensor, method: VideoMethod) -> Tensor:
        """Returns the features [n, D] of clips, on the CPU."""
        normalization, result = self._normalization, copy.deepcopy(method.result)
        encoder = FrozenEncoder("monitored", result, normalization.mean, normalization.std)
        tokens = (encode(encoder, one[:, None], self._settings) for one in self._batches(clips))
        return torch.cat([encoder.pool(one)[:, 0].cpu() for one in tokens])

    def _targets(self, method: VideoMethod) -> Tensor:
        """Returns some tokens [n, K, D] of what is predicted of the test clips; K is 0 without."""
        per_clip, found = -(-TARGET_TOKENS // len(self._lists[1].paths)), []
        with torch.no_grad(), self._precision.forward_context():
            for clips in self._batches(self._clips[1]):
                tokens = method.targets(clips)
                if tokens is None:
                    return torch.empty(len(self._clips[1]), 0, 1)
                tokens = tokens[:, :: max(1, tokens.shape[1] // per_clip)]
                found.append(tokens[:, :per_clip].float().cpu())
        return torch.cat(found)

    def _batches(self, clips: Tensor) -> Iterator[Tensor]:
        device = next(self._stage.method.parameters()).device
        for part in clips.split(self._settings.feature_batch_size):
            yield self._normalization(part.to(device))

    def _read(self, paths: list[str]) -> Tensor:
        """Returns this process's clips, uint8 [n, C, T, H, W]; one at least."""
        own, normalization = paths[self._ranks.rank :: self._ranks.size], self._normalization
        # One by one: batches of floats would take four times the shared memory of training's.
        settings = replace(self._settings, feature_batch_size=1)
        views = ViewDataset(own or paths[:1], settings, normalization.mean, normalization.std)
        read = [views_bvcthw[:, 0] for _, views_bvcthw in clip_batches(views)]
        # Exactly the pixels that were normalised.
        return torch.cat([normalization.undo(one).mul(255).round().byte() for one in read])

    def _whole(self, parts: Sequence[Tensor], count: int) -> Tensor:
        """Returns what all processes have, in the order of the list."""
        whole = parts[0].new_empty(count, *parts[0].shape[1:])
        for rank, part in enumerate(parts):
            place = whole[rank :: len(parts)]
            place.copy_(part[: len(place)])
        return whole


def first_of_classes(listed: LabelledList, most: int) -> LabelledList:
    """Returns the first videos of each class, equally many as far as there are, in their order.

    Args:
        listed: Videos with their classes.
        most: How many in all; of more classes than that, the first ones have one each.
    """
    met: Counter[int] = Counter()
    turn = []
    for label in listed.labels_n.tolist():
        turn.append((met[label], label))
        met[label] += 1
    kept = sorted(sorted(range(len(turn)), key=turn.__getitem__)[:most])
    return LabelledList([listed.paths[i] for i in kept], listed.labels_n[kept])
