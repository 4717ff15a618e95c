"""Files that `torch.save` wrote, from whomever: tensors and plain values are read, code never runs.

A pickle may name any function to be called while it is read. `weights_only=True` calls those alone
that make tensors; the sizes that a file states are compared with its own before they take memory.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from salt_plugin.errors import CheckpointError
from salt_plugin.files import require_regular

# A million numbers of parts: what training saves has thousands.
MAX_MEMBERS = 2**20
SHOWN = 200
LOOKED_AT = 2**20


def read_torch_file(file: Path, *, checksums: bool = False) -> Mapping[str, Any]:
    """Returns the dictionary in a file, its tensors on the CPU and mapped from disk if they can be.

    Args:
        file: A file of `torch.save`, in its layout of today (a zip archive) or before torch 1.6.
        checksums: Whether to compare those of the archive, which torch does not; then it has to be
            one.

    Raises:
        CheckpointError: It holds code, which is not run; or is damaged, no dictionary, or states
            sizes that it does not hold.
    """
    try:
        require_regular(file)
        archive = zipfile.is_zipfile(file)
        if archive or checksums:
            _require_sizes(file, checksums)
        else:
            with FakeTensorMode():  # a storage of the layout before 1.6 takes memory as it is told
                _require_tensors(_loaded(file, False), file, device="meta")
        content = _loaded(file, archive)
        _require_tensors(content, file)
    except Exception as error:  # what a damaged pickle raises is anything
        raise CheckpointError(_explained(file, error)) from None
    return content


def _loaded(file: Path, mmap: bool) -> Mapping[str, Any]:
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    if not isinstance(content, Mapping):
        raise TypeError(f"a {type(content).__name__}, not a dictionary")
    return content


def _require_sizes(file: Path, checksums: bool) -> None:
    """Checks an archive: torch stores its parts as they are, so that none outgrows the file."""
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"{len(members)} parts, expected at most {MAX_MEMBERS}")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"its part {member.filename} is compressed, from {member.file_size} bytes, and "
                    "torch compresses none"
                )
        total = sum(member.file_size for member in members)
        if total > size:
            raise ValueError(f"its parts are to take {total} bytes, and the file has {size}")
        broken = archive.testzip() if checksums else None
    if broken is not None:
        raise ValueError(f"the checksum of {broken} differs")


def _require_tensors(content: Any, file: Path, device: str = "cpu") -> None:
    """Checks that tensors are whole and dense, and that the file holds what they take."""
    size, storages = file.stat().st_size, {}
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.device.type != device or tensor.is_quantized:
            raise ValueError(f"a tensor of layout {tensor.layout} on {tensor.device}")
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise ValueError(
                f"a tensor of shape {tuple(tensor.shape)} over {storage.nbytes()} bytes"
            )
        storages[storage._cdata] = storage.nbytes()
    total = sum(storages.values())
    if total > size:
        raise ValueError(f"its tensors are to take {total} bytes, and the file has {size}")


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


def _named(file: Path) -> str | None:
    """Returns the first function that a bare pickle names, read as data; None where none is."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        start = io.BytesIO(opened.read(LOOKED_AT))
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(start):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL":
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except Exception:  # of what is no pickle, anything
        return None
    return None


def _explained(file: Path, error: Exception) -> str:
    """Returns one message; torch's own goes on to advise loading the file as code."""
    text = str(error).strip()
    refused = re.search(r"GLOBAL (\S+)", text)
    named = refused[1] if refused else _named(file)
    if named is not None:
        return (
            f"{file} cannot be read as tensors and plain values: it is a pickle that wants to call "
            f"{named}. It was not run, since such a file can do whatever you can. "
            "Ask for a safetensors file; or, in a container without network and without your "
            "files, load it with torch.load(weights_only=False) and torch.save its state_dict, "
            "which is tensors alone"
        )
    text = text.rpartition("WeightsUnpickler error: ")[2] or type(error).__name__
    reason = text.split("\n")[0].partition(". ")[0][:SHOWN]
    return (
        f"{file} cannot be read as tensors and plain values ({reason}): expected what torch.save "
        "makes of a dictionary; nothing in it was executed. Copy it again, or ask for a "
        "safetensors file"
    )
