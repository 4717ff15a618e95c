"""Paths as they are written in a configuration."""

from __future__ import annotations

import os

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

# Before the name of a list of the embedded demo set, where a path may stand.
DEMO_PREFIX = "demo:"


def absolute(path: str) -> str:
    """Returns a path from where the command was given, though `hydra.job.chdir` may have left it.

    Args:
        path: As written; `~` is the home of the user. Outside a Hydra application it counts from
            the working directory. A list of the demo set, `demo:FILE`, stays as it is.
    """
    if path.startswith(DEMO_PREFIX):
        return path
    # Hydra's configuration stays after its application has ended; the global object does not.
    runs = GlobalHydra.instance().is_initialized() and HydraConfig.initialized()
    given = HydraConfig.get().runtime.cwd if runs else os.getcwd()
    return os.path.normpath(os.path.join(given, os.path.expanduser(path)))
