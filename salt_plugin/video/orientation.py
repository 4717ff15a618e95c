"""How frames are turned upright, from the display matrix of a file."""

from __future__ import annotations

from math import hypot
from typing import Any, NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """The quarter turn and mirror nearest to a display matrix.

    Attributes:
        turn: Whether rows become columns, then whether columns are reversed, then whether rows are.
        quarter: Whether it is a turn by whole quarters, and the matrix asks for no more.
    """

    turn: tuple[bool, bool, bool] = (False, False, False)
    quarter: bool = True


def orientation(frame: Any) -> Orientation:
    """Returns how a frame of PyAV has to be turned, as FFmpeg turns it."""
    try:
        return nearest(np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32))
    except KeyError:
        return Orientation()


def nearest(matrix_9: np.ndarray) -> Orientation:
    """Returns the turn of a display matrix, int32 [9], by rows: column x goes to a * x + c * y."""
    a, b, _, c, d, *_ = (int(value) for value in matrix_9)
    across, down = hypot(a, c), hypot(b, d)
    if not (across and down):
        return Orientation()
    kept = min(abs(a) / across, abs(d) / down)
    swapped = min(abs(c) / across, abs(b) / down)
    transposed = kept < swapped
    turn = (transposed, (c if transposed else a) < 0, (b if transposed else d) < 0)
    return Orientation(turn, max(kept, swapped) > 0.999 and sum(turn) % 2 == 0)
