"""The check of one file for `salt data check`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from salt_plugin.files import is_address
from salt_plugin.video.containers import open_container
from salt_plugin.video.decoding import decode_all, picture
from salt_plugin.video.decord_reader import decord_danger
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.images import FramesReader, ImageReader, is_frames, is_image
from salt_plugin.video.opening import open_video
from salt_plugin.video.reader import VideoReadError, require_memory
from salt_plugin.video.time_limit import beat

# Of `VideoFacts` and `Verdict`.
_ALIKE = ("codec", "container", "gop", "fps", "seconds", "stream")


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
        height: Height of a frame as coded, in pixels.
        width: Its width.
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
        if is_frames(path) or is_image(path):
            return _check_images(path, verdict)
        facts = facts_of(path)
        verdict = replace(
            verdict,
            **{key: getattr(facts, key) for key in _ALIKE},
            cut=facts.short,
            damage=facts.damage or None,
            slow=not facts.seekable,
            height=facts.size[0],
            width=facts.size[1],
            content=_packet_hash(path),
            danger=decord_danger(path, facts),
        )
        video = open_video(path, reader)
        require_memory(path, positions, facts.size)
        chosen = np.random.default_rng(seed).integers(0, len(video), positions).tolist()
        truth, total = _from_start(path, chosen, facts)
        verdict = replace(verdict, frames=total)
        if len(video) != total:
            raise VideoReadError(path, f"the file states {len(video)} frames and gives {total}")
        for number in chosen:
            if not torch.equal(video.frames(np.array([number]))[0], truth[number]):
                reason = f"another frame is read at {number} than from the start"
                raise VideoReadError(path, reason)
    except VideoReadError as error:
        return replace(verdict, reason=error.reason)
    return verdict


def _check_images(path: str, verdict: Verdict) -> Verdict:
    """Decodes a folder of frames, or an image."""
    video = FramesReader(path) if is_frames(path) else ImageReader(path)
    digest = hashlib.sha256()
    for content in video.content():
        digest.update(content)
        beat()
    numbers = np.arange(len(video))
    for number in numbers:
        video.frames(numbers[number : number + 1])
    seconds = video.seconds if isinstance(video, FramesReader) else 0.0
    return replace(
        verdict,
        codec="images",
        container="folder" if seconds else "file",
        gop="intra",
        height=video.size[0],
        width=video.size[1],
        fps=len(video) / seconds if seconds else 0.0,
        seconds=seconds,
        frames=len(video),
        content=digest.hexdigest(),
    )


def can_be_mended(verdict: Verdict) -> bool:
    """Returns whether encoding again helps: with a kind of codec or a cut, not with damage."""
    refused = verdict.danger is not None and verdict.danger in (verdict.reason or verdict.danger)
    if verdict.damage or is_address(verdict.path) or (verdict.reason and not refused):
        return False
    return refused or verdict.cut or verdict.slow


def _packet_hash(path: str) -> str:
    container, stream = open_container(path)
    digest = hashlib.sha256()
    with container:
        for packet in container.demux(stream):
            beat()
            digest.update(packet)
    return digest.hexdigest()


def _from_start(path: str, wanted: list[int], facts: VideoFacts) -> tuple[dict[int, Tensor], int]:
    """Returns some frames (uint8 [3, H, W]), and the number of those before a damaged end."""
    found, total = {}, 0
    try:
        for frame in decode_all(path):
            if facts.damage and total == len(facts.pts_n):
                break
            if total in wanted or frame.is_corrupt:
                pixels = picture(path, frame, facts)
                found[total] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
            total += 1
    except VideoReadError as error:
        if not (facts.damage and total == len(facts.pts_n)):
            raise VideoReadError(path, f"{error.reason} (frame {total})") from error
    return found, total
