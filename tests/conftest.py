from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from video_kinds import KINDS, write_kind

from salt_plugin.data.demo import write_video

# Models of tests are so small that threads only wait for one another: on a busy machine they take
# five times as long. Of processes that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# A shell ignores SIGINT in what it starts in the background, and so would the runs of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """Real and broken videos kept beside the checkout; tests that use them skip without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "videos"
    if not folder.is_dir():
        pytest.skip(f"no shared videos at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six H.264 videos, 64x64 at 10 fps, three in each of the classes ant and bee.

    They have 12, 16 and 20 frames; the brightness of frame i is 10 * i (+ 5 for bee).
    """
    folder = tmp_path_factory.mktemp("tiny_videos")
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir()
        for number, length in enumerate((12, 16, 20)):
            grey = 10 * np.arange(length, dtype=np.uint8) + 5 * label
            frames = np.broadcast_to(grey[:, None, None, None], (length, 64, 64, 3))
            write_video(folder / name / f"{number}.mp4", np.ascontiguousarray(frames), fps=10)
    return folder


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of each of `KINDS`, 60 frames; `numbers` reads them off the pixels."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (codec, options) in KINDS.items():
        write_kind(folder / name, codec, options)
    return folder
