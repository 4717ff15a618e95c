"""`salt probe`: a frozen encoder on labelled videos."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_plugin.commands.folder import make_folder
from salt_plugin.config.evaluation import CONTROLS, PROTOCOLS, ProbeConfig
from salt_plugin.config.keys import documented

if TYPE_CHECKING:
    from salt_plugin.evaluation import FrozenEncoder, ProbeReport

# Keys of a set that have options of another form, or none.
APART = ("annotations", "images", "segments", "crops", "protocols", "controls")
KEYS = [field for field in fields(ProbeConfig) if field.name not in APART]


def main(arguments: list[str]) -> None:
    """Probes an encoder, and prints what was found.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A list, a file, a key or a video that cannot work.
    """
    given = _parser().parse_args(arguments)

    from salt_plugin.config import probe_config, probe_config_for
    from salt_plugin.evaluation import open_encoder, probe
    from salt_plugin.evaluation.encoders import chosen_device
    from salt_plugin.report.accuracies import Bars, print_probe
    from salt_plugin.report.console import show_log

    show_log()
    changes = _changes(given)
    config = probe_config(given.data, **changes)
    chosen_device(given.device)
    if given.figures:
        make_folder(given.figures)
    encoder = open_encoder(given.encoder, size=config.size, seed=config.seed)
    config = probe_config_for(encoder.clip, given.data, changes)
    with Bars() as bars:
        report = probe(encoder, config, given.device, bars)
    if given.figures:
        _draw(given.figures, encoder, config, report)
    found = report.as_dict()
    if given.json:
        print(json.dumps(found))
    else:
        print_probe(report.encoder, found)


def _draw(folder: Path, encoder: FrozenEncoder, config: ProbeConfig, report: ProbeReport) -> None:
    """Draws the errors of the best protocol, and what its probe sees in the first test clip."""
    from salt_plugin.evaluation.features import first_clip
    from salt_plugin.evaluation.pictures import attention_of_clip, confusion, pca_rgb
    from salt_plugin.report import pictures

    protocol = next(name for name in PROTOCOLS if name in report.results)
    counts = confusion(report, protocol).numpy()
    pictures.draw_confusion(folder / f"confusion-{protocol}.png", counts, report.classes)
    pictures.draw_class_accuracy(folder / f"class-accuracy-{protocol}.png", counts, report.classes)
    if report.probe is not None:
        frames_thwc, tokens_nd = first_clip(encoder, config)
        grid = encoder.grid(config.frames, len(tokens_nd))
        attention = attention_of_clip(report.probe, tokens_nd, grid).numpy()
        pictures.draw_attention(folder / "attention.png", frames_thwc.numpy(), attention)
        colours = {"features": pca_rgb(tokens_nd, grid).numpy()}
        pictures.draw_pca(folder / "pca.png", frames_thwc.numpy(), colours)


def _changes(given: argparse.Namespace) -> dict[str, Any]:
    """Returns the keys of the configuration that the command line sets."""
    values = {field.name: getattr(given, field.name) for field in KEYS}
    changes = {key: value for key, value in values.items() if value is not None}
    if given.views:
        changes["segments"], changes["crops"] = given.views
    if given.protocol:
        changes["protocols"] = [*PROTOCOLS] if given.protocol == "all" else [given.protocol]
    if given.all_controls or given.control:
        wanted = CONTROLS if given.all_controls else given.control
        changes["controls"] = [control for control in CONTROLS if control in wanted]
    return changes


def _views(text: str) -> list[str]:
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected SEGMENTSxCROPS, e.g. 8x3")
    return text.split("x")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt probe",
        description="Evaluates a frozen encoder on labelled videos. What is not given is as the "
        "set of --data says, and where that is silent, frames, size and step as on the card of a "
        "trained encoder.",
    )
    parser.add_argument(
        "encoder",
        metavar="ENCODER",
        help="a run directory, an encoder file, V-JEPA 2 weights in either public layout, "
        "timm:NAME[:FILE], random:SIZE, or random:PATH for the shape of an encoder",
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        default="folder",
        help="k400, ssv2, coin, diving48, jester, in1k, demo, demo_digit, folder (the default), "
        "or a .yaml file of keys",
    )
    parser.add_argument("--protocol", choices=[*PROTOCOLS, "all"], help="one of them, or all")
    parser.add_argument(
        "--control",
        action="append",
        choices=CONTROLS,
        help="frames shuffled, one frame repeated, labels permuted, metadata only; repeatable",
    )
    parser.add_argument("--controls", dest="all_controls", action="store_true", help="all of them")
    parser.add_argument(
        "--views", type=_views, metavar="SxC", help="segments x crops of a test video"
    )
    meanings = documented(ProbeConfig)
    for field in KEYS:
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, metavar="VALUE", help=meanings.get(field.name))
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw errors, attention and features there"
    )
    parser.add_argument("--device", help="such as cuda:1; by default a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    return parser
