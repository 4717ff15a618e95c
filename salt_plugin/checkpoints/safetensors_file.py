"""Safetensors files, whose header is looked at before the library takes memory for it."""

from __future__ import annotations

import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from salt_plugin.errors import CheckpointError
from salt_plugin.files import require_regular

# 100,000 tensors take less; the library itself would parse 100 MB.
MAX_HEADER = 2**24


def read_safetensors(file: Path, but: str | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a file, on the CPU.

    The library compares each tensor's shape and place with the file before it reads it.

    Args:
        file: The file.
        but: Tensors whose names begin so are left out.

    Raises:
        CheckpointError: The file is missing, damaged, or states sizes that it does not hold.
    """
    try:
        require_header(file)
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if not (but and name.startswith(but))]  # noqa: SIM118
            return {name: tensors.get_tensor(name) for name in names}
    # The names of types and kinds of tensors that torch does not know give KeyErrors and others.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); copy it again") from None


def require_header(file: Path) -> None:
    """Checks the length that a file states for its header.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is no regular file, or the length cannot be true.
    """
    size = require_regular(file).st_size
    with file.open("rb") as opened:
        start = opened.read(8)
    if len(start) < 8:
        raise ValueError(f"it has {size} bytes: expected a safetensors header")
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, MAX_HEADER):
        raise ValueError(
            f"its header states {length} bytes: expected at most {MAX_HEADER} and what the file "
            f"has, {size - 8}"
        )
