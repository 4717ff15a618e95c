"""Whether the targets of a method that makes its own still tell clips apart."""

from __future__ import annotations

import warnings

from torch import Tensor

from salt_plugin.evaluation.spectrum import effective_rank, spread

MEASURE_EVERY = 100

# [ours] On the demo a random encoder has 81, V-JEPA's targets have 36 to 41, and with an EMA that
# follows too fast, whose features are the worst, 15 (docs/methods/vjepa.md).
COLLAPSED_RANK = 8.0


def measure_targets(step: int, watched_kd: Tensor | None) -> dict[str, float]:
    """Measures the targets of the first step and of every hundredth, before normalisation.

    LayerNorm would hide what it is about: a collapsed target has a spread of 0 and an effective
    rank of 1 at most.

    Args:
        step: Steps done.
        watched_kd: Some of the targets of the last step [K, D]; None of a method without such.

    Returns:
        `target_spread` and `target_rank`; nothing where it is not time, or targets are not finite.
    """
    if watched_kd is None or (step > 1 and step % MEASURE_EVERY):
        return {}
    if not watched_kd.isfinite().all():
        return {}
    rank = effective_rank(watched_kd)
    if step > 1 and rank < COLLAPSED_RANK:
        warnings.warn(
            f"the targets of step {step} have an effective rank of {rank:.1f}: they hardly tell "
            "clips apart any more. A higher method.momentum.start or a lower optimizer.lr helps "
            "against such a collapse",
            stacklevel=2,
        )
    return {"target_spread": spread(watched_kd), "target_rank": rank}
