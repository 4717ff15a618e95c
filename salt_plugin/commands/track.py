"""`salt track`: what the encoders of a run are worth as its loss falls; students by their loss."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import track as with_bar

from salt_plugin.commands.folder import make_folder
from salt_plugin.config import ProbeConfig, clip_seen
from salt_plugin.config.evaluation import PROTOCOLS
from salt_plugin.files import write_csv, write_json
from salt_plugin.report.console import console, show_log
from salt_plugin.run_directory import RunDirectory

DEMO_TASKS = ("direction", "digit")


def main(arguments: list[str]) -> None:
    """Tracks one run, or ranks several, and prints what came out.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A run, its encoders or the labelled videos cannot be used.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.train is None) != (given.test is None):
        parser.error("--train and --test go together")
    if given.train and given.task:
        parser.error("--task is one of the demo set; leave it out with --train and --test")
    show_log()
    result = _track(given) if len(given.runs) == 1 else _rank(given)
    if given.json:
        print(json.dumps(result))


def _track(given: argparse.Namespace) -> dict[str, Any]:
    from salt_plugin.evaluation.track import kept_encoders, track
    from salt_plugin.report.agreement import agreement
    from salt_plugin.report.loss_accuracy import draw_track, sentence, track_table

    (root,) = given.runs
    run = RunDirectory(root)
    kept = kept_encoders(run)
    config, about = _evaluation(given, run, kept[min(kept)])
    folder, figures = (given.out, given.out) if given.out else (root / "track", run.figures)
    make_folder(folder)

    err = console(stderr=True)
    measured = with_bar(track(kept, config), "encoders", len(kept), console=err, transient=True)
    points = [point._asdict() for point in measured]
    fit = agreement([p["loss"] for p in points], [p["accuracy"] for p in points])._asdict()
    result = {"run": str(root), "stage": run.result.root.name, **about, **fit, "points": points}
    write_csv(folder / "track.csv", list(points[0]), points)
    write_json(folder / "track.json", result)
    draw_track(figures / "track.png", points, fit, about["task"])
    _draw_features(figures / "track_pca.png", config, kept)

    out = console()
    out.print(track_table(points, about))
    out.print(f"Accuracy against loss: {sentence(fit)}")
    written = [folder / "track.csv", folder / "track.json"]
    for path in [*written, figures / "track.png", figures / "track_pca.png"]:
        out.print(str(path), soft_wrap=True)
    return result


def _rank(given: argparse.Namespace) -> dict[str, Any]:
    from salt_plugin.evaluation.ranking import rank_students
    from salt_plugin.evaluation.track import accuracy_of, probe_once
    from salt_plugin.report.agreement import agreement
    from salt_plugin.report.loss_accuracy import ranking_table, sentence

    students = [student._asdict() for student in rank_students(given.runs)]
    result: dict[str, Any] = {"students": students}
    about, fit = None, None
    if given.task or given.train:
        first = RunDirectory(given.runs[0])
        config, about = _evaluation(given, first, first.student.encoder)
        for student in students:
            encoder = RunDirectory(Path(student["run"])).student.encoder
            student["accuracy"] = accuracy_of(probe_once(encoder, config))
        losses, accuracies = ([one[name] for one in students] for name in ("loss", "accuracy"))
        fit = agreement(losses, accuracies)._asdict()
        result |= about | fit
    out = console()
    out.print(ranking_table(students, about))
    if fit:
        out.print(f"Accuracy against loss: {sentence(fit)}")
    if given.out:
        make_folder(given.out)
        write_csv(given.out / "ranking.csv", list(students[0]), students)
        write_json(given.out / "ranking.json", result)
    return result


def _evaluation(
    given: argparse.Namespace, run: RunDirectory, encoder: Path
) -> tuple[ProbeConfig, dict[str, Any]]:
    """Returns how encoders are probed: on the videos asked for, seen as this encoder's card says.

    Beside it, what the result says of it: `task`, `protocol`, `clip` and `leaks`.
    """
    from salt_plugin.evaluation.leaks import find_leaks
    from salt_plugin.evaluation.lists import read_lists
    from salt_plugin.evaluation.track import demo_lists, track_config

    task = "test" if given.train else given.task or DEMO_TASKS[0]
    lists = (given.train, given.test) if given.train else demo_lists(run.stored_config(), task)
    config = track_config(encoder, lists, given.protocol, cache=given.cache)
    about = {"task": task, "protocol": given.protocol}
    return config, about | {"clip": clip_seen(config), "leaks": find_leaks(read_lists(config))}


def _draw_features(path: Path, config: ProbeConfig, kept: Mapping[int, Path]) -> None:
    """Draws the features of the first test clip by the first and the last encoder."""
    from salt_plugin.evaluation import open_encoder
    from salt_plugin.evaluation.features import first_clip
    from salt_plugin.evaluation.pictures import pca_rgb
    from salt_plugin.report.pictures import draw_pca

    colours = {}
    for step in sorted({min(kept), max(kept)}):
        encoder = open_encoder(str(kept[step]))
        frames_thwc, tokens_nd = first_clip(encoder, config)
        grid = encoder.grid(config.frames, len(tokens_nd))
        colours[f"features after step {step:,}"] = pca_rgb(tokens_nd, grid).numpy()
    draw_pca(path, frames_thwc.numpy(), colours)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt track",
        description="Probes the encoders that a run kept (method.encoders_every_n_steps) and "
        "compares their accuracy with the loss. Given several runs, ranks students of one teacher "
        "by their loss alone; with --task or --train and --test, beside their accuracy.",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run directories")
    parser.add_argument("--train", metavar="CSV", type=Path, help="labelled videos to learn from")
    parser.add_argument("--test", metavar="CSV", type=Path, help="labelled videos to score on")
    parser.add_argument(
        "--task", choices=DEMO_TASKS, help="of runs on the demo set: what to probe (direction)"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="attentive (the default): the paper's fast protocol; linear or knn: quicker",
    )
    parser.add_argument("--cache", metavar="DIR", help="folder of features; else they are not kept")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to (one run: RUN/track and RUN/figures; several: nowhere)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    return parser
