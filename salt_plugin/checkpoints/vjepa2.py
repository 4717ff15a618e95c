"""The layout of V-JEPA 2's repository: `.pt` files with the state dicts of several models.

The files state no shapes: these are read off the tensors, and the heads, which leave no trace in
them, are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.checkpoints.torch_file import read_torch_file
from salt_plugin.errors import CheckpointError
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape, PredictorShape

SUFFIXES = (".pt", ".pth", ".tar")
# V-JEPA evaluates the moving average of its encoder.
ENCODERS = ("target_encoder", "encoder")
PREDICTOR = "predictor"
WRAPPERS = re.compile(r"^((module|backbone)\.)+")

# V-JEPA 2's ViT-g has heads of 64 channels; vit_gigantic has two definitions there.
ENCODER_HEADS = {
    **{(width, depth): heads for width, depth, heads, _ in ENCODER_SIZES.values()},
    (1408, 40): 22,
}
del ENCODER_HEADS[(1664, 48)]
PREDICTOR_HEADS = {384: 12}

# A position table is V-JEPA 1's, or an unused one in a file of V-JEPA 2. The names are the same,
# but V-JEPA 1 has two mask tokens; V-JEPA 2 has ten in its released models, six in its recipes.
POSITIONS = ("pos_embed", "predictor_pos_embed")
ABSOLUTE_MASK_TOKENS = 2


def is_vjepa2(file: Path) -> bool:
    """Tells whether a file is in the layout of V-JEPA 2's repository, by its name."""
    return file.suffix in SUFFIXES


def read_encoder(file: Path, num_heads: int | None = None) -> VideoEncoder:
    """Returns the target encoder of a `.pt` file, or else its encoder, in float32.

    Args:
        file: A checkpoint of V-JEPA 2, or the state dict of an encoder.
        num_heads: Attention heads, where the size is not known.

    Raises:
        CheckpointError: The file is foreign, or not exactly an encoder with RoPE.
    """
    state = _state(file, ENCODERS, "patch_embed.")
    width, in_chans, tubelet, patch, _ = _sizes(state, "patch_embed.proj.weight", 5, file)
    hidden, _ = _sizes(state, "blocks.0.mlp.fc1.weight", 2, file)
    depth = _count(state, "blocks")
    heads = num_heads or ENCODER_HEADS.get((width, depth))
    if heads is None:
        known = ", ".join(f"{w}x{d} ({h} heads)" for (w, d), h in ENCODER_HEADS.items())
        raise CheckpointError(
            f"{file}: an encoder of width {width} and depth {depth} does not tell its attention "
            f"heads; known are {known}. Give num_heads= to load_encoder"
        )
    tubelets = {"patch_size": patch, "tubelet_size": tubelet, "in_chans": in_chans}
    return load_strictly(
        lambda: VideoEncoder(EncoderShape.of(width, depth, heads, hidden, **tubelets)),
        state,
        file,
        "encoder",
    )


def read_predictor(file: Path, num_heads: int | None = None) -> Predictor:
    """Returns the predictor of a `.pt` file, in float32.

    Args:
        file: A checkpoint of V-JEPA 2, or the state dict of a predictor.
        num_heads: Attention heads, where the width is not V-JEPA 2's 384.

    Raises:
        CheckpointError: The file is foreign, or not exactly a predictor with RoPE.
    """
    state = _state(file, (PREDICTOR,), "predictor_embed.")
    dim, context_dim = _sizes(state, "predictor_embed.weight", 2, file)
    out_dim, _ = _sizes(state, "predictor_proj.weight", 2, file)
    hidden, _ = _sizes(state, "predictor_blocks.0.mlp.fc1.weight", 2, file)
    depth, tokens = _count(state, "predictor_blocks"), _count(state, "mask_tokens")
    heads = num_heads or PREDICTOR_HEADS.get(dim)
    if heads is None:
        raise CheckpointError(
            f"{file}: a predictor of width {dim} does not tell its attention heads; known is "
            "384 (12 heads). Give num_heads= to load_predictor"
        )

    def build() -> Predictor:
        shape = PredictorShape(dim, depth, heads, hidden / dim, num_mask_tokens=tokens)
        return Predictor(context_dim, out_dim, shape)

    return load_strictly(build, state, file, "predictor")


def holds_predictor(file: Path) -> bool:
    """Tells whether a `.pt` file has a predictor."""
    return isinstance(read_torch_file(file).get(PREDICTOR), Mapping)


def _state(file: Path, names: Sequence[str], first: str) -> dict[str, Tensor]:
    """Returns the tensors of a model by its own names, without an unused position table.

    Args:
        file: The checkpoint.
        names: Under which keys the model may be, the best one first.
        first: How a name of the model begins, to know its bare state dict by.
    """
    content = read_torch_file(file)
    wrapped = next((content[name] for name in names if name in content), content)
    state = _unwrapped(wrapped)
    if not any(name.startswith(first) for name in state):
        raise CheckpointError(
            f"{file}: found the keys {sorted(map(str, content))[:12]}, expected "
            f"{' or '.join(names)} with the tensors of V-JEPA 2, or these alone ({first}*, ...)"
        )
    if len(state) < len(wrapped) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{file}: not every entry is a tensor with a name of its own")
    tokens = _count(_unwrapped(content.get(PREDICTOR)) or state, "mask_tokens")
    for table in POSITIONS:
        if table in state and tokens <= ABSOLUTE_MASK_TOKENS:
            raise CheckpointError(
                f"{file}: {table} is a table of absolute positions, as in V-JEPA 1, and the models "
                "of this package use RoPE. V-JEPA 2's files may hold an unused one, beside a "
                f"predictor of more than {ABSOLUTE_MASK_TOKENS} mask tokens; here are {tokens}. If "
                "this model was trained with RoPE, save the file again without that key"
            )
        state.pop(table, None)
    return state


def _unwrapped(state: Any) -> dict[str, Any]:
    """Returns what is in a state dict without the prefixes of DDP; nothing of what is none."""
    entries = state.items() if isinstance(state, Mapping) else ()
    return {WRAPPERS.sub("", str(name)): value for name, value in entries}


def _sizes(state: Mapping[str, Tensor], name: str, dims: int, file: Path) -> Sequence[int]:
    if name not in state:
        raise CheckpointError(f"{file}: missing {name}; found {sorted(state)[:8]} and others")
    if state[name].ndim != dims:
        raise CheckpointError(
            f"{file}: {name} is {tuple(state[name].shape)}, expected {dims} dimensions; only "
            "models of video are read"
        )
    return tuple(state[name].shape)


def _count(state: Mapping[str, Any], name: str) -> int:
    """Returns how many numbered parts there are."""
    numbers = (re.match(rf"{name}\.(\d+)", key) for key in state)
    return len({found[1] for found in numbers if found})
