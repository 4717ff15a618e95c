"""The configuration of a frozen evaluation: a named set or a file of yours, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import conf_folder
from salt_plugin.config.application import is_path
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.values import (
    STRICT,
    AtLeast1,
    NotNegative,
    Positive,
    Seed32,
    Whole,
    Workers,
)
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError

BASE = "base"
VJEPA2 = "vjepa2"
Protocol = Literal["attentive", "linear", "knn"]
Control = Literal["shuffled", "frozen", "permuted", "metadata"]
Keep = Literal["none", "time", "time+space"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
CONTROLS: tuple[str, ...] = get_args(Control)
CLIP = ("frames", "size", "step", "fps")

Classes = Annotated[Whole, Field(ge=2)]
Precision = Annotated[Literal["auto", "bf16", "32"], BeforeValidator(str)]
Protocols = Annotated[
    list[Protocol | Literal["vjepa2"]],
    Field(min_length=1, title=f"some of {', '.join(PROTOCOLS)}, or {VJEPA2} alone"),
]
Rates = Annotated[list[Positive], Field(min_length=1, title="rates above 0")]
Decays = Annotated[list[NotNegative], Field(min_length=1, title="decays of 0 or more")]
Controls = Annotated[list[Control], Field(title=f"some of {', '.join(CONTROLS)}, or none")]


@dataclass(config=STRICT)
class Heads:
    """Attentive probes of the protocol `vjepa2`: each rate with each decay.

    Attributes:
        rates: Learning rates, at their highest.
        decays: Weight decays at the first step.
        warmup: Epochs in which the rate rises from `start_rate`.
        start_rate: See `warmup`.
        final_decay: What the decay goes to, along a cosine; null: it stays.
    """

    rates: Rates
    decays: Decays
    warmup: NotNegative = 0.0
    start_rate: NotNegative = 0.0
    final_decay: NotNegative | None = None


@dataclass(config=STRICT)
class ProbeConfig:
    """The keys of a frozen evaluation; `conf/probe/` holds the defaults.

    Attributes:
        annotations: Where the lists come from, for those who read the file.
        train: Videos to learn from: folder, CSV (`path label`) or `demo:FILE`.
        val: Videos to choose a probe on; null: the test list, as the paper does.
        test: Videos to score on.
        demo: The embedded set, of `demo:FILE`, where it is another than by default, e.g. `{val:
            1000}` (docs/demo.md).
        groups: CSV (`path group`) of the test videos, for the bootstrap.
        classes: Number of classes; null: that of the lists.
        images: The files are images, shown as a video of one frame that repeats.
        frames: Frames of a clip, unless the encoder's card states them.
        size: Height and width of a clip in pixels, unless the card states them.
        step: Step from frame to frame of a clip, unless the card states it.
        fps: Frames a second of a clip, instead of `step`.
        segments: Clips of a test video, spread over its length.
        crops: Crops of each clip, along the longer side.
        protocols: What is learnt from the features.
        keep: What `linear` and `knn` read: the mean of the tokens over all of a clip for `none`, at
            each time for `time`, at each time in 2 x 2 places for `time+space`.
        controls: What is taken away from the videos, one evaluation for each.
        grid: Attentive probes: `full`: 20; `fast`: one, of learning rate 1e-3 and weight decay
            0.01; `halving`: 20, hopeless ones ended early.
        heads: Attentive probes of `vjepa2`, a list of groups of `rates`, `decays`, `warmup`
            (epochs), `start_rate` and `final_decay`.
        layers: Blocks whose tokens the probes of `vjepa2` read.
        choose: `vjepa2` without `val` chooses on a part of the training list for `val`, on the test
            list, as V-JEPA 2 does, for `test`.
        epochs: Epochs of the attentive probes.
        batch_size: Clips of a step of the attentive probes.
        feature_batch_size: Clips that the encoder sees at once.
        precision: `auto`: bf16 on a GPU, 32 on a CPU.
        seed: Seed of everything random.
        workers: Processes that decode videos; -1: one for each core, 0: none.
        stall: Seconds to wait for a batch of videos; null: for ever.
        cache: Folder of features; null: in the user's cache.
    """

    annotations: str
    train: str | None
    val: str | None
    test: str | None
    demo: dict[str, Any]
    groups: str | None
    classes: Classes | None
    images: bool
    frames: AtLeast1
    size: AtLeast1
    step: AtLeast1
    fps: Positive | None
    segments: AtLeast1
    crops: AtLeast1
    protocols: Protocols
    keep: Keep
    controls: Controls
    grid: Literal["full", "fast", "halving"]
    heads: Annotated[list[Heads], Field(min_length=1, title="a list")]
    layers: AtLeast1
    choose: Literal["val", "test"]
    epochs: AtLeast1
    batch_size: AtLeast1
    feature_batch_size: AtLeast1
    precision: Precision
    seed: Seed32
    workers: Workers
    stall: Positive | None
    cache: str | None


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
        changes: Further keys, as the `**changes` of `probe_config`.

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
    # What a set states for that protocol alone.
    nodes = [layer.pop(VJEPA2, None) or {} for layer in (base, chosen, own)]
    protocols = {**base, **chosen, **own, **changes}["protocols"]
    special = {key: value for node in nodes for key, value in node.items()}
    found: dict[str, Any] = {}
    for layer in (base, known, chosen, special if protocols == [VJEPA2] else {}, own, changes):
        if "step" in layer:
            found["fps"] = None  # a rate goes before a step that is given with it, not after it
        found |= layer
    config: ProbeConfig = typed(ProbeConfig, found, "probe.")
    if VJEPA2 in config.protocols:
        _check_vjepa2(config)
    return config


def _check_vjepa2(config: ProbeConfig) -> None:
    for key, wrong, expected in (
        ("protocols", len(config.protocols) > 1, f"[{VJEPA2}] alone: the others read a cache"),
        ("controls", config.controls, "none: they are for the other protocols"),
        ("fps", config.fps, f"step: {VJEPA2} counts in frames"),
        ("segments", config.images and config.segments > 1, "1: an image has one frame"),
    ):
        if wrong:
            raise ConfigError(
                f"probe.{key}={getattr(config, key)} with protocol {VJEPA2}: expected {expected}"
            )


def clip_seen(config: ProbeConfig) -> dict[str, Any]:
    """Returns `frames`, `size`, `step` and `fps` of the clips; of the last two, one is None."""
    step = None if config.fps else config.step
    return {"frames": config.frames, "size": config.size, "step": step, "fps": config.fps}


def with_absolute_paths(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """Lets the paths of an evaluation's lists count from the file that names them."""
    for key in ("train", "val", "test", "groups"):
        path = values.get(key)
        if isinstance(path, str) and is_path(path):
            values[key] = str(file.parent / Path(path).expanduser())
    return values
