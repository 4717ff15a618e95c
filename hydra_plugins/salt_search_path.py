"""Hydra finds this module in every application of the environment: it must load next to nothing."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from salt_plugin import host


class SaltSearchPath(SearchPathPlugin):
    """Adds our groups to the search path, and joins Lightly's own command."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once for every application that starts."""
        if host.is_lightly(search_path):
            host.join_lightly(search_path)
        elif host.is_salt_train(search_path):
            host.include_lightly(search_path)
        search_path.append("salt_plugin", host.config_path())
