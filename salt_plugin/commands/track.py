"""`salt track`: what the encoders of a run are worth as its loss falls; students by their loss."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.progress import track as with_bar
from rich.table import Table

from salt_plugin.commands.folder import make_folder
from salt_plugin.config.probe import PROTOCOLS
from salt_plugin.files import write_json, write_text
from salt_plugin.report.console import console, show_log
from salt_plugin.run_directory import RunDirectory

if TYPE_CHECKING:
    from salt_plugin.evaluation.score import ProbeScore

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
    with TemporaryDirectory(prefix="salt-track-") as temporary:
        act = _track if len(given.runs) == 1 else _rank
        result = act(given, Path(temporary))
    if given.json:
        print(json.dumps(result))


def _track(given: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    from salt_plugin.evaluation.device import chosen_device
    from salt_plugin.evaluation.track import kept_encoders, track
    from salt_plugin.report.agreement import agreement
    from salt_plugin.report.track import draw_track, sentence, track_table

    (root,) = given.runs
    run = RunDirectory(root)
    kept = kept_encoders(run)
    score = _score(given, run, kept[min(kept)], temporary)
    task = _task(given)
    folder, figures = (given.out, given.out) if given.out else (root / "track", run.figures)
    make_folder(folder)

    measured = track(kept, score, score.features, chosen_device())
    points = [point._asdict() for point in _progress(measured, "encoders", len(kept))]
    fit = agreement([p["loss"] for p in points], [p["accuracy"] for p in points])._asdict()
    stage = run.result.root.name
    about: dict[str, Any] = {"run": str(root), "stage": stage, "task": task}
    about |= {"protocol": given.protocol, "clip": score.clip, "leaks": score.leaks}
    result = {**about, **fit, "points": points}
    write_text(folder / "track.csv", _as_csv(points))
    write_json(folder / "track.json", result)
    draw_track(figures / "track.png", points, fit, task)
    _draw_features(figures / "track_pca.png", score, kept)

    out = console()
    out.print(_with_caption(track_table(points, task), score))
    out.print(f"Accuracy against loss: {sentence(fit)}")
    written = [folder / "track.csv", folder / "track.json"]
    for path in [*written, figures / "track.png", figures / "track_pca.png"]:
        out.print(str(path), soft_wrap=True)
    return result


def _rank(given: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    from salt_plugin.evaluation.device import chosen_device
    from salt_plugin.evaluation.ranking import check_comparable, rank_students
    from salt_plugin.report.agreement import agreement
    from salt_plugin.report.track import ranking_table, sentence

    check_comparable(given.runs)
    asked = bool(given.task or given.train)
    first = RunDirectory(given.runs[0])
    score = _score(given, first, first.student.encoder, temporary) if asked else None
    students = [student._asdict() for student in rank_students(given.runs, score, chosen_device())]
    out = console()
    table = ranking_table(students, _task(given))
    out.print(_with_caption(table, score) if score else table)
    result: dict[str, Any] = {"students": students}
    if score:
        losses, accuracies = ([one[name] for one in students] for name in ("loss", "accuracy"))
        fit = agreement(losses, accuracies)._asdict()
        out.print(f"Accuracy against loss: {sentence(fit)}")
        result |= {"task": _task(given), "protocol": given.protocol, **fit}
        result |= {"clip": score.clip, "leaks": score.leaks}
    if given.out:
        make_folder(given.out)
        write_text(given.out / "ranking.csv", _as_csv(students))
        write_json(given.out / "ranking.json", result)
    return result


def _score(
    given: argparse.Namespace, run: RunDirectory, encoder: Path, temporary: Path
) -> ProbeScore:
    """Returns the score on the videos asked for, seen as the encoder's card says."""
    from salt_plugin.checkpoints import read_input
    from salt_plugin.evaluation.score import ProbeScore, demo_lists

    if given.train:
        lists = given.train, given.test
    else:
        lists = demo_lists(run.stored_config(), _task(given))
    keep = given.cache is not None
    cache = given.cache if keep else temporary
    return ProbeScore(*lists, read_input(encoder), cache, given.protocol, keep)


def _with_caption(table: Table, score: ProbeScore) -> Table:
    from salt_plugin.report.probe import caption

    table.caption, table.caption_justify = caption(score.clip, score.leaks), "left"
    return table


def _draw_features(path: Path, score: ProbeScore, kept: Mapping[int, Path]) -> None:
    from salt_plugin.checkpoints import load_encoder
    from salt_plugin.evaluation.pictures import pca_of_clip
    from salt_plugin.report.pictures import draw_pca

    clip, frames = score.first_clip()
    colours = {
        f"features after step {step:,}": pca_of_clip(load_encoder(kept[step]), clip).numpy()
        for step in sorted({min(kept), max(kept)})
    }
    draw_pca(path, frames.permute(1, 2, 3, 0).numpy(), colours)


def _task(given: argparse.Namespace) -> str:
    return "test" if given.train else given.task or DEMO_TASKS[0]


def _progress(items: Iterable[Any], title: str, total: int) -> Iterable[Any]:
    return with_bar(items, title, total, console=console(stderr=True), transient=True)


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


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
        "--task",
        choices=DEMO_TASKS,
        help="for runs on the demo set: what to probe (one run: direction)",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="attentive (the default): the paper's fast protocol; linear or knn: quicker",
    )
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, help="folder of features; else they are not kept"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to (one run: RUN/track and RUN/figures; several: nowhere)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    return parser
