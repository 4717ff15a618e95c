"""Naming what was probably meant, and files of ours by their names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from salt_plugin.errors import ConfigError

# What the other files of a folder differ from.
BASE = "base"


def suggestion(found: str, known: Iterable[str]) -> str:
    """Returns a phrase that names the closest known key, or all of them."""
    names = sorted(known)
    close = get_close_matches(found, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def require_known(found: str, known: Iterable[str], mistake: str) -> None:
    """Checks that a name is known.

    Args:
        found: The name.
        known: All names.
        mistake: What to say of one that is not.

    Raises:
        ConfigError: It is not; says what was probably meant.
    """
    if found not in known:
        raise ConfigError(f"{mistake}; {suggestion(found, known)}")


def shipped(folder: Path, *within: str) -> list[str]:
    """Returns the names of the YAML files in a folder of ours, and in some within it."""
    files = [file for one in ("", *within) for file in (folder / one).glob("*.yaml")]
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
    return sorted(name for name in names if name != BASE)


def shipped_file(name: str, folder: Path, kind: str, *within: str) -> Path:
    """Returns the YAML file of the user, or of ours, that a command names.

    Args:
        name: A path that ends in `.yaml` or `.yml`, or a name.
        folder: Of ours.
        kind: What it is, for the message.
        *within: Folders in it that have more, e.g. `claims`, whose names are `claims/NAME`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name.endswith((".yaml", ".yml")):
        if not (file := Path(name).expanduser()).exists():
            known = ", ".join(shipped(folder, *within))
            raise ConfigError(f"{name}: no such file; {kind}s that are shipped: {known}")
        return file
    require_known(name, shipped(folder, *within), f"no .yaml file, and {name!r} is no {kind}")
    return folder / f"{name}.yaml"
