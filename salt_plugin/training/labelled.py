"""What a method that learns labels is given: an encoder, and lists whose labels fit together."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from salt_plugin.checkpoints import STUDENT_FIRST, find_encoder, load_encoder, read_input
from salt_plugin.config import RunConfig, probe_config_for, registry, require_input
from salt_plugin.config.evaluation import CLIP
from salt_plugin.data.sources import VideoList, classes_of, read_inputs
from salt_plugin.data.stream import inputs_of
from salt_plugin.errors import CheckpointError, ConfigError, DataError
from salt_plugin.evaluation.leaks import find_leaks
from salt_plugin.evaluation.lists import LabelledList, Lists
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape
from salt_plugin.training.budget import START, named_by

_SHOWN = 5
_OF_ENCODER = ("patch_size", "tubelet_size", "cls_token", "block_causal")


class Labelled(NamedTuple):
    """Lists whose labels are places in `names`.

    Attributes:
        names: Of the classes: their names, or their numbers as text.
        train: To learn from.
        val: To choose the best weights on; None where there is none.
        test: To score on, likewise.
    """

    names: list[str]
    train: VideoList
    val: VideoList | None
    test: VideoList | None


def labelled_lists(config: RunConfig) -> Labelled | None:
    """Returns the lists of a method that learns labels; None of any other.

    Raises:
        ConfigError: `input_dir` is empty.
        DataError: A list is missing or broken, or has rows without a label or with a class that
            the training list lacks; or the training list has one class.
    """
    method = config.method
    if not registry.get(method.name).classifies:
        return None
    require_input(config)
    given = {"input_dir": config.input_dir, "method.val": method.val, "method.test": method.test}
    lists = {key: read_inputs(inputs_of(config, one), key) for key, one in given.items() if one}
    found = {key: classes_of(videos, f"{key}={given[key]}") for key, videos in lists.items()}
    # Numbers before names, numbers by their size.
    known = sorted(set(found["input_dir"]), key=lambda label: (isinstance(label, str), label))
    if len(known) < 2 or method.classes not in (None, len(known)):
        raise DataError(
            f"input_dir={config.input_dir} has {len(known)} classes: expected "
            f"{method.classes or 'at least 2'}; name the whole list, or set method.classes"
        )
    place_of = {label: place for place, label in enumerate(known)}
    for key, labels in found.items():
        others = sorted({str(label) for label in labels if label not in place_of})
        if others:
            shown = ", ".join(others[:_SHOWN]) + ", ..." * (len(others) > _SHOWN)
            raise DataError(
                f"{key}={given[key]} has {len(others)} classes that input_dir={config.input_dir} "
                f"lacks: {shown}; expected some of its {len(known)}; take them out, or train on "
                "them as well"
            )
    names = [str(label) for label in known]
    numbered = {
        key: replace(videos, labels=[place_of[label] for label in found[key]], classes=names)
        for key, videos in lists.items()
    }
    optional = (numbered.get(key) for key in ("method.val", "method.test"))
    return Labelled(names, numbered["input_dir"], *optional)


def settled(config: RunConfig) -> RunConfig:
    """Returns a configuration with what it leaves to its encoder and to its lists.

    Those of other methods are returned as they are. Warns of videos that two lists name.

    Raises:
        CheckpointError: The encoder cannot be read, or is of no named size.
        ConfigError: No encoder is named, nor the size of a random one.
        DataError: As `labelled_lists`.
    """
    if not registry.get(config.method.name).classifies:
        return config
    config = deepcopy(config)
    method = config.method
    shape, seen = _given_encoder(config)
    method.encoder = method.encoder or shape.name
    for name in _OF_ENCODER:
        if getattr(method.model, name) is None:
            setattr(method.model, name, getattr(shape, name))
    own = {key: value for key in CLIP if (value := getattr(method.clip, key)) is not None}
    clip = probe_config_for(seen, "folder", own)  # the defaults of what nobody states
    for key in CLIP:
        setattr(method.clip, key, getattr(clip, key))
    for key in ("mean", "std"):
        if seen.get(key):
            method.transform.setdefault(key, seen[key])
    lists = labelled_lists(config)
    assert lists is not None
    train, val, test = map(_as_evaluated, lists[1:])
    find_leaks(Lists(train, val, test, lists.names, None))
    method.classes = len(lists.names)
    return config


def _as_evaluated(videos: VideoList | None) -> Any:
    return None if videos is None else LabelledList(videos.paths, torch.tensor(videos.labels))


def _given_encoder(config: RunConfig) -> tuple[EncoderShape, dict[str, Any]]:
    """Returns the shape of the encoder to start from, and the clips that it was trained on."""
    given = config.checkpoint
    if given is None:
        if config.method.encoder is None:
            raise ConfigError(
                f"method.encoder: missing; with {START}=null weights are random: name the size, "
                f"one of {', '.join(ENCODER_SIZES)}"
            )
        return EncoderShape.named(config.method.encoder, "method.encoder"), {}
    if not given:
        raise ConfigError(
            f"{START} is empty: expected the encoder to start from, a run directory or an encoder "
            f"file; random weights have to be asked for by {START}=null"
        )
    with named_by(START):
        shape = load_encoder(given, order=STUDENT_FIRST).shape
        seen = read_input(find_encoder(given, STUDENT_FIRST))
    if shape.name not in ENCODER_SIZES:
        raise CheckpointError(
            f"{START}={given} holds an encoder {shape.embed_dim} wide and {shape.depth} deep: "
            f"expected one of {', '.join(ENCODER_SIZES)}"
        )
    return shape, seen
