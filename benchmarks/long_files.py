"""What a clip of a file of hours costs, against one of a file of seconds, at the second visit.

    python benchmarks/long_files.py [--hours 3] [--places 50]

Makes 10 s of 1280x720 H.264 and repeats its packets for hours, as MP4 and as MKV (3 GB each for
three hours) in a temporary folder. Each file is visited by a process that finds its facts, and then
in turns by fresh ones that find them in the cache (docs/benchmarks/data.md).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av
from made_videos import textures

SIZE, FPS, SECONDS = (720, 1280), 30, 10
ROUNDS = 3

VISIT = """
import sys, time, numpy as np
from salt_plugin.data import ClipSampler, open_video
path, places = sys.argv[1], int(sys.argv[2])
sampler, rng = ClipSampler(16, step=4), np.random.default_rng(0)
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(places):
    video = open_video(path)
    video.frames(sampler.indices(video.times, rng))
print((time.perf_counter() - wall) / places, (time.process_time() - cpu) / places)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--places", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _made(folder / "source.mp4")
        for suffix in ("mp4", "mkv"):
            short = _repeated(source, folder / f"short.{suffix}", 1)
            times = round(arguments.hours * 3600 / SECONDS)
            _compare(short, _repeated(source, folder / f"long.{suffix}", times), arguments, folder)


def _compare(short: Path, long: Path, arguments: argparse.Namespace, folder: Path) -> None:
    seconds: dict[Path, list[tuple[float, float]]] = {short: [], long: []}
    first = {path: _visit(path, 1, folder)[0] for path in seconds}
    for _ in range(ROUNDS):
        for path, found in seconds.items():
            found.append(_visit(path, arguments.places, folder))
    wall, cpu = (
        {path: statistics.median(pair[kind] for pair in found) for path, found in seconds.items()}
        for kind in (0, 1)
    )
    for path in seconds:
        print(
            f"{path.name:<10} {wall[path] * 1000:6.0f} ms a clip, {cpu[path] * 1000:6.0f} ms of "
            f"CPU; the first one {first[path]:.1f} s"
        )
    print(f"ratio {wall[long] / wall[short]:.2f}, of CPU time {cpu[long] / cpu[short]:.2f}")


def _visit(path: Path, places: int, folder: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", VISIT, str(path), str(places)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, cpu = run.stdout.split()
    return float(wall), float(cpu)


def _made(path: Path) -> Path:
    options = {"g": str(FPS), "bf": "2", "flags": "+cgop", "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in textures(SIZE, FPS * SECONDS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def _repeated(source: Path, path: Path, times: int) -> Path:
    """Writes the packets of a file over and over, each time later."""
    with av.open(str(source)) as made, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(made.streams.video[0])
        packets = [packet for packet in made.demux(video=0) if packet.size]
        span = sum(packet.duration for packet in packets)
        for number in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + number * span, packet.dts + number * span
                copy.duration, copy.time_base = packet.duration, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                container.mux(copy)
    return path


if __name__ == "__main__":
    main()
