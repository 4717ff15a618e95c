"""Weights must be exactly those of the model: no key missing, none left over, every shape right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from salt_plugin.errors import CheckpointError

SHOWN = 24


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], file: Path, what: str) -> None:
    """Loads weights into a module, in its own dtype, or none of them.

    Args:
        module: What to fill.
        state: Tensors by the module's names.
        file: Where they came from, for the message.
        what: What the module is, for the message, e.g. `encoder`.

    Raises:
        CheckpointError: Lists the keys that are missing, unexpected and of another shape.
    """
    check_state(module.state_dict(), state, file, what)
    module.load_state_dict(dict(state))


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
