"""Numbers for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Returns e.g. `42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def flops(count: float | None) -> str:
    """Returns a number of FLOPs with a prefix, e.g. `1.20 ZFLOP`; None is unknown, never 0."""
    if count is None:
        return "unknown"
    for prefix in ("", "K", "M", "G", "T", "P", "E"):
        if count < 1000:
            return f"{count:.3g} {prefix}FLOP"
        count /= 1000
    return f"{count:.3g} ZFLOP"


def memory(count: float) -> str:
    """Returns a number of bytes with a prefix, e.g. `37.2 GiB`."""
    for prefix in ("", "Ki", "Mi"):
        if count < 1000:
            return f"{count:.3g} {prefix}B"
        count /= 1024
    return f"{count:,.1f} GiB"
