"""How a grid of attentive probes is trained, and what each of them came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from salt_plugin.errors import ConfigError

PRECISIONS = ("bf16", "32")
FEWEST_HALVING_EPOCHS = 5


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

    def __post_init__(self) -> None:
        """Raises ConfigError where a value cannot work."""
        for name in ("epochs", "batch_size", "num_heads", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("learning_rates", "weight_decays"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: expected at least one value, found none")
        if self.precision not in PRECISIONS:
            expected = ", ".join(PRECISIONS)
            raise ConfigError(f"precision: expected one of {expected}, found {self.precision}")
        if self.halving and self.epochs < FEWEST_HALVING_EPOCHS:
            raise ConfigError(
                f"epochs: halving needs at least {FEWEST_HALVING_EPOCHS}, found {self.epochs}; "
                "train more epochs, or the full grid"
            )


class GridPoint(NamedTuple):
    """One probe of a grid.

    Attributes:
        learning_rate: Its learning rate.
        weight_decay: Its weight decay.
        accuracy: On the split used for choosing, when its training ended; None where its outputs
            were no longer finite.
        epochs: How many epochs it was trained.
    """

    learning_rate: float
    weight_decay: float
    accuracy: float | None
    epochs: int


def halving_plan(num_probes: int, epochs: int) -> dict[int, int]:
    """Returns how many probes go on after which epoch, in successive halving.

    After a tenth, a quarter and half of the epochs the best 2/5, 1/5 and 1/10 of the grid go on, at
    least one. Of 20 probes that costs at most 6 full trainings, 5.2 at 20 epochs; from 5 epochs on.
    """
    shares = ((10, num_probes * 2 // 5), (4, num_probes // 5), (2, num_probes // 10))
    return {max(1, epochs // part): max(1, kept) for part, kept in shares}
