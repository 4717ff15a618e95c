"""Fills a folder with the wheels that a GPU machine without network lacks.

    python benchmarks/gpu_wheels.py FOLDER --python 3.12 --installed FILE

FILE is what `pip freeze` prints there. What only installed packages need is taken as being there.
Needs uv (`pip install uv`), which resolves for the other Python, and pip.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Of the sections of gpu.py beyond what the package needs; einops is V-JEPA 2's.
ALSO = ("pytest", "transformers", "einops")
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")
_LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+)(?:.*?# via (?P<via>.*))?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", required=True, help="version there, e.g. 3.12")
    parser.add_argument(
        "--installed", type=Path, required=True, help="what pip freeze prints there"
    )
    given = parser.parse_args()
    rows = [line.strip() for line in given.installed.read_text().splitlines()]
    installed = dict(row.split("==") for row in rows if re.fullmatch(r"[\w.-]+==[^\s;]+", row))
    missing = lacking(resolved(given.python, installed), set(map(_plain, installed)))
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, version in missing.items():
        _bring(f"{name}=={version}", given.python, given.folder)
    size = sum(file.stat().st_size for file in given.folder.iterdir())
    print(f"{len(missing)} wheels, {size >> 20} MiB in {given.folder}")


def resolved(python: str, installed: dict[str, str]) -> dict[str, tuple[str, set[str]]]:
    """Returns version and dependents of all that the sections need, by their names.

    What is installed there keeps its version.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, fixed = Path(folder, "wanted.in"), Path(folder, "fixed.txt")
        wanted.write_text("\n".join([f"salt-plugin @ {ROOT.as_uri()}", *ALSO]))
        # A local version, as +cu130, is not what the index calls it.
        fixed.write_text("\n".join(f"{n}=={v.split('+')[0]}" for n, v in installed.items()))
        uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"]
        uv += ["--annotation-style", "line", "--python-version", python]
        uv += ["--python-platform", "x86_64-manylinux_2_28", "--constraints", str(fixed)]
        done = subprocess.run([*uv, str(wanted)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv cannot resolve for Python {python}: {done.stderr.strip()}")
    found = {}
    for line in done.stdout.splitlines():
        if match := _LINE.match(line):
            parents = {_plain(one.split()[0]) for one in (match["via"] or "").split(",") if one}
            found[_plain(match["name"])] = match["version"], parents
    return found


def lacking(found: dict[str, tuple[str, set[str]]], installed: set[str]) -> dict[str, str]:
    """Returns versions of what is not installed, but for what only installed packages need."""
    needed = {name for name, (_, parents) in found.items() if "-r" in parents}
    roots = {"salt-plugin", "-r"}
    while True:
        more = {
            name
            for name, (_, parents) in found.items()
            if name not in installed and parents & (roots | needed)
        }
        if more <= needed:
            return {name: found[name][0] for name in sorted(needed - installed)}
        needed |= more


def _bring(requirement: str, python: str, folder: Path) -> None:
    """Downloads a wheel, or makes one of a package that has none."""
    pip = [sys.executable, "-m", "pip"]
    platforms = [f"--platform=manylinux_{one}_x86_64" for one in GLIBC]
    platforms += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
    wheel = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    download = [*pip, "download", "--quiet", "--no-deps", *wheel, *platforms, "--dest", str(folder)]
    if subprocess.run([*download, requirement], capture_output=True, check=False).returncode == 0:
        return
    made = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), requirement]
    subprocess.run(made, check=True)
    name = _plain(requirement.partition("==")[0]).replace("-", "_")
    if not any(folder.glob(f"{name}-*-none-any.whl")):
        print(f"warning: the wheel of {requirement} is of this machine alone", file=sys.stderr)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
