"""`salt data`: which files can be trained on (`check`), and these written again (`prepare`)."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from salt_plugin.errors import ConfigError
from salt_plugin.report.console import console, show_log

if TYPE_CHECKING:
    from salt_plugin.video.check import Verdict

_SHOWN = 20


def main(arguments: list[str]) -> None:
    """Checks files, or writes a collection again, as the command line says.

    Args:
        arguments: The command line after the verb.

    Raises:
        DataError: The input cannot be listed.
        ConfigError: A list would be written over the input, or OUT holds something else.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    for name in ("workers", "positions", "short_side", "timeout", "fps"):
        value = getattr(given, name, None)
        if value is not None and value <= 0 and not (name == "workers" and value == -1):
            parser.error(f"--{name.replace('_', '-')}: expected a positive number")
    given.run(given)


def _check(given: argparse.Namespace) -> None:
    outputs = [path for path in (given.clean, given.quarantine) if path is not None]
    if len({path.resolve() for path in [*outputs, Path(given.input)]}) <= len(outputs):
        raise ConfigError(
            f"--clean, --quarantine and {given.input} have to be different files: name others."
        )

    from salt_plugin.data.checking import check_videos, write_lists
    from salt_plugin.data.sources import read_inputs
    from salt_plugin.data.workers import loader_workers

    show_log()
    videos = read_inputs(given.input, "INPUT")
    # A bar on stderr, so that stdout is what was found.
    with Progress(console=console(stderr=True)) as progress:
        bar = progress.add_task("checking", total=len(videos.paths))
        verdicts = check_videos(
            videos.paths,
            reader=given.reader,
            positions=given.positions,
            seed=given.seed,
            workers=loader_workers(given.workers),
            timeout=given.timeout,
            done=lambda: progress.advance(bar),
        )
    write_lists(videos, verdicts, given.clean, given.quarantine)
    if given.json:
        bad = sum(verdict.reason is not None for verdict in verdicts)
        print(
            json.dumps(
                {
                    "files": len(verdicts),
                    "clean": len(verdicts) - bad,
                    "quarantine": bad,
                    "reader": given.reader,
                    "verdicts": [asdict(verdict) for verdict in verdicts],
                }
            )
        )
    else:
        _print(verdicts, given.input, given.short_side)


def _prepare(given: argparse.Namespace) -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ConfigError("the manifest needs pyarrow: pip install 'salt-plugin[parquet]'")

    from salt_plugin.data.preparing import Preparation
    from salt_plugin.data.sources import read_inputs
    from salt_plugin.data.workers import loader_workers
    from salt_plugin.video.conversion import Conversion

    show_log()
    how = Conversion(given.store, given.short_side, given.fps)
    work = Preparation(
        read_inputs(given.input, "INPUT"),
        given.out,
        how,
        given.shards,
        loader_workers(given.workers),
        given.timeout,
    )
    with Progress(console=console(stderr=True)) as progress:
        bar = progress.add_task("preparing", total=len(work.videos.paths))
        clips = work.run(lambda done: progress.update(bar, completed=done))
    good = [clip for clip in clips if clip["reason"] is None]
    frames, size = (sum(clip[name] for clip in good) for name in ("frames", "bytes"))
    print(f"{len(good):,} of {len(clips):,} videos, {frames:,} frames, {size / 1e6:,.1f} MB")
    _list("left out", [f"{c['source']}: {c['reason']}" for c in clips if c["reason"] is not None])
    print(f"to train: lightly-ssl-train method=salt input_dir={given.out}")


def _bytes(text: str) -> int:
    units = {"K": 10**3, "M": 10**6, "G": 10**9}
    number = text.upper().removesuffix("B")
    size = float(number.rstrip("KMG")) * units.get(number[-1:], 1)
    if not 0 < size < 2**60:
        raise ValueError
    return int(size)


_bytes.__name__ = "size such as 500MB or 3GB"  # argparse says it of others


def _print(verdicts: list[Verdict], given: str, short_side: int) -> None:
    from salt_plugin.video.check import can_be_mended
    from salt_plugin.video.mending import mending_line

    good = [verdict for verdict in verdicts if verdict.reason is None]
    kinds = Counter((v.codec, v.container, v.gop) for v in verdicts if v.codec is not None)
    for (codec, container, gop), count in kinds.most_common():
        print(f"{count:8,} {codec} in {container}, GOP {gop}")
    rates = sorted({round(v.fps, 3) for v in good if v.fps})
    if rates:
        seconds = sum(v.seconds or 0 for v in good)
        print(f"{rates[0]:g} to {rates[-1]:g} frames/s, {seconds / 3600:.2f} hours in good files")
    print(f"{len(good):,} of {len(verdicts):,} files can be trained on")
    _list("not readable", [f"{v.path}: {v.reason}" for v in verdicts if v.reason is not None])
    _list("copies", [f"{v.path}: as {v.copy_of}" for v in good if v.copy_of])
    cut = [(v, v.damage or f"states {v.seconds:.1f} s") for v in good if v.cut]
    _list("cut short", [f"{v.path}: {how}" for v, how in cut])
    _list("decoded from the start for each clip", [v.path for v in good if v.slow])
    _list("not for decord", [f"{v.path}: {v.danger}" for v in good if v.danger])
    mendable = [v for v in verdicts if can_be_mended(v)]
    _list(
        "to mend (closed-GOP H.264)",
        [mending_line(v.path, short_side, v.stream or 0) for v in mendable],
    )
    if mendable:
        print(f"all files at once: salt data prepare {given} OUT --short-side {short_side}")


def _list(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{title}: {len(lines):,}")
        print("\n".join(f"  {line}" for line in lines[:_SHOWN]))
        if len(lines) > _SHOWN:
            print(f"  and {len(lines) - _SHOWN:,} more: --json lists all")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="salt data", description="Videos before training.")
    verbs = parser.add_subparsers(metavar="check|prepare", required=True)
    check = verbs.add_parser(
        "check",
        help="decode every file and compare with random access",
        description="Decodes every file from the start and at random positions, each in a process "
        "of its own, and tells which can be trained on. Damaged files cannot be mended: get them "
        "again.",
    )
    check.set_defaults(run=_check)
    check.add_argument("input", metavar="INPUT", help="a folder, a list, a shard or a video")
    check.add_argument("--clean", type=Path, metavar="CSV", help="write the good files here")
    check.add_argument("--quarantine", type=Path, metavar="CSV", help="write path,reason here")
    check.add_argument(
        "--reader", choices=["pyav", "auto", "decord"], default="pyav", help="that will read them"
    )
    check.add_argument("--workers", type=int, default=-1, help="processes (one for each core)")
    check.add_argument("--positions", type=int, default=8, help="frames to compare in a file (8)")
    check.add_argument("--seed", type=int, default=0, help="of the positions (0)")
    check.add_argument("--timeout", type=float, default=600, help="seconds without progress (600)")
    check.add_argument(
        "--short-side", type=int, default=256, metavar="PX", help="of mended files (256)"
    )
    check.add_argument("--json", action="store_true", help="one line of JSON instead of text")
    prepare = verbs.add_parser(
        "prepare",
        help="write a collection again, small and quick to read",
        description="Writes every video again as closed-GOP H.264 or as JPEG frames, with a "
        "manifest. The same command goes on where it was stopped. OUT is then an input_dir.",
    )
    prepare.set_defaults(run=_prepare)
    prepare.add_argument("input", metavar="INPUT", help="a folder, a list, a shard or a video")
    prepare.add_argument("out", metavar="OUT", type=Path, help="a new folder, or an unfinished one")
    prepare.add_argument(
        "--short-side", type=int, default=256, metavar="PX", help="of larger frames (256)"
    )
    prepare.add_argument("--fps", type=float, metavar="N", help="frames a second (all there are)")
    prepare.add_argument(
        "--store", choices=["videos", "frames"], default="videos", help="H.264, or JPEG frames"
    )
    prepare.add_argument(
        "--shards",
        type=_bytes,
        metavar="SIZE",
        help="tar files of this size, as 1GB (single files)",
    )
    prepare.add_argument("--workers", type=int, default=-1, help="processes (one for each core)")
    prepare.add_argument(
        "--timeout", type=float, default=600, help="seconds without progress (600)"
    )
    return parser
