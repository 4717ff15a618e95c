"""The clips of all windows of a list of videos, part by part, as loader workers read them.

The videos lie in groups of `GROUP`, and the windows of a group in parts of a fixed number: what a
part holds depends on nothing but the list, so that any number of processes make the same parts.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from salt_plugin.data import VideoReadError, open_video
from salt_plugin.data.loader import note_file
from salt_plugin.features.windows import Plan, Windows, read_clips
from salt_plugin.transforms.preprocessing import Preprocessing
from salt_plugin.video.reader import Reader

GROUP = 32
# So many groups a reader are given away whole. Of fewer, the parts are: each reader opens all
# videos, so that one long video keeps all of them busy.
_MANY = 4


class Place(NamedTuple):
    """A window: the number of its video in the list, and its own in the video."""

    video: int
    window: int


class PartState(NamedTuple):
    """How far a part is.

    Attributes:
        done: Windows that were read, or could not be.
        after: Where the next part begins; None as long as this one is not complete.
    """

    done: int
    after: Place | None


class Row(NamedTuple):
    """What a window is: the number of its video, and when it starts and ends, in seconds."""

    video: int
    start: float
    end: float


class ClipBatch(NamedTuple):
    """Windows of one part that follow each other.

    Attributes:
        part: Name of the part; names are in the order of the windows.
        state: How far the part is with these.
        rows: The windows.
        clips_bcthw: Their clips, uint8 [b, 3, T, h, w]; b may be 0.
        errors: Videos that could not be read, or not from some place on, and why.
        seen: The share of the list that lies before the end of this batch.
    """

    part: str
    state: PartState
    rows: list[Row]
    clips_bcthw: Tensor
    errors: list[tuple[str, str]]
    seen: float


def part_name(group: int, block: int) -> str:
    """Returns the name of a part."""
    return f"{group:06d}-{block:06d}"


class WindowDataset(IterableDataset[ClipBatch]):
    """Reads the windows of videos; a video that cannot be read has none from there on.

    Args:
        paths: Videos or images.
        windows: Which windows to read.
        clip: Size of their clips.
        batch_size: Clips that come together; batches do not go beyond a part.
        part_windows: Windows of a part.
        states: Parts that are begun or complete, by name.
        rank: Which of the processes this is.
        size: Number of processes that share the parts.
    """

    def __init__(
        self,
        paths: list[str],
        windows: Windows,
        clip: Preprocessing,
        batch_size: int,
        part_windows: int,
        states: Mapping[str, PartState] | None = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.paths, self.windows, self.transform = paths, windows, clip.transform
        self.batch_size, self.part_windows = batch_size, part_windows
        self.states = states or {}
        self.rank, self.size = rank, size
        self._opened: tuple[int, tuple[Reader, Plan] | VideoReadError] | None = None

    def __iter__(self) -> Iterator[ClipBatch]:
        """Yields the batches of this process's parts, in a loader worker those of its share."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        sharing, own = self.size * workers, self.rank * workers + number
        groups = -(-len(self.paths) // GROUP)
        for group in range(groups):
            if groups < _MANY * sharing:
                yield from self._group(group, sharing, own)
            elif group % sharing == own:
                yield from self._group(group, 1, 0)

    def _group(self, group: int, sharing: int, own: int) -> Iterator[ClipBatch]:
        place, block = Place(group * GROUP, 0), 0
        end = min(place.video + GROUP, len(self.paths))
        while place.video < end:
            name = part_name(group, block)
            state = self.states.get(name, PartState(0, None))
            if state.after is not None:
                place = state.after
            elif (group + block) % sharing == own:
                place = yield from self._part(name, place, end, state.done)
            else:
                for _, _, after in self._segments(place, end):
                    place = after
            block += 1

    def _segments(self, place: Place, end: int) -> Iterator[tuple[Place, int, Place]]:
        """Yields the windows of a part, a video at a time: the first, how many, what comes after.

        A video that cannot be opened has none.
        """
        left = self.part_windows
        while left and place.video < end:
            opened = self._open(place.video)
            count = 0 if isinstance(opened, VideoReadError) else len(opened[1].starts_w)
            taken = min(left, count - place.window) if count else 0
            following = Place(place.video, place.window + taken)
            after = following if following.window < count else Place(place.video + 1, 0)
            yield place, taken, after
            left, place = left - taken, after

    def _part(
        self, name: str, place: Place, end: int, done: int
    ) -> Generator[ClipBatch, None, Place]:
        """Yields the batches of a part but for the windows done; returns what comes after it."""
        rows: list[Row] = []
        clips: list[Tensor] = []
        errors: list[tuple[str, str]] = []
        passed = 0

        def batch(at: Place, after: Place | None) -> ClipBatch:
            stacked = torch.stack(clips) if clips else torch.empty(0, dtype=torch.uint8)
            state = PartState(passed, after)
            made = ClipBatch(name, state, [*rows], stacked, [*errors], self._seen(at))
            for one in (rows, clips, errors):
                one.clear()
            return made

        for first, count, after in self._segments(place, end):
            opened = self._open(first.video)
            until = passed + count
            begin = min(max(done, passed), until)
            window = first.window + begin - passed
            passed, place = begin, after
            if isinstance(opened, VideoReadError):
                errors.append((opened.path, opened.reason))
            elif passed < until:
                reader, (indices_wt, starts_w, ends_w) = opened
                note_file(self.paths[first.video])
                try:
                    part = indices_wt[window : first.window + count]
                    for clip in read_clips(reader, part, self._view):
                        rows.append(
                            Row(first.video, float(starts_w[window]), float(ends_w[window]))
                        )
                        clips.append(clip)
                        passed, window = passed + 1, window + 1
                        if len(clips) == self.batch_size:
                            yield batch(Place(first.video, window), None)
                except VideoReadError as error:
                    errors.append((error.path, error.reason))
                finally:
                    note_file(None)
            passed = until
        yield batch(place, place)
        return place

    def _seen(self, place: Place) -> float:
        """Returns the share of the list before a window of the last video that was opened."""
        opened = self._open(place.video) if place.window else None
        windows = len(opened[1].starts_w) if isinstance(opened, tuple) else 1
        return (place.video + place.window / windows) / len(self.paths)

    def _open(self, video: int) -> tuple[Reader, Plan] | VideoReadError:
        """Opens a video; the last one stays open."""
        if self._opened is None or self._opened[0] != video:
            self._opened = None
            note_file(self.paths[video])
            try:
                reader = open_video(self.paths[video])
                self._opened = video, (reader, self.windows.of(reader.times))
            except VideoReadError as error:
                self._opened = video, error
            finally:
                note_file(None)
        return self._opened[1]

    def _view(self, frame: Tensor) -> Tensor:
        return self.transform.cropped(frame[None])[0][0]
