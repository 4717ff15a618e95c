"""What `salt data check` finds out about one file."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace

import numpy as np
import torch

from salt_plugin.data.exact_reader import decode_all, picture
from salt_plugin.data.inspection import (
    VideoFacts,
    decord_danger,
    open_container,
    packet_hash,
    read_facts,
)
from salt_plugin.data.opening import open_video
from salt_plugin.data.reader import Reader, VideoReadError, require_memory

# A file that ends this much before its header says has been cut.
_CUT = 0.9


@dataclass(frozen=True)
class Verdict:
    """What was found in a file.

    Attributes:
        path: The file.
        reason: Why it cannot be trained on; None where it can.
        danger: Why decord must not read it; None where it may.
        cut: Whether a good file ends well before its header says.
        copy_of: An earlier file with the same video packets.
        codec: Codec, such as `h264`; None where the file could not be opened, as all below.
        container: Format, such as `mov`.
        gop: `intra`, `closed`, `open` or `single` (one keyframe).
        height: Of a frame as coded, in pixels.
        width: Likewise.
        fps: Average frame rate in frames per second.
        seconds: Duration that the file states.
        frames: Frames that decoding from the start gave.
        content: SHA-256 of the compressed packets of the video stream: alike in copies under other
            names, with other metadata or sound; different after encoding again.
    """

    path: str
    reason: str | None = None
    danger: str | None = None
    cut: bool = False
    copy_of: str | None = None
    codec: str | None = None
    container: str | None = None
    gop: str | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    seconds: float | None = None
    frames: int | None = None
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
        container, stream = open_container(path)
        with container:
            facts = read_facts(path, container, stream)
        verdict = replace(_described(verdict, facts), danger=decord_danger(facts))
        video = open_video(path, reader)
        require_memory(path, positions, facts.size)
        chosen = np.random.default_rng(seed).integers(0, len(video), positions)
        truth, total = _from_start(path, set(chosen.tolist()))
        verdict = replace(
            verdict,
            frames=total,
            cut=bool(facts.fps) and total / facts.fps < _CUT * facts.seconds,
        )
        _compare(path, video, chosen.tolist(), truth, total)
    except VideoReadError as error:
        return replace(verdict, reason=error.reason)
    return verdict


def can_be_mended(verdict: Verdict) -> bool:
    """Returns whether encoding again helps: with a kind of codec or a cut, not with damage."""
    refused = verdict.danger is not None and verdict.danger in (verdict.reason or verdict.danger)
    return refused or verdict.cut


def mending_line(path: str, short_side: int) -> str:
    """Returns the command line that makes closed-GOP H.264 of a file.

    Args:
        path: The file; the new one lies beside it and ends in `.mended.mp4`.
        short_side: Of the new frames, in pixels; smaller ones keep theirs.
    """
    width, height = (f"trunc(min({short_side},{side})/2)*2" for side in ("iw", "ih"))
    scale = f"scale='if(gt(iw,ih),-2,{width})':'if(gt(iw,ih),{height},-2)'"
    new = os.path.splitext(path)[0] + ".mended.mp4"
    return (
        f'ffmpeg -xerror -i {shlex.quote(path)} -map 0:v:0 -an -vf "{scale}" -c:v libx264 -crf 18 '
        f"-g 30 -bf 2 -flags +cgop -pix_fmt yuv420p -movflags +faststart {shlex.quote(new)}"
    )


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
        content=packet_hash(verdict.path),
    )


def _from_start(path: str, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """Returns some frames (uint8 [H, W, 3]) and the number of all."""
    found, total = {}, 0
    try:
        for frame in decode_all(path):
            if total in wanted or frame.is_corrupt:
                found[total] = picture(path, frame)
            total += 1
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
