"""What `salt data check` finds out about one file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from salt_plugin.video.decoding import DamageError, decode_all, picture
from salt_plugin.video.decord_danger import decord_danger
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.inspection import packet_hash
from salt_plugin.video.opening import open_video
from salt_plugin.video.reader import Reader, VideoReadError, require_memory


@dataclass(frozen=True)
class Verdict:
    """What was found in a file.

    Attributes:
        path: The file.
        reason: Why it cannot be trained on; None where it can.
        danger: Why decord must not read it; None where it may.
        cut: Whether a good file ends well before its header says, or is damaged at its end.
        damage: Which frame is the first that is damaged there, and how many come before it, as a
            text; None for none.
        slow: Whether each clip is decoded from the start of the file, as it cannot be sought.
        copy_of: An earlier file with the same video packets.
        codec: Codec, such as `h264`; None where the file could not be opened, as all below.
        container: Format, such as `mov`.
        gop: `intra`, `closed`, `open` or `single` (one keyframe).
        height: Of a frame as coded, in pixels.
        width: Likewise.
        fps: Average frame rate in frames per second.
        seconds: Duration that the file states for its video.
        frames: Frames that can be used.
        stream: Index of the video stream in the file.
        content: SHA-256 of the compressed packets of the video stream: alike in copies under other
            names, with other metadata or sound; different after encoding again.
    """

    path: str
    reason: str | None = None
    danger: str | None = None
    cut: bool = False
    damage: str | None = None
    slow: bool = False
    copy_of: str | None = None
    codec: str | None = None
    container: str | None = None
    gop: str | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    seconds: float | None = None
    frames: int | None = None
    stream: int | None = None
    content: str | None = None


def check_video(path: str, reader: str, positions: int, seed: int) -> Verdict:
    """Decodes a file from the start and at random positions, and compares.

    Args:
        path: The file.
        reader: The reader to try at random positions, as of `open_video`.
        positions: How many frames to compare.
        seed: Draws them, alike in files of the same length.
    """
    verdict = Verdict(path)
    try:
        facts = facts_of(path)
        verdict = replace(_described(verdict, facts), danger=decord_danger(facts))
        video = open_video(path, reader)
        require_memory(path, positions, facts.size)
        chosen = np.random.default_rng(seed).integers(0, len(video), positions)
        truth, total = _from_start(path, set(chosen.tolist()), facts)
        verdict = replace(verdict, frames=total)
        _compare(path, video, chosen.tolist(), truth, total)
    except VideoReadError as error:
        return replace(verdict, reason=error.reason)
    return verdict


def can_be_mended(verdict: Verdict) -> bool:
    """Returns whether encoding again helps: with a kind of codec or a cut, not with damage."""
    refused = verdict.danger is not None and verdict.danger in (verdict.reason or verdict.danger)
    if verdict.damage or (verdict.reason and not refused):
        return False
    return refused or verdict.cut or verdict.slow


def _described(verdict: Verdict, facts: VideoFacts) -> Verdict:
    return replace(
        verdict,
        codec=facts.codec,
        container=facts.container,
        gop=facts.gop,
        height=facts.size[0],
        width=facts.size[1],
        fps=facts.fps,
        seconds=facts.seconds,
        stream=facts.stream,
        cut=facts.short,
        damage=facts.damage or None,
        slow=facts.sought == "start",
        content=packet_hash(verdict.path),
    )


def _from_start(
    path: str, wanted: set[int], facts: VideoFacts
) -> tuple[dict[int, np.ndarray], int]:
    """Returns some frames (uint8 [H, W, 3]), and the number of those before a damaged end."""
    found, total = {}, 0
    try:
        for frame in decode_all(path):
            if facts.damage and total == len(facts.pts_n):
                break
            if total in wanted or frame.is_corrupt:
                found[total] = picture(path, frame, facts)
            total += 1
    except DamageError as error:
        if facts.damage and total == len(facts.pts_n):
            return found, total
        bad = total
        if error.pts is not None and facts.sought != "start":
            bad = int(np.searchsorted(facts.pts_n, error.pts))
        raise VideoReadError(path, f"{error.reason} (frame {bad})") from error
    except VideoReadError as error:
        raise VideoReadError(path, f"{error.reason} (frame {total})") from error
    return found, total


def _compare(
    path: str, video: Reader, chosen: list[int], truth: dict[int, np.ndarray], total: int
) -> None:
    if len(video) != total:
        raise VideoReadError(path, f"the file states {len(video)} frames and gives {total}")
    for number in chosen:
        frame = video.frames(np.array([number]))[0].permute(1, 2, 0)
        if not torch.equal(frame, torch.from_numpy(truth[number].copy())):
            raise VideoReadError(path, f"another frame is read at {number} than from the start")
