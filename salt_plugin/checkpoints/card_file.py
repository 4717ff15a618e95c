"""Files of this package: weights as safetensors, and a JSON card beside them that tells what of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import Tensor, nn

from salt_plugin.checkpoints.safetensors_file import read_safetensors
from salt_plugin.checkpoints.strict import load_strictly
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.files import read_json, sync, write_json
from salt_plugin.models.teacher import fingerprint

Module = TypeVar("Module", bound=nn.Module)


def write_weights(
    path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors as safetensors in one piece, readable by whom a text file there is."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.touch()
    permissions = unfinished.stat().st_mode
    save_file({name: value.contiguous() for name, value in state.items()}, unfinished, metadata)
    unfinished.chmod(permissions)  # safetensors makes files for the owner alone
    sync(unfinished)
    os.replace(unfinished, path)


def write_with_card(path: Path, state: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    """Writes a card, then the weights; a crash in between leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), card)
    write_weights(path, state)


def read_card_of(path: Path, kind: str, width: str, *needed: str) -> dict[str, Any]:
    """Returns the card beside a file.

    Args:
        path: The weights.
        kind: `encoder` or `predictor`.
        width: The key of the shape without which it is no such card.
        *needed: The keys without which it is none, beside `shape` and `fingerprint`.

    Raises:
        CheckpointError: The card is missing or no such card of ours.
    """
    card_path = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not card_path.is_file():
        raise CheckpointError(
            f"{path} is no {kind} file of this package: expected a .safetensors file with "
            f"{card_path.name} beside it; copy both, or name a run directory. V-JEPA 2's own files "
            "are told by .pt, .pth or .tar, Hugging Face's by config.json beside them"
        )
    try:
        card = read_json(card_path)
        card["shape"][width], card["fingerprint"]
        for key in needed:
            card[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{card_path} is no {kind} card ({type(error).__name__}: {error}); copy it again from "
            "the run that wrote it"
        ) from None
    return card


def load_with_card(
    path: Path, card: dict[str, Any], kind: str, shape_type: type, build: Callable[[Any], Module]
) -> Module:
    """Returns the model of a file and its card, checked by key, shape and fingerprint.

    Args:
        path: The weights.
        card: As `read_card_of` gives it.
        kind: `encoder` or `predictor`.
        shape_type: The dataclass that `card["shape"]` holds the fields of.
        build: Makes the model of such a shape.

    Raises:
        CheckpointError: The file is incomplete or damaged, or does not fit the card.
    """
    known = {field.name for field in fields(shape_type)}
    # Options that are off are left out.
    needed = {field.name for field in fields(shape_type) if field.default is not False}
    if not needed <= card["shape"].keys() <= known:
        raise CheckpointError(
            f"{path.with_suffix('.json')}: shape has the keys {sorted(card['shape'])}, expected "
            f"{sorted(needed)}; the file was written by another version"
        )
    try:
        shape = shape_type(**card["shape"])
        parts = int(shape.depth) + int(getattr(shape, "num_mask_tokens", 0))
    except (ConfigError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy or train it again") from None
    state = read_safetensors(path)
    module = load_strictly(lambda: build(shape), parts, state, path, kind)
    if fingerprint(state) != card["fingerprint"]:
        raise CheckpointError(
            f"{path} does not match the fingerprint in {path.with_suffix('.json').name}: damaged, "
            "or the two come from different runs; copy both again"
        )
    return module
