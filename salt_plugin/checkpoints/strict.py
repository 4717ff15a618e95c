"""Weights must be exactly those of the model: no key missing, none left over, every shape right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from salt_plugin.errors import CheckpointError, ConfigError

SHOWN = 24

Module = TypeVar("Module", bound=nn.Module)


def load_strictly(
    build: Callable[[], Module],
    state: Mapping[str, Tensor],
    file: Path,
    what: str,
    named: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    back: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Module:
    """Returns a module with weights in its own dtype, once they are known to be all of its own.

    The sizes that a file states take memory only if the file holds tensors of these sizes.

    Args:
        build: Makes the module, and its shape from what the file states.
        state: Tensors by the file's names.
        file: Where they came from, for the message.
        what: What the module is, for the message, e.g. `encoder`.
        named: From the module's names to the file's.
        back: From the file's names to the module's.

    Raises:
        CheckpointError: The sizes are those of no module, or keys are missing, unexpected or of
            another shape.
    """
    try:
        with torch.device("meta"):
            expected = named(build().state_dict())
    except (ConfigError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{file}: no {what} has the sizes that the file, its card or its config.json states "
            f"({reason}); copy it again, or load it with the version that wrote it"
        ) from None
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{file} does not hold this {what}: missing {_listed(missing)}, unexpected "
            f"{_listed(unexpected)}, of another shape {_listed(wrong)}"
        )
    module = build()
    module.load_state_dict(dict(back(state)))
    return module


def _listed(found: set[str] | list[str]) -> str:
    if not found:
        return "nothing"
    names = sorted(found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{names[:SHOWN]}{more}"
