"""Facts of video files, found once and kept in memory and in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from salt_plugin.files import is_address, user_cache
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.scan import scan
from salt_plugin.video.storage import state_of

# Raised with every change of the record or of how it is found: older ones are found again.
_VERSION = 4
# Bytes of facts that a process keeps: of a thousand films of a minute, or a dozen of three hours.
_MEMORY = 2**26
# Seconds that a scan has to take for its facts to be written down: a list of a million short files
# is scanned faster than a million small files are opened.
SLOW = 0.25

_known: dict[str, VideoFacts] = {}
_bytes = 0


def facts_of(path: str) -> VideoFacts:
    """Returns the facts of a file, found at the first call for its path, size and time of change.

    Where the user's cache cannot be read or written, they are found once in each process.

    Raises:
        VideoReadError: It is no video that can be read.
    """
    state = state_of(path)
    place = os.fsencode(path if is_address(path) else os.path.abspath(path)).hex()
    name = json.dumps([_VERSION, place, state.size, state.changed])
    facts = _known.get(name)
    if facts is None:
        began = time.monotonic()
        facts = (_read(name) if state.changed else None) or scan(path)
        if state.changed and time.monotonic() - began > SLOW:
            _write(name, facts)
        _keep(name, facts)
    return facts


def _keep(name: str, facts: VideoFacts) -> None:
    global _bytes
    _known[name] = facts
    _bytes += facts.bytes
    while _bytes > _MEMORY and len(_known) > 1:
        _bytes -= _known.pop(next(iter(_known))).bytes


def _file(name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return user_cache() / "facts" / digest[:2] / f"{digest[2:]}.npz"


def _read(name: str) -> VideoFacts | None:
    with suppress(Exception):  # whatever is wrong with a cache, the facts are found again
        with np.load(_file(name), allow_pickle=False) as arrays:
            of, facts = json.loads(arrays["about"].tobytes())
            for key in ("size", "turn"):
                facts[key] = tuple(facts[key])
            for key in ("pts_n", "keys_k3"):
                facts[key] = np.cumsum(arrays[key], axis=0)
        if of == name:
            return VideoFacts(**facts)
    return None


def _write(name: str, facts: VideoFacts) -> None:
    record = asdict(facts)
    # Differences, because those of a constant rate compress to nothing.
    arrays = {key: np.diff(record.pop(key), axis=0, prepend=0) for key in ("pts_n", "keys_k3")}
    about = np.frombuffer(json.dumps([name, record]).encode(), np.uint8)
    with suppress(Exception):  # the cache may be absent or full
        file = _file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{os.getpid()}.{file.name}")
        np.savez_compressed(unfinished, about=about, **arrays)
        os.replace(unfinished, file)


if __name__ == "__main__":
    facts_of(sys.argv[1])
