"""How far the probes of `vjepa2` are, on disk after each epoch: an interrupted command goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.config import ProbeConfig
from salt_plugin.errors import CacheError, CheckpointError
from salt_plugin.evaluation.cache import cache_root, files_digest
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.lists import LabelledList
from salt_plugin.evaluation.processes import Processes
from salt_plugin.files import sync

_logger = logging.getLogger(__name__)
# Keys that change nothing that is learnt.
_FREE = ("workers", "stall", "cache", "feature_batch_size", "val", "test", "groups", "controls")
_FORMAT = 1


class EpochFile:
    """A file in the cache, of one training of probes; it does nothing where there is no cache.

    Args:
        encoder: That gives the tokens.
        train: Videos to learn from.
        config: Of the evaluation.
        processes: Those that evaluate together, which have to see the same cache; the first writes.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        train: LabelledList,
        config: ProbeConfig,
        processes: Processes,
    ) -> None:
        self._processes = processes
        given = {key: value for key, value in asdict(config).items() if key not in _FREE}
        of = [_FORMAT, encoder.fingerprint, encoder.device.type, files_digest(train.paths)]
        text = json.dumps([*of, train.labels_n.tolist(), given], sort_keys=True)
        name = f"vjepa2-{hashlib.sha256(text.encode()).hexdigest()}.pt"
        try:
            self._path: Path | None = cache_root(config.cache) / name
        except CacheError:
            self._path = None

    def read(self) -> Mapping[str, Any] | None:
        """Returns what was written last; None where not all processes find the same."""
        held: Mapping[str, Any] = {}
        if self._path is not None and self._path.is_file():
            try:
                held = read_torch_file(self._path)
            except CheckpointError as error:
                _logger.warning("%s; probes are trained from the start", error)
        epochs = self._processes.gather(held.get("epoch"))
        return held if epochs[0] and len(set(epochs)) == 1 else None

    def write(self, state: dict[str, Any]) -> None:
        """Keeps a state, with its `epoch`; a full disk is a warning."""
        if self._path is None or self._processes.rank:
            return
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, unfinished)
            sync(unfinished)
            os.replace(unfinished, self._path)
        except (OSError, RuntimeError) as error:  # torch's, of a full disk
            unfinished.unlink(missing_ok=True)
            _logger.warning("an interrupted evaluation will begin anew: %s", error)

    def remove(self) -> None:
        """Removes the file of a training that is done."""
        if self._path is not None and not self._processes.rank:
            self._path.unlink(missing_ok=True)
