"""Which files decord does not read exactly."""

from __future__ import annotations

from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.scan import INDEXED

# Measured: decord's frames were those of decoding from the start.
_CODECS = ("h264", "vp8", "vp9", "mpeg4")


def decord_danger(facts: VideoFacts) -> str | None:
    """Returns why decord's frames of such a file cannot be trusted, None where they can."""
    kind = facts.codec
    if kind not in _CODECS:
        return f"{kind}: decord returns other frames than asked for, or none"
    if facts.container not in INDEXED:
        return f"{kind} in {facts.container}: decord returns other frames than asked for"
    if facts.videos > 1:
        return "several video streams: decord may read another of them"
    if facts.leading:
        return f"open-GOP {kind}: decord returns other frames than asked for after a seek"
    if facts.sought != "index":
        return f"{kind} without usable time stamps: decord's frames are shifted"
    if facts.discarded:
        return f"{kind} with an edit list: decord counts frames that are not shown"
    if not facts.quarter:
        return f"{kind} with a mirror or an odd angle: decord knows quarter turns alone"
    if facts.resized:
        return f"{kind} whose frame size changes: decord scales frames otherwise"
    if facts.interlaced:
        return f"interlaced {kind}: decord's pixels differ"
    if facts.size[0] % 2 or facts.size[1] % 2:
        return f"{kind} with an odd width or height: decord's pixels differ"
    if facts.damage:
        return f"{kind} that was cut: decord does not open it, or makes frames up"
    return None
