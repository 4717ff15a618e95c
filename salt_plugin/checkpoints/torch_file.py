"""Files of `torch.save`, from anybody: tensors and plain values are read, code never runs.

A pickle may name any function to be called while it is read. `weights_only=True` calls only those
that make tensors; the sizes that a file states are compared with its own before they take memory.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_plugin.errors import CheckpointError
from salt_plugin.files import require_regular

SHOWN = 200


def read_torch_file(file: Path, *, checksums: bool = False) -> Mapping[str, Any]:
    """Returns the dictionary in a file, its tensors on the CPU and mapped from disk.

    Args:
        file: An archive as `torch.save` writes it since torch 1.6.
        checksums: Whether to compare those of the archive, which torch does not.

    Raises:
        CheckpointError: It holds code, which is not run; or is damaged, no dictionary, or states
            sizes that it does not hold.
    """
    try:
        require_regular(file)
        _require_whole(file, checksums)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, Mapping):
            raise TypeError(f"a {type(content).__name__}, not a dictionary")
        _require_tensors(content, file)
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(_explained(file, error)) from None
    return content


def _require_whole(file: Path, checksums: bool) -> None:
    """Checks that an archive stores its parts uncompressed, and holds as much as they state."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"its part {member.filename} is compressed, from {member.file_size} bytes, and "
                    "torch compresses none"
                )
        _require_room(sum(member.file_size for member in members), file)
        broken = archive.testzip() if checksums else None
    if broken is not None:
        raise ValueError(f"the checksum of {broken} differs")


def _require_tensors(content: Any, file: Path) -> None:
    """Checks that each tensor has its memory, and that the file holds the memory of all."""
    storages = {}
    for tensor in _tensors(content):
        storage = tensor.untyped_storage()
        if tensor.device.type != "cpu" or tensor.nbytes > storage.nbytes():
            raise ValueError(
                f"a tensor of shape {tuple(tensor.shape)} over {storage.nbytes()} bytes"
            )
        storages[storage._cdata] = storage.nbytes()
    _require_room(sum(storages.values()), file)


def _require_room(stated: int, file: Path) -> None:
    if stated > (size := file.stat().st_size):
        raise ValueError(f"its parts are to take {stated} bytes, and the file has {size}")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yields the tensors in dictionaries and lists, each of these once."""
    seen, waiting = set(), [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (Mapping, list, tuple)) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one


def _explained(file: Path, error: Exception) -> str:
    """Returns one message; torch's own goes on to advise loading the file as code."""
    text = str(error).strip()
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused is not None:
        return (
            f"{file} cannot be read as tensors and plain values: it is a pickle that wants to call "
            f"{refused[1]}. It was not run, since such a file can do whatever you can. "
            "Ask for a safetensors file; or, in a container without network and without your "
            "files, load it with torch.load(weights_only=False) and torch.save its state_dict, "
            "which is tensors alone"
        )
    text = text.rpartition("WeightsUnpickler error: ")[2] or type(error).__name__
    reason = text.split("\n")[0].partition(". ")[0][:SHOWN]
    return (
        f"{file} cannot be read as tensors and plain values ({reason}): expected a dictionary as "
        "torch.save writes it since torch 1.6; nothing in it was executed. Copy it again, or ask "
        "for a safetensors file"
    )
