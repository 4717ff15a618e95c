"""Overrides as they come from a shell: what Hydra's grammar cannot read, and how to quote it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException

from salt_plugin.conf_folder import choices
from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError

# Groups that a run chooses from.
CHOICES = ("method", "preset")
_REFERENCE = re.compile(r"(\\*)\$\{")


def quoted(text: str, quote: Quote = Quote.double) -> str:
    r"""Returns a string of Hydra's grammar that stands for exactly this text.

    Args:
        text: Any text, e.g. a path. A `${` in it is no interpolation afterwards.
        quote: The quotes around it.
    """
    literal = _REFERENCE.sub(lambda found: found[1] * 2 + r"\${", text)
    return QuotedString(literal, quote).with_quotes()


def in_yaml(override: str) -> str:
    """Returns an override as an entry of a list in YAML, in a file or on a command line."""
    return json.dumps(override, ensure_ascii=False)


def check_command_line(arguments: Sequence[str]) -> None:
    """Checks the overrides in the arguments of a Hydra application; see `check_overrides`.

    Args:
        arguments: The command line after the script.

    Raises:
        ConfigError: As `check_overrides`.
    """
    given, _ = get_args_parser().parse_known_args(arguments)
    if given.shell_completion or given.experimental_rerun:
        return
    # A configuration of the user's own may switch sweeps on.
    own = given.config_dir or given.config_name or given.config_path
    own = own or any("hydra.mode" in override for override in given.overrides)
    check_overrides(given.overrides, sweeps=given.multirun, commas=bool(given.multirun or own))
    # Only here: a folder of the user's own may hold further methods and presets.
    if not own and not any("hydra.searchpath" in override for override in given.overrides):
        _check_choices(given.overrides)


def composition_error(error: HydraException) -> str:
    """Returns in one line why Hydra could not compose overrides, and what was probably meant."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        file = error.missing_cfg_file
        in_folders = file.startswith("preset/")
        group, _, choice = file.partition("/") if in_folders else file.rpartition("/")
        known = {*error.options, *choices(group)}
        return f"{group}={choice}: no such {group}; {suggestion(choice, known)}"
    return str(error).strip().splitlines()[0]


def check_overrides(
    overrides: Sequence[str],
    sweeps: bool = False,
    commas: bool = False,
    written: Callable[[str], str] = shlex.quote,
) -> None:
    """Checks that Hydra can read each override.

    Args:
        overrides: As they arrive, without the shell's quotes.
        sweeps: Whether commas separate the values of a sweep.
        commas: Whether values with commas are left to Hydra.
        written: How an override is written where these come from; by default for a shell.

    Raises:
        ConfigError: The first that Hydra cannot read, and the quoting with which it can.
    """
    for words in _split_by_the_shell(overrides):
        override = " ".join(words)
        reason = _unreadable(override, commas)
        if len(words) > 1:
            reason = "a shell splits at spaces"
        if reason is None:
            continue
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r}: expected key=value, e.g. input_dir=VIDEOS")
        mended = f"{key}={_quoted_value(value, sweeps)}"
        if _unreadable(mended, commas) is None:
            raise ConfigError(
                f"{override}: {reason}; to give {key} this text, quote it: {written(mended)}"
            )


def _check_choices(overrides: Sequence[str]) -> None:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group, value = override.key_or_group, override.value()
        if group not in CHOICES:
            continue
        known = choices(group)
        for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
            if isinstance(choice, str) and choice not in known:
                raise ConfigError(f"{group}={choice}: no such {group}; {suggestion(choice, known)}")


def _split_by_the_shell(overrides: Sequence[str]) -> list[list[str]]:
    """Puts each word that is no override to the override before it."""
    found: list[list[str]] = []
    for one in overrides:
        if found and "=" not in one and not one.startswith("~"):
            found[-1].append(one)
        else:
            found.append([one])
    return found


def _unreadable(override: str, commas: bool) -> str | None:
    """Returns why Hydra cannot read an override, None where it can."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return "Hydra cannot read it, for some characters belong to its grammar"
    value = parsed.value()
    if isinstance(value, ChoiceSweep) and value.simple_form and not commas:
        key, _, text = override.partition("=")
        return f"Hydra takes commas for a sweep (-m) and wants {key}=[{text}] for a list"
    return None


def _quoted_value(value: str, sweeps: bool) -> str:
    """Returns a value in quotes; of a list or a sweep, each entry that has none."""
    listed = value.startswith("[") and value.endswith("]")
    is_path = os.path.exists(os.path.expanduser(value))
    if is_path or not (listed or (sweeps and "," in value)):
        return quoted(value)
    entries = [one.strip() for one in (value[1:-1] if listed else value).split(",")]
    text = ",".join(
        one if len(one) > 1 and one[0] == one[-1] and one[0] in "'\"" else quoted(one)
        for one in entries
    )
    return f"[{text}]" if listed else text
