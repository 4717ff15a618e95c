"""Whether the training of a probe has converged."""

from __future__ import annotations

import math

from torch import Tensor

NEAR_CHANCE, LATE = 0.9, 0.5


def unconverged(losses_s: Tensor, num_classes: int) -> str | None:
    """Returns why the training of a probe has not converged, or None.

    The rule is ours. It has not where the training loss of the last tenth of the steps is above 0.9
    of a guess's, ln C, or where more than half of what the loss has fallen from there, it fell in
    the second half of the steps.

    Args:
        losses_s: Training loss of each step, float [S].
        num_classes: C.
    """
    guess, steps = math.log(num_classes), len(losses_s)
    tenth = max(1, steps // 10)
    end = losses_s[-tenth:].mean().item()
    middle = losses_s[: -(-steps // 2)][-tenth:].mean().item()
    if end > NEAR_CHANCE * guess:
        return f"after {steps} steps its training loss is {end:.2f}, that of a guess {guess:.2f}"
    if middle - end > LATE * (guess - end):
        return (
            f"its training loss fell until the end, from {middle:.2f} at half of {steps} steps to "
            f"{end:.2f}"
        )
    return None
