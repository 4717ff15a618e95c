"""`salt probe`: a frozen encoder on labelled videos."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_plugin.commands.folder import make_folder

if TYPE_CHECKING:
    from salt_plugin.config import ProbeConfig
    from salt_plugin.evaluation import FrozenEncoder, ProbeReport

# Arguments that are no keys of the evaluation's configuration.
OTHER = (
    "encoder",
    "data",
    "json",
    "device",
    "protocol",
    "control",
    "all_controls",
    "views",
    "figures",
)


def main(arguments: list[str]) -> None:
    """Probes an encoder, and prints what was found.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A list, a file, a key or a video that cannot work.
    """
    given = vars(_parser().parse_args(arguments))

    from salt_plugin.config import probe_config, probe_config_for
    from salt_plugin.evaluation import card_clip, open_encoder, probe
    from salt_plugin.evaluation.device import chosen_device
    from salt_plugin.report.console import show_log
    from salt_plugin.report.probe import Bars, print_probe

    show_log()
    changes = _changes(given)
    probe_config(given["data"], **changes)  # mistakes on the command line are found first
    chosen_device(given["device"])
    if given["figures"]:
        make_folder(given["figures"])
    config = probe_config_for(card_clip(given["encoder"]), given["data"], changes)
    encoder = open_encoder(given["encoder"], size=config.size, seed=config.seed)
    with Bars() as bars:
        report = probe(encoder, config, given["device"], bars)
    if given["figures"]:
        _draw(given["figures"], encoder, config, report, given["device"])
    found = report.as_dict()
    if given["json"]:
        print(json.dumps(found))
    else:
        print_probe(report.encoder, found)


def _draw(
    folder: Path,
    encoder: FrozenEncoder,
    config: ProbeConfig,
    report: ProbeReport,
    device: str | None,
) -> None:
    """Draws the errors of the best protocol, and what its probe sees in the first test clip."""
    from salt_plugin.config.probe import PROTOCOLS
    from salt_plugin.evaluation.first_clip import first_test_clip
    from salt_plugin.evaluation.pictures import attention_of_clip, confusion, pca_rgb
    from salt_plugin.report import pictures

    protocol = next(name for name in PROTOCOLS if name in report.results)
    counts = confusion(report, protocol).numpy()
    pictures.draw_confusion(folder / f"confusion-{protocol}.png", counts, report.classes)
    pictures.draw_class_accuracy(folder / f"class-accuracy-{protocol}.png", counts, report.classes)
    if report.probe is not None:
        clip = first_test_clip(encoder, config, device)
        frames = clip.frames_thwc.numpy()
        attention = attention_of_clip(report.probe, clip.tokens_nd, clip.grid).numpy()
        pictures.draw_attention(folder / "attention.png", frames, attention)
        colours = {"features": pca_rgb(clip.tokens_nd, clip.grid).numpy()}
        pictures.draw_pca(folder / "pca.png", frames, colours)


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of the configuration that the command line sets."""
    from salt_plugin.config.probe import CONTROLS, PROTOCOLS

    changes = {key: value for key, value in given.items() if key not in OTHER and value is not None}
    if given["views"]:
        changes["segments"], changes["crops"] = given["views"]
    if given["protocol"]:
        protocol = given["protocol"]
        changes["protocols"] = list(PROTOCOLS) if protocol == "all" else [protocol]
    if given["all_controls"] or given["control"]:
        wanted = CONTROLS if given["all_controls"] else given["control"]
        changes["controls"] = [control for control in CONTROLS if control in wanted]
    return changes


def _views(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SEGMENTSxCROPS, e.g. 8x3")
    return int(found[1]), int(found[2])


def _path(text: str) -> str:
    return text if text.startswith("demo:") else str(Path(text).expanduser().absolute())


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
    parser.add_argument("--train", type=_path, metavar="CSV", help="list (`path label`) or folder")
    parser.add_argument("--val", type=_path, metavar="CSV", help="to choose a probe of the grid on")
    parser.add_argument("--test", type=_path, metavar="CSV", help="to score on")
    parser.add_argument(
        "--groups", type=_path, metavar="CSV", help="`path group` of test videos, for the intervals"
    )
    parser.add_argument(
        "--protocol", choices=["attentive", "linear", "knn", "all"], help="one of them, or all"
    )
    parser.add_argument(
        "--control",
        action="append",
        choices=["shuffled", "frozen", "permuted", "metadata"],
        help="frames shuffled, one frame repeated, labels permuted, metadata only; repeatable",
    )
    parser.add_argument("--controls", dest="all_controls", action="store_true", help="all of them")
    parser.add_argument(
        "--grid", choices=["full", "fast", "halving"], help="20 probes, one, or successive halving"
    )
    for key, kind, text in (
        ("frames", int, "of a clip"),
        ("size", int, "of a clip in pixels"),
        ("step", int, "frames of the video from one frame of the clip to the next"),
        ("fps", float, "sample by time instead of --step"),
        ("epochs", int, "of the attentive probes"),
        ("batch-size", int, "of the attentive probes"),
        ("feature-batch-size", int, "clips that the encoder sees at once"),
        ("seed", int, "of everything random"),
        ("workers", int, "that decode videos; -1: one for each core"),
    ):
        parser.add_argument(f"--{key}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--views", type=_views, metavar="SxC", help="segments x crops of a test video"
    )
    parser.add_argument("--precision", choices=["auto", "bf16", "32"], help="auto: bf16 on a GPU")
    parser.add_argument("--cache", type=_path, metavar="DIR", help="folder of features")
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw errors, attention and features there"
    )
    parser.add_argument("--device", help="such as cuda:1; by default a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    return parser
