"""Facts of video files, found once and kept in memory and in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import OrderedDict
from pathlib import Path

from salt_plugin.errors import SaltError
from salt_plugin.files import user_cache
from salt_plugin.video.facts import VideoFacts, pack, unpack
from salt_plugin.video.reader import require_regular_file
from salt_plugin.video.scan import scan

# Bytes of facts that a process keeps: of a thousand films of a minute, or a dozen of three hours.
MEMORY = 2**26
# Seconds that a scan has to take for its facts to be written down: a list of a million short files
# is scanned faster than a million small files are opened.
SLOW = 0.25


class _Memory:
    """The facts that were asked for last, up to a number of bytes; threads may share it."""

    def __init__(self) -> None:
        self._facts: OrderedDict[str, VideoFacts] = OrderedDict()
        self._bytes = 0

    def take(self, name: str) -> VideoFacts | None:
        facts = self._facts.pop(name, None)
        self._bytes -= facts.bytes if facts else 0
        return facts

    def put(self, name: str, facts: VideoFacts) -> None:
        self.take(name)
        self._facts[name] = facts
        self._bytes += facts.bytes
        while self._bytes > MEMORY and len(self._facts) > 1:
            self.take(next(iter(self._facts)))


_memory = _Memory()


def facts_of(path: str) -> VideoFacts:
    """Returns the facts of a file, found at the first call for its path, size and time of change.

    Where the user's cache cannot be read or written, they are found once in each process.

    Raises:
        VideoReadError: It is no video that can be read.
    """
    state = require_regular_file(path)
    place = os.fsencode(os.path.abspath(path)).hex()
    name = json.dumps([place, state.st_size, state.st_mtime_ns])
    facts = _memory.take(name) or _read(name)
    if facts is None:
        began = time.monotonic()
        facts = scan(path)
        if time.monotonic() - began > SLOW:
            _write(name, facts)
    _memory.put(name, facts)
    return facts


def _file(name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return user_cache() / "facts" / digest[:2] / f"{digest[2:]}.npz"


def _read(name: str) -> VideoFacts | None:
    try:
        return unpack(_file(name).read_bytes(), name)
    except (OSError, RuntimeError, SaltError):
        return None


def _write(name: str, facts: VideoFacts) -> None:
    try:
        file = _file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        unfinished.write_bytes(pack(facts, name))
        os.replace(unfinished, file)
    except (OSError, RuntimeError, SaltError):
        return
