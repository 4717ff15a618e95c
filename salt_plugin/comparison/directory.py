"""The folder of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from salt_plugin.comparison.cells import Cell
from salt_plugin.config.compare import CompareConfig
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError
from salt_plugin.files import hold, write_text
from salt_plugin.run_directory import RunDirectory, flat

# Lists to which a later comparison in the same folder may add.
GROWING = ("methods", "encoders", "budgets", "seeds", "teacher_shares")


class CellDirectory:
    """The folder of one run: that of any run, its log and what its probes found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = RunDirectory(root)
        self.log = root / "cell.log"
        self.probe = root / "probe.json"


class ComparisonDirectory:
    """`compare.yaml`, `cells/`, `results.csv`, `table.md` and `figures/`.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "compare.yaml"
        self.results = root / "results.csv"
        self.table = root / "table.md"
        self.figures = root / "figures"
        self._lock: IO[str] | None = None

    def cell(self, cell: Cell) -> CellDirectory:
        """Returns the folder of a run."""
        return CellDirectory(self.root / "cells" / cell.name)

    def check(self, config: CompareConfig, common: Mapping[str, Any]) -> None:
        """Checks that the folder is free, or holds a part of the same comparison.

        Args:
            config: The comparison.
            common: What all of its runs have in common, as `check.common_settings` gives it.

        Raises:
            ConfigError: It holds another comparison; lists what differs.
        """
        if not self.config.is_file():
            return
        stored = read_yaml(self.config)
        given = _plain(config, common)
        changed = _removed(stored, given) + _changed(stored, given)
        if changed:
            raise ConfigError(
                f"{self.root} holds another comparison: {'; '.join(changed)}. Give the same values "
                f"({', '.join(GROWING)} may be added to), or another --out"
            )

    def claim(self, config: CompareConfig, common: Mapping[str, Any]) -> None:
        """Takes the folder, once `check` has passed, until the process ends.

        Raises:
            ConfigError: Another process compares in it, or it cannot be written to.
        """
        try:
            self._lock = hold(self.root)
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be written to ({error.strerror})") from None
        if self._lock is None:
            raise ConfigError(
                f"another salt compare works in {self.root}; wait for it, or choose another --out"
            )
        self.check(config, common)
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(_plain(config, common))))

    def release(self) -> None:
        """Lets another process compare in the folder."""
        if self._lock is not None:
            self._lock.close()


def _plain(config: CompareConfig, common: Mapping[str, Any]) -> dict[str, Any]:
    return {**asdict(config), "common": dict(common)}


def _removed(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    return [
        f"{key} was {stored[key]} and is now {given[key]}"
        for key in GROWING
        if not set(stored[key]) <= set(given[key])
    ]


def _changed(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    before, now = (_fixed(tree, stored["methods"]) for tree in (stored, given))
    return [
        f"{key} was {before.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _fixed(tree: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """Returns what may not change: nothing of methods that are new."""
    overrides = {name: tree["method_overrides"].get(name, []) for name in methods}
    # Keys of earlier versions that have no effect.
    shared = [one for one in tree["overrides"] if not one.startswith("method.data.root=")]
    probe = [{key: one[key] for key in one if key != "root"} for one in tree["probe"]]
    fixed = {"overrides": shared, "method_overrides": overrides, "probe": probe}
    return flat(fixed) | {f"common {key}": value for key, value in tree["common"].items()}
