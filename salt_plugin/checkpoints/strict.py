"""Weights must be exactly those of the model: no key missing, none left over, every shape right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from salt_plugin.errors import CheckpointError

SHOWN = 24
# So many are built in no time, and what is missing can then be listed.
FEW_PARTS = 256

Module = TypeVar("Module", bound=nn.Module)


def load_strictly(
    build: Callable[[], Module],
    parts: int,
    state: Mapping[str, Tensor],
    file: Path,
    what: str,
    named: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    back: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Module:
    """Returns a module with weights in its own dtype, once they are known to be all of its own.

    The sizes that a file states take memory only if the file holds tensors of these sizes.

    Args:
        build: Makes the module.
        parts: How many numbered parts of it have tensors: blocks and mask tokens.
        state: Tensors by the file's names.
        file: Where they came from, for the message.
        what: What the module is, for the message, e.g. `encoder`.
        named: From the module's names to the file's.
        back: From the file's names to the module's.

    Raises:
        CheckpointError: The sizes are those of no module, or keys are missing, unexpected or of
            another shape.
    """
    if parts > max(len(state), FEW_PARTS):
        raise CheckpointError(
            f"{file} does not hold this {what}: expected tensors for each of {parts} blocks and "
            f"mask tokens, found {len(state)} tensors"
        )
    try:
        with torch.device("meta"):
            expected = named(build().state_dict())
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{file}: no {what} has the sizes that are told of it ({reason}); copy it again"
        ) from None
    check_state(expected, state, file, what)
    module = build()
    module.load_state_dict(dict(back(state)))
    return module


def check_state(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], file: Path, what: str
) -> None:
    """Compares the names and shapes of tensors.

    Raises:
        CheckpointError: Lists the keys that are missing, unexpected and of another shape.
    """
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{file} does not hold this {what}: missing {_listed(sorted(missing))}, unexpected "
            f"{_listed(sorted(unexpected))}, of another shape {_listed(wrong)}"
        )


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{names[:SHOWN]}{more}"
