"""Frozen evaluation of an encoder by the paper's protocol: the entry point."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig, clip_seen
from salt_plugin.config.evaluation import VJEPA2
from salt_plugin.evaluation.cache import StoredFeatures
from salt_plugin.evaluation.controls import permuted
from salt_plugin.evaluation.demands import demands
from salt_plugin.evaluation.encoders import FrozenEncoder, chosen_device, open_encoder
from salt_plugin.evaluation.features import Progress, precision_of, quiet, stored_features
from salt_plugin.evaluation.grid import GridResult, GridSettings, pooled, predict, train_grid
from salt_plugin.evaluation.keep import named
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import Lists, read_lists
from salt_plugin.evaluation.metadata import metadata_predictions
from salt_plugin.evaluation.probes import chosen_predictions, knn_predictions, linear_predictions
from salt_plugin.evaluation.processes import ALONE, Processes
from salt_plugin.evaluation.results import ProbeReport, ProtocolResult, accuracy_interval
from salt_plugin.evaluation.vjepa2 import train_heads
from salt_plugin.models.attentive import AttentiveProbe

_logger = logging.getLogger(__name__)


def probe(
    encoder: str | FrozenEncoder,
    config: ProbeConfig,
    device: str | None = None,
    progress: Progress = quiet,
    processes: Processes = ALONE,
) -> ProbeReport:
    """Probes a frozen encoder.

    Args:
        encoder: What `open_encoder` takes, or what it returns.
        config: As `salt_plugin.config.probe_config` gives it.
        device: Where to compute; None: a GPU where there is one.
        progress: Called after every batch and step.
        processes: Those that evaluate together, each with the same arguments but for its device;
            all return the same, which does not depend on their number.

    Returns:
        Accuracy, interval and predictions of each protocol. With the attentive protocol, `linear`
        and `knn` are also given on its best probe's pooled features, as `linear_attention` and
        `knn_attention`.

    Raises:
        SaltError: A list, a file, a key or a video that cannot work.
    """
    device = chosen_device(device)
    lists = read_lists(config)
    if isinstance(encoder, str):
        encoder = open_encoder(encoder, size=config.size, seed=config.seed)
    encoder.check_clip(config.frames, config.size)
    leaks = find_leaks(lists)
    encoder = encoder.to(device)
    if processes.rank == 0:
        _logger.info("%s: %s", encoder.name, demands(encoder, lists, config))
    evaluation = _Evaluation(encoder, lists, config, progress, processes)
    results, best = evaluation.run(lists.train.labels_n)
    return ProbeReport(
        encoder=encoder.name,
        classes=lists.classes,
        labels_n=lists.test.labels_n,
        results=results,
        controls={str(name): evaluation.under(name) for name in config.controls},
        probe=best,
        means_nvd=None if VJEPA2 in config.protocols else evaluation.features("test").means,
        clip=clip_seen(config),
        random_weights=encoder.random,
        leaks=leaks,
    )


class _Evaluation(NamedTuple):
    encoder: FrozenEncoder
    lists: Lists
    config: ProbeConfig
    progress: Progress
    processes: Processes

    def features(self, split: str, control: str | None = None) -> StoredFeatures:
        shared = self.progress, self.processes
        return stored_features(self.encoder, self.lists, split, self.config, control, *shared)

    def under(self, control: str) -> dict[str, ProtocolResult]:
        """Runs the protocols under a control; `metadata` has one of its own."""
        train, seed = self.lists.train, self.config.seed
        if control == "metadata":
            test = self.lists.test.paths
            found = metadata_predictions(train.paths, train.labels_n, test, seed)
            return {"metadata": self._scored(torch.from_numpy(found))}
        if control == "permuted":
            return self.run(permuted(train.labels_n, seed))[0]
        return self.run(train.labels_n, control)[0]

    def run(
        self, labels_n: Tensor, control: str | None = None
    ) -> tuple[dict[str, ProtocolResult], AttentiveProbe | None]:
        """Runs the protocols on labels to learn from, and features as they are or controlled."""
        config = self.config
        if VJEPA2 in config.protocols:
            return self._vjepa2()
        train, test = self.features("train", control), self.features("test", control)
        results: dict[str, ProtocolResult] = {}
        best = None
        read = {"": (train.means, test.means)}
        if train.tokens is not None and test.tokens is not None:
            grid = self._grid(train.tokens, labels_n, control)
            best = grid.probe
            results["attentive"] = self._scored(
                predict(best, test.tokens, config.batch_size).argmax(1),
                kept="all tokens",
                grid=grid.points,
                best=grid.best,
                chosen_on=self._chosen_on if len(grid.points) > 1 else None,
                unconverged=grid.unconverged,
            )
            read["_attention"] = pooled(best, train.tokens), pooled(best, test.tokens)
        for suffix, (train_nvd, test_nvd) in read.items():
            for protocol in (one for one in ("linear", "knn") if one in config.protocols):
                given = protocol, train_nvd[:, 0], labels_n, test_nvd
                if suffix or config.keep == "none":
                    words = "pooled by attention" if suffix else named(self.encoder, "none")
                    scored = self._scored(_fixed(*given), kept=words)
                else:
                    scored = self._of_kept(*given, control)
                results[f"{protocol}{suffix}"] = scored
        return results, best

    def _of_kept(
        self,
        protocol: str,
        train_nd: Tensor,
        labels_n: Tensor,
        test_nvd: Tensor,
        control: str | None,
    ) -> ProtocolResult:
        """Scores a probe on what is kept, whose dimension and strength are chosen."""
        choose, val = None, self.lists.val
        if val is not None:
            choose = self.features("val", control).means, val.labels_n
        predicted_n, points, best = chosen_predictions(
            protocol, train_nd, labels_n, test_nvd, choose, self.config.seed
        )
        return self._scored(
            predicted_n,
            kept=named(self.encoder, self.config.keep),
            grid=points,
            best=best,
            chosen_on=None if best is None else "train" if val is None else "val",
        )

    def _vjepa2(self) -> tuple[dict[str, ProtocolResult], AttentiveProbe]:
        found = train_heads(self.encoder, self.lists, self.config, self.progress, self.processes)
        scored = self._scored(
            found.predicted_n,
            kept="all tokens of all segments",
            grid=found.points,
            best=found.best,
            chosen_on=found.chosen_on,
            unconverged=found.unconverged,
        )
        return {VJEPA2: scored}, found.probe

    @property
    def _chosen_on(self) -> str:
        return "test" if self.lists.val is None else "val"

    def _grid(self, train: Tensor, labels_n: Tensor, control: str | None) -> GridResult:
        config = self.config
        settings = GridSettings(
            epochs=config.epochs,
            batch_size=config.batch_size,
            halving=config.grid == "halving",
            seed=config.seed,
            precision=precision_of(config.precision, self.encoder.device),
        )
        if config.grid == "fast":  # the paper's protocol for ablations (section 6, printed)
            settings = replace(settings, learning_rates=(1e-3,), weight_decays=(0.01,))
        choose = self.features(self._chosen_on, control).tokens
        assert choose is not None
        return train_grid(
            train,
            labels_n,
            choose,
            getattr(self.lists, self._chosen_on).labels_n,
            len(self.lists.classes),
            settings,
            partial(self.progress, "attentive probes" + (f", {control}" if control else "")),
            self.encoder.device,
            self.processes,
        )

    def _scored(self, predicted_n: Tensor, **about: Any) -> ProtocolResult:
        correct_n = predicted_n == self.lists.test.labels_n
        return ProtocolResult(
            accuracy=correct_n.double().mean().item(),
            chance=1 / len(self.lists.classes),
            n_test=len(correct_n),
            interval=accuracy_interval(correct_n, self.lists.groups, self.config.seed),
            predicted_n=predicted_n,
            **about,
        )


def _fixed(protocol: str, train_nd: Tensor, labels_n: Tensor, test_nvd: Tensor) -> Tensor:
    """Returns the classes, int64 [n], by a probe with nothing to choose."""
    if protocol == "linear":
        return linear_predictions(train_nd, labels_n, test_nvd)
    return knn_predictions(train_nd, labels_n, test_nvd.mean(1))
