"""The configuration of a frozen evaluation: a named set or a file of yours, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_plugin.conf_folder import conf_folder
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.config.checks import Rule, check_rules
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError

BASE = "base"
PROTOCOLS = ("attentive", "linear", "knn")
CONTROLS = ("shuffled", "frozen", "permuted", "metadata")
CLIP = ("frames", "size", "step", "fps")
GRIDS = ("full", "fast", "halving")
PROBE_PRECISIONS = ("auto", "bf16", "32")


@dataclass
class ProbeConfig:
    """A frozen evaluation; `conf/probe/` holds the defaults and says what each key means."""

    annotations: str
    train: str | None
    val: str | None
    test: str | None
    groups: str | None
    classes: int | None
    images: bool
    frames: int
    size: int
    step: int
    fps: float | None
    segments: int
    crops: int
    protocols: list[str]
    controls: list[str]
    grid: str
    epochs: int
    batch_size: int
    feature_batch_size: int
    precision: str
    seed: int
    workers: int
    stall: float | None
    cache: str | None


RULES: tuple[Rule, ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        (
            "frames",
            "size",
            "step",
            "segments",
            "crops",
            "epochs",
            "batch_size",
            "feature_batch_size",
        ),
    ),
    ("at least 2, or null", lambda value: value is None or value >= 2, ("classes",)),
    ("more than 0, or null", lambda value: value is None or value > 0, ("fps", "stall")),
    ("0 to 2^32 - 1", lambda value: 0 <= value < 2**32, ("seed",)),
    ("-1 or more", lambda value: value >= -1, ("workers",)),
    (f"one of {', '.join(GRIDS)}", lambda value: value in GRIDS, ("grid",)),
    (
        f"one of {', '.join(PROBE_PRECISIONS)}",
        lambda value: value in PROBE_PRECISIONS,
        ("precision",),
    ),
    (
        f"some of {', '.join(PROTOCOLS)}",
        lambda value: len(value) > 0 and all(one in PROTOCOLS for one in value),
        ("protocols",),
    ),
    (
        f"some of {', '.join(CONTROLS)}, or none",
        lambda value: all(one in CONTROLS for one in value),
        ("controls",),
    ),
)


def probe_sets() -> list[str]:
    """Returns the names of the sets in `conf/probe/`."""
    return sorted(
        file.stem for file in (conf_folder() / "probe").glob("*.yaml") if file.stem != BASE
    )


def probe_config(data: str = "folder", **changes: Any) -> ProbeConfig:
    """Returns the configuration of an evaluation.

    Args:
        data: A set of `conf/probe/`, or a YAML file of keys that differ from `folder`'s; its
            relative paths count from the file.
        **changes: Further keys, e.g. ``train="train.csv"``.

    Raises:
        ConfigError: There is no such set, or a key or value cannot work.
    """
    return probe_config_for({}, data, changes)


def probe_config_for(clip: Mapping[str, Any], data: str, changes: Mapping[str, Any]) -> ProbeConfig:
    """Returns the configuration of an evaluation of an encoder that was trained on such clips.

    Args:
        clip: `frames`, `size`, `step` and `fps`, as far as they are known; the defaults of what
            neither the set nor the changes state.
        data: As for `probe_config`.
        changes: Likewise.

    Raises:
        ConfigError: As `probe_config`.
    """
    file = Path(data) if data.endswith((".yaml", ".yml")) else None
    name = data if file is None else "folder"
    names = probe_sets()
    if name not in names:
        raise ConfigError(
            f"{name!r} is no data set to probe on; {suggestion(name, names)}, or a .yaml file"
        )
    base, chosen = (read_yaml(conf_folder() / "probe" / f"{one}.yaml") for one in (BASE, name))
    own = {} if file is None else with_absolute_paths(read_yaml(file), file)
    known = {key: clip[key] for key in CLIP if key in clip}
    found: dict[str, Any] = {}
    for layer in (base, known, chosen, own, changes):
        if "step" in layer:
            found["fps"] = None  # a rate goes before a step that is given with it, not after it
        found |= layer
    config: ProbeConfig = typed(ProbeConfig, found, "probe.")
    check_rules(config, RULES, "probe.")
    return config


def clip_seen(config: ProbeConfig) -> dict[str, Any]:
    """Returns `frames`, `size`, `step` and `fps` of the clips; of the last two, one is None."""
    step = None if config.fps else config.step
    return {"frames": config.frames, "size": config.size, "step": step, "fps": config.fps}


def require_lists(config: ProbeConfig) -> None:
    """Checks that there is something to learn from and something to score on.

    Raises:
        ConfigError: A list is missing.
    """
    for key in ("train", "test"):
        if not getattr(config, key):
            raise ConfigError(
                f"probe.{key}: missing; give a folder or a CSV (`path label`) by --{key}, or by "
                f"method.probe_{key} in a run, or choose a set that has one, e.g. demo"
            )


def with_absolute_paths(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """Lets the paths of an evaluation's lists count from the file that names them."""
    for key in ("train", "val", "test", "groups"):
        path = values.get(key)
        if isinstance(path, str) and not path.startswith(DEMO_PREFIX):
            values[key] = str(file.parent / Path(path).expanduser())
    return values
