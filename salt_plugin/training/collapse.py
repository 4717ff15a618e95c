"""Whether the targets of a method that makes its own still tell clips apart."""

from __future__ import annotations

from torch import Tensor

from salt_plugin.evaluation.spectrum import effective_rank, spread

MEASURE_EVERY = 100


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
    return {"target_spread": spread(watched_kd), "target_rank": effective_rank(watched_kd)}
