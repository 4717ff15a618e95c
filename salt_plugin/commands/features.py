"""`salt features`: features of sliding windows over videos by a frozen encoder."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from salt_plugin.errors import ConfigError, DataError

_SHOWN = 5

# Seconds that reading through the first video may take once all else is there.
_PATIENCE = 600.0


def main(arguments: list[str]) -> None:
    """Writes features, and prints what was written.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: An encoder, a file or a value cannot work, or some videos cannot be read; the
            features of all others are written.
    """
    given = _parser().parse_args(arguments)
    if given.devices and given.devices > 1 and "RANK" not in os.environ:
        _start(arguments, given.devices)
        return
    ahead = _read_ahead(given.input[0])

    from salt_plugin.features.embedding import FeatureSettings, list_videos, open_extraction
    from salt_plugin.features.extract import extract
    from salt_plugin.features.feature_files import require_format
    from salt_plugin.report.accuracies import Bars
    from salt_plugin.report.console import show_log

    require_format(given.out)
    rank, size, device = 0, 1, given.device
    if "RANK" in os.environ or "SLURM_PROCID" in os.environ:
        from salt_plugin.training.world import started_tasks  # seconds, on a slow machine

        if tasks := started_tasks():
            rank, size = tasks.rank, tasks.size
            device = device or _device(tasks.local_rank, given.devices)
    if rank == 0:
        show_log()
    settings = FeatureSettings(
        window=given.window,
        stride=given.stride,
        pool=given.pool,
        layers=given.layers,
        frames=given.frames,
        size=given.size,
        precision=given.precision,
        batch_size=given.batch_size,
        workers=given.workers,
    )
    paths = list_videos(given.input)
    made = open_extraction(given.encoder, paths, settings, device)
    if ahead is not None:
        try:
            ahead.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            ahead.kill()
    with Bars() if rank == 0 else nullcontext() as bars:
        done = extract(made, given.out, rank, size, *([bars] if bars else []))
    if done is None:
        print(f"{given.out}: process {rank} of {size} has done its part; others have not yet")
        return
    already = "" if done.new else ", which were there already"
    print(
        f"{done.out}: {done.rows:,} windows of {len(paths):,} files, features {done.shape}{already}"
    )
    if done.errors:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in done.errors[:_SHOWN])
        raise DataError(
            f"{done.out} lacks windows of {len(done.errors)} files that cannot be read, or not to "
            f"their end; the first:\n{listed}\n`salt data check` tells more of each. To try again "
            "once they are mended, remove it"
        )


def _read_ahead(path: str) -> subprocess.Popen[bytes] | None:
    """Has a video read through beside imports and the encoder, which take as long.

    A process, which leaves the facts in the user's cache: a thread would wait for imports at every
    packet. What is wrong with the file is said where it is opened.
    """
    if not os.path.isfile(path):
        return None
    command = [sys.executable, "-P", "-m", "salt_plugin.video.fact_cache", path]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _device(local_rank: int, devices: int | None) -> str:
    import torch

    visible = torch.cuda.device_count()
    if devices and 0 < visible < devices:
        raise ConfigError(f"--devices {devices}: torch sees {visible} GPUs on this machine")
    return f"cuda:{local_rank % visible}" if visible else "cpu"


def _start(arguments: list[str], count: int) -> None:
    """Runs the same command in a process a device, as torchrun would, and waits for all of them."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    command = [sys.executable, "-m", "salt_plugin.cli", "features", *arguments]
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    common = {"OMP_NUM_THREADS": threads} | os.environ
    common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=own))
        status = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
    if failed := next((one for one in status if one), 0):
        raise SystemExit(failed if failed > 0 else 128 - failed)


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt features",
        description="Writes the features of sliding windows over videos, a row a window with the "
        "path, and the start and the end in seconds. The same command goes on after an "
        "interruption. Processes of torchrun or Slurm, and those of --devices, share the work.",
    )
    parser.add_argument(
        "encoder",
        metavar="ENCODER",
        help="a run directory, an encoder file, V-JEPA 2 weights in either public layout, "
        "timm:NAME[:FILE], random:SIZE, or random:PATH for an encoder before training",
    )
    parser.add_argument(
        "input", metavar="INPUT", nargs="+", help="a video, an image, a folder or a list of them"
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        required=True,
        help="a file ending in .npz or .parquet, or a folder of .npz parts",
    )
    length = "in frames (64) or seconds (2.5s)"
    parser.add_argument(
        "--window",
        metavar="LENGTH",
        help=f"of a window, {length}; by default the span of a clip of the encoder's training",
    )
    parser.add_argument(
        "--stride",
        metavar="LENGTH",
        help=f"from a window to the next, {length}; by default the length of a window",
    )
    parser.add_argument(
        "--pool",
        metavar="HOW",
        default="mean",
        help="mean over tokens, or [cls] where the encoder has one (the default); none: all "
        "tokens; attentive:FILE: what the attentive probe in FILE makes of them",
    )
    parser.add_argument(
        "--layers",
        metavar="N,...",
        type=_layers,
        help="layers to take, from 0, or from the last as -1 (write --layers=-1)",
    )
    parser.add_argument(
        "--frames", type=_count, help="of a clip, unless as the encoder's card says"
    )
    parser.add_argument("--size", type=_count, help="of a clip in pixels, unless as the card says")
    parser.add_argument("--precision", choices=["auto", "bf16", "32"], default="auto")
    parser.add_argument(
        "--batch-size", type=_count, help="clips at once; by default 16 on a GPU, 1 on a CPU"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that read videos; by default each core beside a GPU (-1), 0 on a CPU",
    )
    parser.add_argument("--device", help="such as cuda:1; by default a GPU where there is one")
    parser.add_argument(
        "--devices", type=_count, metavar="N", help="processes, each on a device of its own"
    )
    return parser
