"""The elements of a pipeline: every command line of its stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote
from hydra.errors import HydraException

from salt_plugin.config.command_line import check_overrides, in_yaml, quoted
from salt_plugin.config.suggest import require_known
from salt_plugin.errors import ConfigError
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig, StageConfig, parts_of

RESERVED = "hydra.run.dir"
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
    values: dict[str, dict[str, Any]]
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
    if config.include:
        return _united(config, study)
    found: list[Element] = []
    # Of each element, its folder and those of what it is based on, by stage.
    folders: dict[str | None, dict[str, Path]] = {None: {"study": study}}
    for stage, settings in config.stages.items():
        based_on = [one for one in found if one.stage == settings.needs]
        parents: list[Element | None] = [*based_on] or [None]
        for parent, values in product(parents, _combinations(stage, settings)):
            based = [parent.name] if parent and parent.name != "all" else []
            name = "-".join(based + names_of(values)) or "all"
            if f"{stage}/{name}" in folders:
                raise ConfigError(f"pipeline.stages.{stage}.sweep: gives {name} more than once")
            base = parent.id if parent else None
            places = folders[f"{stage}/{name}"] = folders[base] | {stage: study / stage / name}
            known = {**(parent.values if parent else {}), stage: values}
            command = _command(stage, config, known, places)
            found.append(Element(stage, name, known, base, *command))
    return found


def _united(config: PipelineConfig, study: Path) -> list[Element]:
    """Returns the elements of the pipelines that another includes, each once."""
    found: dict[str, Element] = {}
    for part in parts_of(config):
        for one in all_elements(part, study):
            other = found.setdefault(one.id, one)
            differing = sorted({*one.arguments} ^ {*other.arguments})
            if differing:
                raise ConfigError(
                    f"pipeline.include: {one.id} is not the same in all: {', '.join(differing)}; "
                    "name the stages in different ways, or put the keys into their sweeps"
                )
    places = list(config.stages)
    return sorted(found.values(), key=lambda one: places.index(one.stage))


def reported(config: PipelineConfig, study: Path, report: str) -> set[str]:
    """Returns the ids of the elements that a report is about: those of its own pipeline."""
    own = [part for part in parts_of(config) if report in part.stages] or [config]
    return {one.id for part in own for one in all_elements(part, study)}


def run_dir_override(folder: Path) -> str:
    """Returns the override that names a run's folder, with any characters."""
    return f"{RESERVED}={_quoted(folder)}"


def _quoted(folder: Path) -> str:
    return quoted(str(folder), Quote.single)


def _combinations(stage: str, settings: StageConfig) -> list[dict[str, str]]:
    """Returns the combinations of a sweep: the value of each key."""
    key = f"pipeline.stages.{stage}.sweep"
    try:
        for sweep in settings.sweep:
            check_overrides([sweep], sweeps=True, commas=True, written=in_yaml)
        parsed = OverridesParser.create().parse_overrides(settings.sweep)
        (found,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except (HydraException, ConfigError) as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    combinations = [dict(one.split("=", 1) for one in overrides) for overrides in found]
    if len(combinations[0]) < len(parsed) or RESERVED in combinations[0]:
        raise ConfigError(f"{key}: gives a key twice, or {RESERVED}, which the study sets")
    return combinations


def _command(
    stage: str,
    config: PipelineConfig,
    values: Mapping[str, Mapping[str, str]],
    folders: Mapping[str, Path],
) -> tuple[str, list[str]]:
    """Returns the module and the arguments of an element."""
    settings, key = config.stages[stage], f"pipeline.stages.{stage}"

    def place(match: re.Match[str]) -> str:
        """Returns what `{stage}` or `{stage.key}` stands for: a folder or a value."""
        of, name = match["stage"], match["key"]
        if of == "needs" and settings.needs is not None:
            of = settings.needs
        for wanted, known in ((of, folders), (name, values.get(of, {}))):
            if wanted is not None:
                require_known(wanted, known, f"{key}: {match[0]} in {match.string!r}")
        if name is not None:
            return values[of][name]
        training = settings.command == TRAIN
        return _quoted(folders[of]) if training else str(folders[of])

    given = [_PLACE.sub(place, text) for text in settings.overrides]
    if settings.command == REPORT:
        places = [str(folders["study"]), str(folders[stage])]
        return "salt_plugin.studies.report", [*places, *given]
    if settings.command != TRAIN:
        return "salt_plugin.cli", [settings.command, *given]
    for override in settings.overrides:
        if override.lstrip("+~").partition("=")[0] == RESERVED:
            raise ConfigError(f"{key}.overrides: {override!r}: the study sets it; leave it out")
    method = [f"method={settings.method}"] if settings.method else []
    common = [_PLACE.sub(place, text) for text in config.overrides]
    swept = [f"{name}={value}" for name, value in values[stage].items()]
    folder = run_dir_override(folders[stage])
    return "salt_plugin.cli", [TRAIN, *method, *common, *given, *swept, folder]


def names_of(values: Mapping[str, str]) -> list[str]:
    """Returns the values of keys as parts of the name of a folder."""
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
