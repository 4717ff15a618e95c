"""Paths as they are written in a configuration."""

from __future__ import annotations

import os

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from salt_plugin.files import is_address

# Before the name of a list of the embedded demo set, where a path may stand.
DEMO_PREFIX = "demo:"


def is_path(given: str) -> bool:
    """Tells whether an input lies in the file system: no address, and no list of the demo set."""
    return not given.startswith(DEMO_PREFIX) and not is_address(given)


def absolute(path: str) -> str:
    """Returns a path from where the command was given, though `hydra.job.chdir` may have left it.

    Args:
        path: As written; `~` is the home of the user. Outside a Hydra application it counts from
            the working directory. A list of the demo set, `demo:FILE`, and an address stay as they
            are, but for the archive in `tar://member::archive`.
    """
    if not is_path(path):
        member, chained, archive = path.rpartition("::")
        return member + chained + absolute(archive) if chained else path
    # Hydra's configuration stays after its application has ended; the global object does not.
    runs = GlobalHydra.instance().is_initialized() and HydraConfig.initialized()
    given = HydraConfig.get().runtime.cwd if runs else os.getcwd()
    return os.path.normpath(os.path.join(given, os.path.expanduser(path)))
