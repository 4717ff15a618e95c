"""Safetensors files: read with their reasons, written in one piece."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from salt_plugin.errors import CheckpointError
from salt_plugin.files import require_regular, sync


def read_safetensors(file: Path, but: str | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a file, on the CPU.

    The library compares the header, and each tensor's shape and place, with the file before it
    takes memory.

    Args:
        file: The file.
        but: Leave out the tensors whose names begin so.

    Raises:
        CheckpointError: The file is missing, damaged, or states sizes that it does not hold.
    """
    try:
        require_regular(file)
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if not (but and name.startswith(but))]  # noqa: SIM118
            return {name: tensors.get_tensor(name) for name in names}
    # The names of types and kinds of tensors that torch does not know give KeyErrors and others.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); copy it again") from None


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors in one piece, with the permissions that the user's other files get."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.touch()
    permissions = unfinished.stat().st_mode
    save_file({name: value.contiguous() for name, value in state.items()}, unfinished, metadata)
    unfinished.chmod(permissions)  # safetensors makes files for the owner alone
    sync(unfinished)
    os.replace(unfinished, path)
