"""How many clips a classifier gets right: on its way, for the best weights, and at the end."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning_fabric.plugins.precision import Precision
from torch import Tensor

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.compute import Ledger
from salt_plugin.compute.cost import encoder_forward, head_forward
from salt_plugin.data.sources import VideoList
from salt_plugin.evaluation.probes import linear_probe
from salt_plugin.evaluation.results import accuracy_interval
from salt_plugin.evaluation.views import ViewDataset, clip_batches
from salt_plugin.files import sync, write_csv, write_json
from salt_plugin.masks import split
from salt_plugin.run_directory import read_metrics
from salt_plugin.training.build import Stage
from salt_plugin.training.checkpoint import is_of_the_disk, on_host
from salt_plugin.training.execution import evaluation_views
from salt_plugin.training.parts import Labelled
from salt_plugin.training.world import Ranks


class Accuracy:
    """Evaluates a classifier on the lists of a run; each process takes a part of a list.

    What that costs is booked apart from training.

    Args:
        stage: The stage, whose method has `logits` and a `head`.
        lists: Of the run.
        ranks: The processes that train together.
        precision: Of Fabric.
        ledger: Of the stage.
        start_step: Steps that were done before; 0 forgets the best weights of an earlier start.
        say: Prints a line.

    Attributes:
        best: Accuracy on `method.val` of the best weights, which lie in `best.ckpt`; -1 where
            there are none.
    """

    def __init__(
        self,
        stage: Stage,
        lists: Labelled,
        ranks: Ranks,
        precision: Precision,
        ledger: Ledger,
        start_step: int,
        say: Callable[[str], object],
    ) -> None:
        self.stage, self.lists, self.ranks, self.precision = stage, lists, ranks, precision
        self.say = say
        self.ledger, self.config = ledger, stage.run.config
        self.method: Any
        self.look_at(stage.method)
        epoch = max(1, len(lists.train.paths) // self.config.method.global_batch_size)
        self.every = self.config.method.val_every_n_steps or epoch
        self.best = -1.0
        self._kept: list[Tensor] = []
        file = stage.files.best_checkpoint
        if start_step and file.is_file():
            self.best = read_torch_file(file)["accuracy"]
        elif ranks.is_first:
            file.unlink(missing_ok=True)

    def look_at(self, method: Any) -> None:
        """Evaluates a method from now on."""
        method.head.names = self.lists.names
        self.method = method

    def start(self) -> None:
        """Makes the classifier a linear probe where asked for, and validates it for the first time.

        Raises:
            VideoReadError: A video cannot be read.
        """
        if self.config.method.warm_start:
            self._start_as_probe()
        self.validate_if_due()

    def validate_if_due(self) -> dict[str, float]:
        """Returns `val_accuracy` where it is time, and keeps the weights if they are the best.

        Raises:
            VideoReadError: A video cannot be read.
        """
        step, val = self.ledger.steps, self.lists.val
        if val is None or (step % self.every and self.stage.plan.next_price(self.ledger)):
            return {}
        self.look_at(self.stage.whole())
        clips = self._kept or self._clips(val)
        if self.config.method.data.cache:
            clips = self._kept = list(clips)
        predicted_n = self._predictions(val, clips)
        accuracy = (predicted_n == torch.tensor(val.labels)).double().mean().item()
        if self.ranks.is_first:
            self.say(f"{self.stage.name}  step {step}: validation accuracy {accuracy:.4f}")
            if accuracy > self.best:
                self._keep_best(step, accuracy)
        return {"val_accuracy": accuracy}

    def _start_as_probe(self) -> None:
        train = self.lists.train
        self.look_at(self.stage.whole())
        features_nf = self._each(train, self._clips(train), self._features)[:, 0]
        own = linear_probe(features_nf, torch.tensor(train.labels), len(self.lists.names))
        # Another machine may round in another way.
        weight_cf, bias_c = self.ranks.gather(own)[0]
        method: Any = self.stage.method
        method.head.start_as(weight_cf, bias_c)

    def conclude(self) -> None:
        """Takes up the best weights, tests them, and writes the accuracies."""
        files, names = self.stage.files, self.lists.names
        found: dict[str, Any] = {"classes": names}
        if files.best_checkpoint.is_file():
            held = read_torch_file(files.best_checkpoint)
            self.method.load_state_dict(held["state_dict"])
            found["val"] = {"best": {"step": held["global_step"], "accuracy": held["accuracy"]}}
        test, method = self.lists.test, self.config.method
        if test is not None:
            views = {"segments": method.test_segments, "crops": method.test_crops}
            count = math.prod(views.values())
            predicted_n = self._predictions(test, self._clips(test, **views), count)
            right_n = predicted_n == torch.tensor(test.labels)
            accuracy, interval = right_n.double().mean().item(), accuracy_interval(right_n)
            found["test"] = {**views, "accuracy": accuracy, "interval": list(interval)}
        if not self.ranks.is_first:
            return
        if "val" in found:
            rows = [row for row in read_metrics(files.metrics) if "val_accuracy" in row]
            found["val"]["last"] = rows[-1]["val_accuracy"]
        if test is not None:
            listed = zip(test.paths, test.labels, predicted_n.tolist(), strict=True)
            write_csv(
                files.predictions,
                ("path", "label", "predicted"),
                [{"path": p, "label": names[a], "predicted": names[b]} for p, a, b in listed],
            )
        write_json(files.accuracy, found)
        write_json(files.compute, self.stage.compute(self.ledger))

    def _predictions(self, videos: VideoList, clips: Iterable[Tensor], views: int = 1) -> Tensor:
        """Returns the class of each video, int64 [n]: the softmax averaged over views has it."""
        shares_nvc = self._each(videos, clips, lambda x: self.method.logits(x).softmax(-1), views)
        return shares_nvc.mean(1).argmax(1)

    def _features(self, clips: Tensor) -> Tensor:
        features_nf: Tensor = self.method.head.pool(self.method.encoder(clips))
        return features_nf

    @torch.no_grad()
    def _each(
        self,
        videos: VideoList,
        clips: Iterable[Tensor],
        of: Callable[[Tensor], Tensor],
        views: int = 1,
    ) -> Tensor:
        """Returns what a function gives of the views of all videos, float32 [n, V, ...]."""
        device, at_once = next(self.method.parameters()).device, self.config.loader.batch_size
        own, began = [], time.perf_counter()
        self.method.eval()
        with self.precision.forward_context():
            for views_bvcthw in clips:
                parts = views_bvcthw.flatten(0, 1).split(at_once)
                given = torch.cat([of(part.to(device)).float().cpu() for part in parts])
                own.append(given.unflatten(0, views_bvcthw.shape[:2]))
        self.method.train()
        shapes = self.stage.plan.pricing.shapes
        each = encoder_forward(shapes.encoder, shapes.clip_tokens)
        each += head_forward(shapes.encoder, shapes.head, shapes.clip_tokens)
        seconds = time.perf_counter() - began
        self.ledger.add_evaluation(len(videos.paths) * views * each, seconds)
        return torch.cat([part for parts in self.ranks.gather(own) for part in parts])

    def _clips(self, videos: VideoList, segments: int = 1, crops: int = 1) -> Iterable[Tensor]:
        """Returns the views of this process's part of a list, float32 [b, V, C, T, H, W]."""
        own = split(range(len(videos.paths)), self.ranks.size)[self.ranks.rank]
        if not own:
            return []
        transform = self.stage.run.parts.transform
        paths = videos.paths[own.start : own.stop]
        config = evaluation_views(self.config, segments=segments, crops=crops)
        views = ViewDataset(paths, config, transform.mean, transform.std)
        return (views_bvcthw for _, views_bvcthw in clip_batches(views))

    def _keep_best(self, step: int, accuracy: float) -> None:
        file = self.stage.files.best_checkpoint
        unfinished = file.with_suffix(".tmp")
        state = {"state_dict": on_host(self.method.state_dict())}
        try:
            torch.save({**state, "global_step": step, "accuracy": accuracy}, unfinished)
            sync(unfinished)
            os.replace(unfinished, file)
        except (OSError, RuntimeError) as error:
            if not is_of_the_disk(error):
                raise
            unfinished.unlink(missing_ok=True)
            warnings.warn(
                f"the best weights so far, of step {step}, could not be written ({error}); make "
                f"room for {file}; training goes on",
                stacklevel=2,
            )
            return
        self.best = accuracy
