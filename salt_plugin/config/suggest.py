"""Naming what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(found: str, known: Iterable[str]) -> str:
    """Returns a phrase that names the closest known key, or all of them."""
    names = sorted(known)
    close = get_close_matches(found, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"
