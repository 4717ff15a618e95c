"""`salt features` on one long video: peak memory, time to the first row, windows a second.

    python benchmarks/features_long.py [--minutes 60] [--encoder vit_small] [--stride 64] [--json]

The video is 1280 x 720 H.264 at 30 frames a second, half a minute of a drifting texture that
repeats. The command runs in a process of its own, as a user starts it, and so do its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from made_videos import textures

FPS, WIDTH, HEIGHT, LOOP = 30, 1280, 720, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--encoder", default="vit_small")
    parser.add_argument("--stride", default="64", help="as of salt features")
    parser.add_argument("--precision", choices=["bf16", "32"], default="bf16")
    parser.add_argument(
        "--limit", type=float, default=7200, help="seconds, after which it is ended"
    )
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(Path(folder) / "long.mp4", given.minutes)
        size = video.stat().st_size
        print(f"{given.minutes:g} minutes of video, {size / 2**20:.0f} MiB", flush=True)
        result = _measure(given, video, Path(folder) / "features.npz")
    for name, value in result.items():
        print(f"{name:<18} {value:9.2f}")
    if given.json:
        print(json.dumps(result))


def make_video(path: Path, minutes: float) -> Path:
    """Encodes half a minute, and writes its packets again and again."""
    options = {"g": "250", "bf": "2", "flags": "+cgop", "preset": "ultrafast", "crf": "28"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        packets = [
            packet
            for frame in textures((HEIGHT, WIDTH), FPS * LOOP)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        ]
        packets += stream.encode()
        tick = packets[0].time_base
        loop = round(LOOP / tick)
        loops = [(p.pts, p.dts, p.is_keyframe, bytes(p)) for p in packets]
        for number in range(max(1, round(60 * minutes / LOOP))):
            for pts, dts, key, data in loops:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, tick
                packet.pts, packet.dts = pts + number * loop, dts + number * loop
                packet.is_keyframe = key
                container.mux(packet)
    return path


def _measure(given: argparse.Namespace, video: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "salt_plugin.cli", "features", f"random:{given.encoder}"]
    options = ["--stride", given.stride, "--precision", given.precision, "--out", str(out)]
    # The scan of the file counts: it is in no cache.
    own = {**os.environ, "XDG_CACHE_HOME": str(out.parent / "cache")}
    began = time.monotonic()
    process = subprocess.Popen([*command, str(video), *options], env=own)
    first, peak, rows = 0.0, 0, 0
    parts = out.with_name(out.name + ".parts")
    try:
        while process.poll() is None and time.monotonic() - began < given.limit:
            if not first and any(parts.glob("*.npz")):
                first = time.monotonic() - began
            peak = max(peak, _peak_kib(process.pid))
            time.sleep(0.05)
        seconds = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    for file in [out] if out.exists() else parts.glob("*.npz"):
        with np.load(file) as arrays:
            rows += len(arrays["start"])
    return {
        "first_row_seconds": first,
        "peak_mib": peak / 2**10,
        "windows": rows,
        "seconds": seconds,
        "windows_per_second": rows / (seconds - first),
    }


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line), 0)


if __name__ == "__main__":
    main()
