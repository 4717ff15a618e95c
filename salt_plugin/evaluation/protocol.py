"""Frozen evaluation of an encoder by the paper's protocol: the entry point."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig, clip_seen
from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.bootstrap import accuracy_interval
from salt_plugin.evaluation.cache import cache_root
from salt_plugin.evaluation.controls import permuted
from salt_plugin.evaluation.device import chosen_device
from salt_plugin.evaluation.encoders import FrozenEncoder, open_encoder
from salt_plugin.evaluation.extract import Wanted, extract
from salt_plugin.evaluation.features import Extraction, Progress, quiet
from salt_plugin.evaluation.grid import GridResult, GridSettings, predict, train_grid
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import Lists, read_lists
from salt_plugin.evaluation.metadata import metadata_predictions
from salt_plugin.evaluation.probes import knn_predictions, linear_predictions
from salt_plugin.evaluation.results import ProbeReport, ProtocolResult
from salt_plugin.evaluation.stored import StoredFeatures, TokenFeatures
from salt_plugin.evaluation.views import Views

_CLIPS_AT_ONCE = 16


def probe(
    encoder: str | FrozenEncoder,
    config: ProbeConfig,
    device: str | None = None,
    progress: Progress = quiet,
) -> ProbeReport:
    """Probes a frozen encoder.

    Args:
        encoder: What `open_encoder` takes, or what it returns.
        config: As `salt_plugin.config.probe_config` gives it.
        device: Where to compute; None: a GPU where there is one.
        progress: Told how far it is.

    Returns:
        Accuracy, interval and predictions of each protocol. With the attentive protocol, `linear`
        and `knn` are also given on its best probe's pooled features, as `linear_attention` and
        `knn_attention`.

    Raises:
        SaltError: A list, a file, a key or a video that cannot work.
    """
    evaluation = _evaluation(encoder, config, device, progress)
    lists = evaluation.lists
    leaks = find_leaks(lists)
    results, best = evaluation.run(lists.train.labels_n, control=None)
    controls = {str(name): evaluation.under(name) for name in config.controls}
    return ProbeReport(
        encoder=evaluation.encoder.name,
        classes=lists.classes,
        labels_n=lists.test.labels_n,
        results=results,
        controls=controls,
        probe=best,
        clip=clip_seen(config),
        random_weights=evaluation.encoder.random,
        leaks=leaks,
    )


def stored_features(
    encoder: str | FrozenEncoder,
    config: ProbeConfig,
    split: str,
    device: str | None = None,
    progress: Progress = quiet,
) -> StoredFeatures:
    """Returns the features that `probe` reads, computing those that are not stored.

    Args:
        encoder: As for `probe`, like the others.
        config: Tokens come with the protocol `attentive`.
        split: `train`, `val` or `test`.
        device: Where to compute.
        progress: Told how far it is.

    Raises:
        SaltError: As `probe`.
    """
    return _evaluation(encoder, config, device, progress).features(split)


def _evaluation(
    encoder: str | FrozenEncoder, config: ProbeConfig, device: str | None, progress: Progress
) -> _Evaluation:
    where = chosen_device(device)
    lists = read_lists(config)
    if isinstance(encoder, str):
        encoder = open_encoder(encoder, size=config.size, seed=config.seed)
    encoder.check_clip(config.frames, config.size)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if torch.device(where).type == "cuda" else "32"
    how = Extraction(where, precision, config.feature_batch_size, config.workers, config.stall)
    return _Evaluation(encoder.to(where), lists, config, how, progress)


class _Evaluation(NamedTuple):
    encoder: FrozenEncoder
    lists: Lists
    config: ProbeConfig
    how: Extraction
    progress: Progress

    def under(self, control: str) -> dict[str, ProtocolResult]:
        """Runs the protocols under a control; `metadata` has one of its own."""
        train, seed = self.lists.train, self.config.seed
        if control == "metadata":
            test = self.lists.test.paths
            found = metadata_predictions(train.paths, train.labels_n, test, seed)
            return {"metadata": self._scored(torch.from_numpy(found))}
        if control == "permuted":
            return self.run(permuted(train.labels_n, seed), control=None)[0]
        return self.run(train.labels_n, control)[0]

    def run(
        self, labels_n: Tensor, control: str | None
    ) -> tuple[dict[str, ProtocolResult], AttentiveProbe | None]:
        """Runs the protocols on labels to learn from, and features as they are or controlled."""
        learn, test = self.features("train", control), self.features("test", control)
        results: dict[str, ProtocolResult] = {}
        best = None
        pooled = {"": (learn.means, test.means)}
        if learn.tokens is not None and test.tokens is not None:
            grid = self._grid(learn.tokens, labels_n, test.tokens, control)
            best = grid.probe
            chosen_on = "test" if self.lists.val is None else "val"
            results["attentive"] = self._scored(
                predict(best, test.tokens, self.config.batch_size).argmax(1),
                grid=grid.points,
                best=grid.best,
                chosen_on=chosen_on if len(grid.points) > 1 else None,
            )
            pooled["_attention"] = _pooled(best, learn.tokens), _pooled(best, test.tokens)
        for suffix, (learn_nvd, test_nvd) in pooled.items():
            learn_nd = learn_nvd[:, 0]
            if "linear" in self.config.protocols:
                predicted_n = linear_predictions(learn_nd, labels_n, test_nvd)
                results[f"linear{suffix}"] = self._scored(predicted_n)
            if "knn" in self.config.protocols:
                predicted_n = knn_predictions(learn_nd, labels_n, test_nvd.mean(1))
                results[f"knn{suffix}"] = self._scored(predicted_n)
        return results, best

    def _grid(
        self, learn: TokenFeatures, labels_n: Tensor, test: TokenFeatures, control: str | None
    ) -> GridResult:
        choose, choose_labels_n = test, self.lists.test.labels_n
        if self.lists.val is not None:
            tokens = self.features("val", control).tokens
            assert tokens is not None
            choose, choose_labels_n = tokens, self.lists.val.labels_n
        return train_grid(
            learn,
            labels_n,
            choose,
            choose_labels_n,
            len(self.lists.classes),
            _settings(self.config, self.how.precision),
            partial(self.progress, "attentive probes" + (f", {control}" if control else "")),
            self.how.device,
        )

    def features(self, split: str, control: str | None = None) -> StoredFeatures:
        """Returns the features of a split; training has one view, the others those asked for."""
        config = self.config
        views = Views() if split == "train" else Views(config.segments, config.crops)
        wanted = Wanted(
            paths=getattr(self.lists, split).paths,
            views=views,
            control=control,
            seed=config.seed + ("train", "val", "test").index(split),
            tokens="attentive" in config.protocols,
        )
        title = f"features, {split}" + (f", {control}" if control else "")
        root = cache_root(config.cache)
        return extract(self.encoder, wanted, config, self.how, root, self.progress, title)

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


def _settings(config: ProbeConfig, precision: str) -> GridSettings:
    settings = GridSettings(
        epochs=config.epochs,
        batch_size=config.batch_size,
        halving=config.grid == "halving",
        seed=config.seed,
        precision=precision,
    )
    if config.grid == "fast":  # the paper's protocol for ablations (section 6, printed)
        return replace(settings, learning_rates=(1e-3,), weight_decays=(0.01,))
    return settings


@torch.no_grad()
def _pooled(best: AttentiveProbe, tokens: TokenFeatures) -> Tensor:
    """Returns what the probe's query gathers, before the classifier: float32 [n, V, D]."""
    device = next(best.parameters()).device
    parts = []
    for indices in torch.arange(tokens.shape[0]).split(_CLIPS_AT_ONCE):
        tokens_bvnd = tokens[indices].to(device)
        pooled = best.pooler(tokens_bvnd.flatten(0, 1))
        parts.append(pooled.unflatten(0, tokens_bvnd.shape[:2]).cpu())
    return torch.cat(parts)
