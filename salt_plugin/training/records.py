"""What changes as a stage is trained, and what is written of it: books, checkpoints, encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lightning_fabric.plugins.precision import Precision
from torch.optim import Optimizer

from salt_plugin.checkpoints import read_torch_file, save_encoder
from salt_plugin.compute import Ledger
from salt_plugin.config import registry
from salt_plugin.errors import CheckpointError
from salt_plugin.files import write_json
from salt_plugin.models.divided import divided_as
from salt_plugin.run_directory import recent_loss
from salt_plugin.stop_signals import StopSignals
from salt_plugin.training.accuracy import Accuracy
from salt_plugin.training.ancestors import shaping
from salt_plugin.training.budget import CONTINUE, START
from salt_plugin.training.build import Stage
from salt_plugin.training.checkpoint import ResumePoint, Saving
from salt_plugin.training.metrics import Metrics
from salt_plugin.training.monitor import Monitor
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.progress import Progress
from salt_plugin.training.skipped import SkippedFiles
from salt_plugin.training.world import Ranks


def take_up(stage: Stage, resumed: ResumePoint) -> Mapping[str, Any] | None:
    """Returns the checkpoint that a stage goes on from, or that it continues, or None.

    Its weights are loaded, before devices have parts of them.

    Raises:
        CheckpointError: It is of another stage, or of an earlier version.
    """
    method, origin = stage.method, stage.run.origin
    held: Mapping[str, Any] | None
    if resumed.path is not None:
        held = read_torch_file(resumed.path)
    elif origin is not None:
        held, origin.state = origin.state, None
    else:
        return None
    assert held is not None
    with _fits(stage, resumed):
        if resumed.path is not None:
            method.on_load_checkpoint(dict(held))
        method.load_state_dict(held["state_dict"])
    return held


@contextmanager
def _fits(stage: Stage, resumed: ResumePoint) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        place, fix = str(resumed.path), "delete it to start the stage again"
        if resumed.path is None:
            place = f"{CONTINUE}={stage.run.config.method.continue_from}"
            fix = f"start from its encoder by {START}"
        raise CheckpointError(f"{place} does not fit this stage ({error}); {fix}") from error


class Records:
    """What the loop calls after each step.

    A stage that goes on takes up its checkpoint, and cuts its files back to that step.

    Args:
        stage: The stage.
        resumed: Where it goes on.
        held: What that holds, as `take_up` gives it.
        ranks: The processes that train together.
        precision: Of Fabric.
        optimizer: Of the stage.
        signals: Ask training to stop.

    Attributes:
        ledger: What was spent.
        metrics: A row a step.
        skipped: Files that could not be read.
        progress: For a person to look at.
        nonfinite: Steps that are not finite.
        saving: Checkpoints.
        accuracy: Of a classifier; None of what is none.
        monitor: Looks at the encoder; None where nobody asks for that.
    """

    def __init__(
        self,
        stage: Stage,
        resumed: ResumePoint,
        held: Mapping[str, Any] | None,
        ranks: Ranks,
        precision: Precision,
        optimizer: Optimizer,
        signals: StopSignals,
    ) -> None:
        run, files, config, step = stage.run, stage.files, stage.run.config, resumed.step
        self.stage = stage
        self.ranks = ranks
        self.precision = precision
        self.optimizer = optimizer
        self.signals = signals
        self.ledger = Ledger()
        self.nonfinite = NonFinite(
            ranks,
            files.nonfinite,
            config.method.max_nonfinite_steps,
            stage.plan.seed,
            step,
            getattr(precision, "scaler", None),
        )
        if held is not None:
            self._restore(held, resumed)

        self.monitor: Monitor | None = None
        if run.monitor is not None:
            self.monitor = Monitor(stage, run.monitor, ranks, precision)
        self.metrics = Metrics(config, files.root, ranks, step)
        distinct, max_bad = len(set(run.videos.paths)), config.method.data.max_bad
        listed = run.directory.skipped
        self.skipped = SkippedFiles(ranks, listed, distinct, max_bad)
        # The teacher of a SALT run is a means: encoders are kept of what the run is for.
        result = registry.get(config.method.name).result
        self._keep_every = config.method.encoders_every_n_steps if stage.name == result else None
        if ranks.is_first:
            for kept, path in files.kept_encoders().items():
                if kept > step:
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)
        self.saving = Saving(
            files.last_checkpoint,
            resumed,
            config.method.checkpoint,
            ranks,
            self.nonfinite,
            [files.metrics, listed],
            self.write,
            self.state,
        )
        self.progress = Progress(stage.plan, self.ledger, ranks.is_first)
        lists, say, self.accuracy = run.labelled, self.progress.console.print, None
        if lists is not None:
            self.accuracy = Accuracy(stage, lists, ranks, precision, self.ledger, step, say)
        continues = held is not None and resumed.path is None
        if continues:  # from here on the other run may change, or go
            self.saving.save_if_due(step, now=True)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds.

        Order, masks and augmentation are no state: they are functions of the seed and the step.
        """
        method = self.stage.method
        state = {
            "global_step": self.ledger.steps,
            "state_dict": method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "ledger": self.ledger.as_dict(),
            "nonfinite": {"in_a_row": self.nonfinite.in_a_row},
            "card": self.stage.card(self.ledger),
            "shaping": shaping(self.stage.plan.spec, self.stage.run.parts),
        }
        method.on_save_checkpoint(state)
        return state

    def _restore(self, held: Mapping[str, Any], resumed: ResumePoint) -> None:
        """Takes up what a checkpoint holds beside the weights.

        Of a run that is continued these are the moments of the optimiser alone: the ledger starts
        anew, and the rates are this run's own.

        Raises:
            CheckpointError: It is of another stage, or of an earlier version.
        """
        with _fits(self.stage, resumed):
            optimizer = self._divided(held["optimizer"])
            if resumed.path is None:
                own = self.optimizer.state_dict()["param_groups"]
                self.optimizer.load_state_dict({**optimizer, "param_groups": own})
                return
            self.optimizer.load_state_dict(optimizer)
            self.precision.load_state_dict(held["precision"])
            self.ledger.load(held["ledger"])
            self.nonfinite.in_a_row = held["nonfinite"]["in_a_row"]

    def _divided(self, optimizer: dict[str, Any]) -> dict[str, Any]:
        """Returns the state of an optimiser, divided as its parameters are."""
        groups = self.optimizer.param_groups
        parameters = [one for group in groups for one in group["params"]]
        state = {
            number: {
                name: divided_as(value, parameters[number]) if value.ndim else value
                for name, value in values.items()
            }
            for number, values in optimizer["state"].items()
        }
        return {**optimizer, "state": state}

    def make_whole(self) -> None:
        """Goes on with a whole copy, where the method was divided, once it is trained."""
        self.stage = replace(self.stage, method=self.stage.whole(), undivided=None)
        if self.accuracy is not None:
            self.accuracy.stage = self.stage
            self.accuracy.look_at(self.stage.method)

    def write(self) -> None:
        """Writes the files that a resume needs; they must be as recent as the checkpoint."""
        if self.ranks.is_first:
            write_json(self.stage.files.compute, self.stage.compute(self.ledger))
        self.metrics.flush()
        self.skipped.share()

    def evaluate_if_due(self) -> dict[str, float]:
        """Returns what a row of the metrics has of validation and monitor; nothing in between."""
        found = {} if self.accuracy is None else self.accuracy.validate_if_due()
        if self.monitor is not None:
            found |= self.monitor.measure_if_due(self.ledger)
        self.progress.note(found)
        return found

    def keep_encoder_if_due(self, last: bool = False) -> None:
        """Keeps the encoder when it is time, or of the last step; every process has to call it."""
        step, files = self.ledger.steps, self.stage.files
        if self._keep_every is None or (step % self._keep_every and not last):
            return
        self.nonfinite.settle()  # which may end training before an encoder is kept
        self.metrics.flush()
        result = self.stage.whole().result
        if self.ranks.is_first and step not in files.kept_encoders():
            loss = recent_loss(files.metrics)
            card = {**self.stage.card(self.ledger), "step": step, "loss": loss}
            save_encoder(result, files.encoder_at(step), card)

    def close(self) -> None:
        """Ends what has a file or a line of the terminal open."""
        self.progress.stop()
        self.metrics.close()
        self.saving.close()
