"""`salt probe`: frozen encoders on labelled videos."""

from __future__ import annotations

import argparse
import json
import re
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_plugin.commands.folder import make_folder
from salt_plugin.config.evaluation import CONTROLS, PROTOCOLS, VJEPA2, ProbeConfig
from salt_plugin.config.keys import documented
from salt_plugin.errors import LostOthersError
from salt_plugin.files import write_json

if TYPE_CHECKING:
    from salt_plugin.evaluation import FrozenEncoder, ProbeReport
    from salt_plugin.training.world import Ranks

# Keys of a set that have options of another form, or none.
APART = ("annotations", "images", "demo", "segments", "crops", "protocols", "controls", "heads")
KEYS = [field for field in fields(ProbeConfig) if field.name not in APART]


def main(arguments: list[str]) -> None:
    """Probes encoders, and prints what was found.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A list, a file, a key or a video that cannot work.
    """
    given = _parser().parse_args(arguments)

    from salt_plugin.evaluation.encoders import chosen_device
    from salt_plugin.report.accuracies import print_probes
    from salt_plugin.report.console import show_log
    from salt_plugin.training.world import join, lost_others

    show_log()
    ranks, device = join(chosen_device(given.device))
    try:
        found = _probe_all(given, ranks, device)
    except RuntimeError as error:
        if not lost_others(error):
            raise
        raise LostOthersError(
            "another process of this evaluation has ended or does not answer "
            f"({str(error).splitlines()[0]}); features that are written stay for the same command"
        ) from error
    if ranks.is_first and given.json:
        print(json.dumps(found if len(found) > 1 else found[0]))
    elif ranks.is_first:
        print_probes(found)


def _probe_all(given: argparse.Namespace, ranks: Ranks, device: str) -> list[dict[str, Any]]:
    """Probes one encoder after the other, and keeps in --out what is found.

    All are opened before the first is probed, so that a mistake is found at once.
    """
    from salt_plugin.config import probe_config, probe_config_for
    from salt_plugin.data.workers import loader_workers
    from salt_plugin.evaluation import open_encoder, probe
    from salt_plugin.evaluation.probe_file import PROBE_FILE, save_probe
    from salt_plugin.report.accuracies import Bars
    from salt_plugin.training.world import sharing_cores, started_tasks, within_patience

    changes = _changes(given)
    config = probe_config(given.data, **changes)
    out = given.out if ranks.is_first else None
    if out:
        make_folder(out)

    def opened(name: str) -> tuple[FrozenEncoder, ProbeConfig]:
        encoder = open_encoder(name, size=config.size, seed=config.seed)
        own = probe_config_for(encoder.clip, given.data, changes)
        encoder.check_clip(own.frames, own.size)
        ranks.require_alike({**asdict(own), "encoder": encoder.fingerprint})
        if (tasks := started_tasks()) is not None:
            workers = loader_workers(own.workers, sharing_cores(tasks))
            own = replace(own, workers=workers, stall=within_patience(own.stall))
        return encoder, own

    for name in given.encoders[1:]:
        opened(name)
    found: list[dict[str, Any]] = []
    for number, name in enumerate(given.encoders, start=1):
        encoder, own = opened(name)
        with warnings.catch_warnings(), Bars(disable=not ranks.is_first) as bars:
            if not ranks.is_first:  # the first says it
                warnings.simplefilter("ignore")
            report = probe(encoder, own, device, bars, ranks)
        found.append(report.as_dict())
        if out:
            folder = out / str(number) if len(given.encoders) > 1 else out
            make_folder(folder)
            _draw(folder, encoder, own, report)
            if report.probe is not None:
                save_probe(report.probe, folder / PROBE_FILE)
            write_json(out / "probe.json", {"reports": found})
    return found


def _draw(folder: Path, encoder: FrozenEncoder, config: ProbeConfig, report: ProbeReport) -> None:
    """Draws the errors of the best protocol, and what its probe sees in the first test clip."""
    from salt_plugin.evaluation.features import first_clip
    from salt_plugin.evaluation.pictures import attention_of_clip, confusion, pca_rgb
    from salt_plugin.report import pictures

    protocol = next(name for name in (VJEPA2, *PROTOCOLS) if name in report.results)
    counts = confusion(report, protocol).numpy()
    pictures.draw_confusion(folder / f"confusion-{protocol}.png", counts, report.classes)
    pictures.draw_class_accuracy(folder / f"class-accuracy-{protocol}.png", counts, report.classes)
    if report.probe is not None and protocol != VJEPA2:  # whose probe reads several clips
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
        changes["protocols"] = [*PROTOCOLS] if "all" in given.protocol else given.protocol
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
        description="Evaluates frozen encoders on labelled videos. What is not given is as the "
        "set of --data says, and where that is silent, frames, size and step as on the card of a "
        "trained encoder.",
    )
    parser.add_argument(
        "encoders",
        metavar="ENCODER",
        nargs="+",
        help="a run directory, an encoder file, V-JEPA 2 weights in either public layout, "
        "timm:NAME[:FILE], random:SIZE, or random:PATH for an encoder before training; several "
        "make one table",
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        default="folder",
        help="k400, ssv2, coin, diving48, jester, in1k, demo, demo_digit, demo_val, "
        "demo_digit_val, folder (the default), or a .yaml file of keys",
    )
    parser.add_argument(
        "--protocol",
        action="append",
        choices=[*PROTOCOLS, "all", VJEPA2],
        help="of the first three on cached features, which are repeatable, or all of these; or "
        "V-JEPA 2's own",
    )
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
        "--out",
        "--figures",
        dest="out",
        type=Path,
        metavar="DIR",
        help="keep the JSON there, the attentive probe, and pictures of errors and features",
    )
    parser.add_argument("--device", help="such as cuda:1; by default a GPU where there is one")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as one line of JSON, that of several encoders as a list",
    )
    return parser
