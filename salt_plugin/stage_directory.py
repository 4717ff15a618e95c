"""The files of one stage of a run; apart from those of the run, which take long to load."""

from __future__ import annotations

from pathlib import Path

from salt_plugin.errors import ConfigError

# Kinds of encoders of a run: what was trained, and its moving average.
KINDS = ONLINE, EMA = "online", "ema"


class StageDirectory:
    """The files of one stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = root / "metrics.csv"
        self.compute = root / "compute.json"
        self.nonfinite = root / "nonfinite.json"
        self.encoder = root / "encoder.safetensors"
        self.predictor = root / "predictor.safetensors"
        self.head = root / "head.safetensors"
        self.accuracy = root / "accuracy.json"
        self.predictions = root / "test.csv"
        self.last_checkpoint = root / "checkpoints" / "last.ckpt"
        self.best_checkpoint = root / "checkpoints" / "best.ckpt"
        self.encoders = root / "encoders"

    def other(self, kind: str) -> Path:
        """Returns where the encoder beside the result is kept: `online`, or `ema`."""
        return self.root / f"{kind}.safetensors"

    def encoder_at(self, step: int) -> Path:
        """Returns where the encoder of a step is kept, by `method.encoders_every_n_steps`."""
        return self.encoders / f"step-{step}.safetensors"

    def kept_encoders(self) -> dict[int, Path]:
        """Returns the encoders that were kept, by step, in order."""
        steps = [
            int(step)
            for path in self.encoders.glob("step-*.safetensors")
            if (step := path.stem.removeprefix("step-")).isdecimal()
        ]
        return {step: self.encoder_at(step) for step in sorted(steps)}

    @property
    def finished(self) -> bool:
        """Whether the stage has written its encoder, which it does last."""
        return self.encoder.is_file()

    def make(self) -> None:
        """Makes the folders.

        Raises:
            ConfigError: They cannot be made.
        """
        try:
            self.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.root, error) from None


def unwritable(folder: Path, error: OSError) -> ConfigError:
    """Returns the error of a folder that cannot be written to."""
    return ConfigError(f"hydra.run.dir: {folder} cannot be written to ({error.strerror})")
