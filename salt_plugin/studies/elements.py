"""The elements of a pipeline: every command line of its stages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote
from hydra.errors import HydraException

from salt_plugin.config.command_line import check_overrides, in_yaml, quoted
from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig, StageConfig

RESERVED = ("hydra.run.dir",)
_PLACE = re.compile(r"\{(?P<stage>[\w-]+)(?:\.(?P<key>[\w.@/]+))?\}")


class Element(NamedTuple):
    """One command line.

    Attributes:
        stage: Its stage.
        name: Its folder under that of the stage.
        values: Its place in the sweep, and those of what it is based on, by stage and key.
        parent: `id` of the element that it is based on.
        module: What Python runs.
        arguments: Of the module.
    """

    stage: str
    name: str
    values: dict[str, dict[str, str]]
    parent: str | None
    module: str
    arguments: list[str]

    @property
    def id(self) -> str:
        """Stage and name; the folder under that of the study."""
        return f"{self.stage}/{self.name}"


def all_elements(config: PipelineConfig, study: Path) -> list[Element]:
    """Returns the elements, stage by stage.

    Args:
        config: The pipeline.
        study: The folder of the study.

    Raises:
        ConfigError: A sweep or an argument cannot work, or two elements would share a folder.
    """
    found: dict[str, list[Element]] = {}
    for stage, settings in config.stages.items():
        parents = found[settings.needs] if settings.needs else [None]
        found[stage] = [
            _element(stage, settings, config, parent, values, study, found)
            for parent in parents
            for values in _combinations(stage, settings)
        ]
        names = [element.name for element in found[stage]]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"pipeline.stages.{stage}.sweep: gives {twice} more than once")
    return [element for elements in found.values() for element in elements]


def run_dir_override(folder: Path) -> str:
    """Returns the override that names a run's folder, whatever characters that has."""
    return f"hydra.run.dir={quoted(str(folder), Quote.single)}"


def axes(stage: str, settings: StageConfig) -> dict[str, list[str]]:
    """Returns the values of each key of a sweep.

    Raises:
        ConfigError: It is none.
    """
    key = f"pipeline.stages.{stage}.sweep"
    try:
        for sweep in settings.sweep:
            check_overrides([sweep], sweeps=True, commas=True, written=in_yaml)
        parsed = OverridesParser.create().parse_overrides(settings.sweep)
    except (HydraException, ConfigError) as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    found: dict[str, list[str]] = {}
    for override in parsed:
        name = override.get_key_element()
        if name in found or name in RESERVED:
            raise ConfigError(f"{key}: {name} cannot be swept, or is given twice")
        found[name] = (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [str(override.get_value_element_as_str())]
        )
    return found


def _combinations(stage: str, settings: StageConfig) -> list[dict[str, str]]:
    swept = axes(stage, settings)
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]


def _element(
    stage: str,
    settings: StageConfig,
    config: PipelineConfig,
    parent: Element | None,
    values: dict[str, str],
    study: Path,
    found: Mapping[str, list[Element]],
) -> Element:
    parts = ([parent.name] if parent and parent.name != "all" else []) + _names(values)
    name = "-".join(parts) or "all"
    known = {**(parent.values if parent else {}), stage: values}
    folders = {stage: study / stage / name, "study": study}
    ancestor = parent
    while ancestor is not None:
        folders[ancestor.stage] = study / ancestor.id
        ancestor = _parent_of(ancestor, found)

    def filled(text: str) -> str:
        return _filled(text, f"pipeline.stages.{stage}", folders, known, settings.command == TRAIN)

    given = [filled(text) for text in settings.overrides]
    if settings.command == REPORT:
        module, arguments = "salt_plugin.studies.report", [str(study), str(folders[stage]), *given]
    else:
        module, arguments = "salt_plugin.cli", [settings.command, *given]
    if settings.command == TRAIN:
        _check_overrides(stage, settings)
        method = [f"method={settings.method}"] if settings.method else []
        common = [filled(text) for text in config.overrides]
        swept = [f"{key}={value}" for key, value in values.items()]
        folder = run_dir_override(folders[stage])
        arguments = [TRAIN, *method, *common, *given, *swept, folder]
    parent_id = parent.id if parent else None
    return Element(stage, name, known, parent_id, module, arguments)


def _parent_of(element: Element, found: Mapping[str, list[Element]]) -> Element | None:
    if element.parent is None:
        return None
    stage = element.parent.partition("/")[0]
    return next(one for one in found[stage] if one.id == element.parent)


def _check_overrides(stage: str, settings: StageConfig) -> None:
    for override in settings.overrides:
        if override.lstrip("+~").partition("=")[0] in RESERVED:
            raise ConfigError(
                f"pipeline.stages.{stage}.overrides: {override!r}: the study sets it; leave it out"
            )


def _filled(
    text: str,
    key: str,
    folders: Mapping[str, Path],
    values: Mapping[str, Mapping[str, str]],
    quoted: bool,
) -> str:
    """Returns an argument with `{stage}` and `{stage.key}` replaced by folder and value."""

    def place(match: re.Match[str]) -> str:
        stage, of = match["stage"], match["key"]
        if stage not in folders:
            raise ConfigError(f"{key}: {match[0]} in {text!r}: {suggestion(stage, folders)}")
        if of is None:
            folder = str(folders[stage])
            return run_dir_override(folders[stage]).partition("=")[2] if quoted else folder
        known = values.get(stage, {})
        if of not in known:
            raise ConfigError(f"{key}: {match[0]} in {text!r}: {suggestion(of, known)}")
        return known[of]

    return _PLACE.sub(place, text)


def _names(values: Mapping[str, str]) -> list[str]:
    """Returns what tells an element of a sweep from the others, fit for the name of a folder."""
    found = []
    for key, value in values.items():
        last = key.rpartition(".")[2]
        word = last if last != "seed" else "s"
        text = value if value[:1].isalpha() else f"{word}{_number(value)}"
        found.append(re.sub(r"[^\w.+-]+", "_", text).strip("_"))
    return found


def _number(text: str) -> str:
    """Returns a number as short as it goes, e.g. `2e14`; other texts as they are."""
    try:
        return f"{float(text):.6g}".replace("e+", "e")
    except ValueError:
        return text
