"""Installs the package afresh, by Python and resolution, tests it there, and prints a table.

Usage: python tests/versions/matrix.py [3.13 | 3.11-lowest ...], all of `ROWS` by default; the table
in docs/versions.md is written anew then. Needs uv beside this Python. One environment at a time is
made, in build/versions, and deleted after its tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "versions.md"
ROWS = ("3.11", "3.12", "3.13", "3.11-lowest")
PACKAGES = (
    "torch",
    "torchvision",
    "av",
    "decord",
    "numpy",
    "timm",
    "lightly",
    "pytorch_lightning",
    "hydra-core",
)
UV = Path(sys.executable).with_name("uv")
FACTS = f"""
import importlib.metadata, json, platform
found = [platform.python_version()]
for name in {PACKAGES}:
    try:
        found.append(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        found.append("none")
try:
    import decord
except Exception as error:
    found[1 + {PACKAGES}.index("decord")] += " (does not import)"
print(json.dumps(found))
"""


def main(names: list[str]) -> int:
    """Returns 0 if all rows passed."""
    if unknown := set(names) - set(ROWS):
        print(f"VERSIONS={' '.join(unknown)}: expected some of {' '.join(ROWS)}", file=sys.stderr)
        return 2
    lines = [
        f"| Python | resolution | {' | '.join(PACKAGES)} | result |",
        "|---" * (len(PACKAGES) + 3) + "|",
    ]
    failed = False
    for name in names or ROWS:
        version, _, lowest = name.partition("-")
        print(f"== Python {version}, {'lowest' if lowest else 'newest'} releases", flush=True)
        facts, result = _row(version, bool(lowest))
        failed |= result.startswith("**")
        cells = [facts[0], "lowest" if lowest else "newest", *facts[1:], result]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if not names:
        above, found, _ = PAGE.read_text().partition("| Python |")
        PAGE.write_text(above + table if found else above)
    return int(failed)


def _row(version: str, lowest: bool) -> tuple[list[str], str]:
    """Returns versions of Python and of the packages, and what came of the tests."""
    untold = [version, *("" for _ in PACKAGES)]
    interpreter = _interpreter(version)
    if interpreter is None:
        return untold, "**no such Python here**"
    env = ROOT / "build" / "versions"
    shutil.rmtree(env, ignore_errors=True)
    try:
        _call(UV, "venv", "--quiet", "--python", interpreter, env)
        resolution = "lowest-direct" if lowest else "highest"
        install = (UV, "pip", "install", "--quiet", "--python", env / "bin" / "python")
        _call(*install, "--resolution", resolution, ROOT, "pytest>=8")
        facts = json.loads(_call(env / "bin" / "python", "-c", FACTS).splitlines()[-1])
        return facts, _tested(env)
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, sep="\n", flush=True)
        return untold, "**cannot be installed**"
    finally:
        shutil.rmtree(env, ignore_errors=True)


def _tested(env: Path) -> str:
    """Runs the tests from a folder outside the checkout, which has to add nothing."""
    suite = [ROOT / "tests" / "versions", "-m", "", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": "", "XDG_CACHE_HOME": str(env / "cache")}
    done = subprocess.run(
        [env / "bin" / "pytest", "-q", *suite],
        cwd=env,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    last = (done.stdout.splitlines() or [""])[-1].partition(" in ")[0]
    last = re.sub(r", \d+ warnings?", "", last)
    return last if done.returncode == 0 else f"**{last or 'killed'}**"


def _interpreter(version: str) -> Path | None:
    """Returns a Python, pyenv's first: uv looks for it only where its shims stand."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    if found := list((pyenv / "versions").glob(f"{version}.*/bin/python")):
        return max(found, key=lambda path: int(path.parts[-3].split(".")[2]))
    command = [UV, "python", "find", "--no-python-downloads", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _call(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
