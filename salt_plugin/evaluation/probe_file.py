"""The file of a trained attentive probe: safetensors, with its shape in the metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open

from salt_plugin.checkpoints import read_safetensors
from salt_plugin.checkpoints.safetensors_file import write_safetensors
from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.errors import CheckpointError
from salt_plugin.models.attentive import AttentiveProbe

PROBE_FILE = "attentive.safetensors"
_SHAPE = "attentive_probe"


def save_probe(probe: AttentiveProbe, path: str | os.PathLike[str]) -> None:
    """Writes a trained probe: its weights, and in the metadata what makes its shape."""
    shape = {key: getattr(probe, key) for key in ("dim", "num_classes", "num_heads", "depth")}
    write_safetensors(Path(path), probe.state_dict(), {_SHAPE: json.dumps(shape)})


def load_probe(path: str | os.PathLike[str]) -> AttentiveProbe:
    """Returns the probe of a file that `save_probe` wrote, in evaluation mode.

    Raises:
        CheckpointError: The file is missing, foreign or damaged.
    """
    file = Path(path)
    state = read_safetensors(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    try:
        shape = json.loads(metadata[_SHAPE])
    except (KeyError, ValueError):
        raise CheckpointError(
            f"{file} is no attentive probe: expected {PROBE_FILE} of `salt probe --out DIR`, with "
            f"{_SHAPE!r} in its metadata"
        ) from None
    return load_strictly(lambda: AttentiveProbe(**shape), state, file, "attentive probe").eval()
