"""Where an evaluation computes."""

from __future__ import annotations

import torch

from salt_plugin.errors import ConfigError


def chosen_device(name: str | None = None) -> str:
    """Returns a device that is there.

    Args:
        name: Such as `cuda:1`; None: a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    visible = torch.cuda.device_count()
    if name is None:
        return "cuda" if visible else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: no device; expected such as cpu or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= visible:
        raise ConfigError(
            f"--device {name}: torch sees {visible} GPUs on this machine; leave it out, or name "
            "another"
        )
    return name
