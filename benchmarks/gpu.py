"""Measures what a short time on a GPU allows, most valuable first.

    python benchmarks/gpu.py --out DIR [--minutes 9] [--wheels FOLDER] [--vjepa2 FOLDER]
    python benchmarks/gpu.py --out DIR --device cpu --tiny

Each section is a process with a time limit of its own. Its output is in `DIR/NUMBER-NAME.txt` as it
comes, and its last lines in `DIR/summary.txt` once it ends, so that a cut loses one section. With
`--tiny` every section runs at the smallest size, in about six minutes on two cores: that shows that
this script works, and measures nothing. It needs Python alone; `gpu_wheels.py` fills FOLDER.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"

# Less than this is not worth a start.
LEAST_SECONDS = 10
SUMMARY_LINES = 30
# Limits are for a GPU: with --tiny the sections share CPU cores with whatever else runs there.
TINY_SECONDS = 600

ENVIRONMENT = """
import platform, torch, torchvision, timm, lightly
print(platform.python_version(), "torch", torch.__version__, "timm", timm.__version__)
print(torch.get_num_threads(), "threads", torch.backends.cpu.get_cpu_capability())
for n in range(torch.cuda.device_count()):
    print(torch.cuda.get_device_properties(n))
"""


class Section(NamedTuple):
    """What one process measures.

    Attributes:
        name: In the file's name.
        seconds: Its limit.
        command: Its arguments, Python's own left out.
    """

    name: str
    seconds: int
    command: list[str]


def main() -> None:
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * given.minutes
    environment = _environment(given)
    failed = []
    for number, section in enumerate(_sections(given), 1):
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            _tell(given.out, f"-- {section.name}: no time left\n")
            failed.append(section.name)
            continue
        file = given.out / f"{number:02}-{section.name}.txt"
        began = time.monotonic()
        limit = TINY_SECONDS if given.tiny else section.seconds
        how = _run(section, file, min(left, limit), environment)
        lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
        said = "".join(f"   {line[:300]}\n" for line in lines[-SUMMARY_LINES:])
        _tell(given.out, f"-- {section.name}: {how}, {time.monotonic() - began:.0f} s\n{said}")
        if how != "done":
            failed.append(section.name)
    shutil.rmtree(given.out / "runs", ignore_errors=True)
    if failed:
        raise SystemExit(f"not whole: {', '.join(failed)}; see {given.out / 'summary.txt'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, for CPUs")
    parser.add_argument("--wheels", type=Path, help="what gpu_wheels.py has filled")
    parser.add_argument("--videos", help="default: files that are made for it")
    parser.add_argument("--vjepa2", type=Path, help="a checkout of facebookresearch/vjepa2")
    return parser.parse_args()


def _sections(given: argparse.Namespace) -> list[Section]:
    """Returns the sections in the order of their worth."""
    tiny, device = given.tiny, ["--device", given.device]
    base, large, huge = (_model(name, clips, tiny) for name, clips in _MODELS)
    alone = ["--no-reference"]
    # Compilation takes longest on a CPU, and one section shows that it works.
    compiled = [] if tiny else ["--compile"]
    videos = ["--videos", given.videos] if given.videos else []
    if tiny:
        size = ["--encoder", "vit_tiny", "--size", "64"]
        few = ["--clips", "8", "--turns", "1", "--workers", "0", "1", "--precision", "32"]
        loaders = ["--sources", "64", "--rounds", "1", "--workers", "1", "--seconds", "0.1"]
        checkpoint = ["--encoder", "vit_tiny", "--rounds", "1"]
    else:
        size = large[:4]
        few = ["--clips", "96"]
        loaders = ["--sources", "256", "--rounds", "1", "--workers", "1", "8", "16"]
        checkpoint = ["--encoder", "vit_large"]

    def step(*arguments: str) -> list[str]:
        return [str(BENCHMARKS / "step.py"), *device, *arguments]

    sections = [
        Section("environment", 60, ["-c", ENVIRONMENT]),
        Section("tests", 120, ["-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "gpu")]),
        Section("step-large", 60, step(*large)),
        Section("step-large-compiled", 90, step(*large, *alone, "--compile")),
        Section("step-large-teacher", 60, step(*large, "--stage", "teacher")),
        Section("profile-large", 60, step(*large, "--profile")),
        Section("step-huge", 90, step(*huge, *alone, "--activation-checkpointing", *compiled)),
        Section("step-base-compiled", 60, step(*base, *alone, *compiled)),
        Section("probe-grid", 60, [str(BENCHMARKS / "probe_grid.py"), *device, *_grid(tiny)]),
        Section("features", 90, [str(BENCHMARKS / "features.py"), *device, *size, *few, *videos]),
        Section("data", 90, [str(BENCHMARKS / "data.py"), *loaders, *videos]),
        Section("checkpoints", 60, [str(BENCHMARKS / "checkpoints.py"), *device, *checkpoint]),
        Section("matched-budget", 240, _comparison(given)),
    ]
    if given.vjepa2:
        theirs = ["--vjepa2", str(given.vjepa2)]
        sections.insert(3, Section("step-large-vjepa2", 70, step(*large, *theirs)))
    return sections


# At the paper's sizes: encoder and clips of a device.
_MODELS = (("vit_base", 24), ("vit_large", 24), ("vit_huge", 32))


def _model(encoder: str, clips: int, tiny: bool) -> list[str]:
    if tiny:
        small = ["--encoder", "vit_tiny", "--size", "64", "--batch-size", "2", "--rounds", "1"]
        # Not every CPU has instructions for bfloat16; without them this alone takes ten minutes.
        return [*small, "--predictor-depth", "2", "--dtype", "fp32"]
    predictor = ["--predictor-dim", "384", "--predictor-depth", "12", "--predictor-heads", "12"]
    return ["--encoder", encoder, "--size", "224", "--batch-size", str(clips), *predictor]


def _grid(tiny: bool) -> list[str]:
    return ["--dim", "64", "--tokens", "32", "--clips", "2"] if tiny else []


def _comparison(given: argparse.Namespace) -> list[str]:
    """SALT, V-JEPA and V-JEPA 2 at one budget on the demo."""
    out = ["--out", str(given.out / "runs" / "compare")]
    if given.tiny:
        few = ["demo_small", "--jobs", "2", "budgets=[1e11]", "seeds=[1]", "methods=[salt]"]
        few.append("probe=[{data: demo_digit, demo: {train: 200, test: 100}, protocols: [linear]}]")
    else:
        few = ["demo", "--jobs", "9", "budgets=[1.6e13]"]
    return ["-m", "salt_plugin.cli", "compare", *few, *out]


def _environment(given: argparse.Namespace) -> dict[str, str]:
    """Returns the variables of the sections, once the wheels are installed beside the results."""
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    if given.device == "cpu":
        found["SALT_GPU_TESTS"] = "cpu"
    if given.wheels:
        site = given.out.resolve() / "runs" / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        wheels = sorted(map(str, given.wheels.glob("*.whl")))
        if not wheels:
            raise SystemExit(f"--wheels {given.wheels}: no wheels there; fill it by gpu_wheels.py")
        subprocess.run([*pip, "--no-compile", "--target", str(site), *wheels], check=True)
        found["PYTHONPATH"] = f"{site}{os.pathsep}{ROOT}"
    return found


def _run(section: Section, file: Path, limit: float, environment: dict[str, str]) -> str:
    """Runs a section with all that it starts, and returns how it ended."""
    with file.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *section.command],
            cwd=file.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"cut after {limit:.0f} s"
    return "done" if status == 0 else f"failed with status {status}"


def _tell(out: Path, text: str) -> None:
    print(text, end="", flush=True)
    with (out / "summary.txt").open("a") as file:
        file.write(text)


if __name__ == "__main__":
    main()
