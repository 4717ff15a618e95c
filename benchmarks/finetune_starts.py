"""Fine-tunes from a run's student, from its teacher and from random weights of the same shape.

    python benchmarks/finetune_starts.py --run RUN --data GRID_MOUTH --task digit --out DIR \
        [--epochs 50] [OVERRIDE ...]

Each start gets the same trials, on a seed of their own; the best accuracy on the validation list
chooses, and the choice is tested once with each of the seeds. Interrupted, it goes on where it
stopped. Differences are paired by test video and averaged over the seeds; their intervals draw
whole groups (`accuracy_interval`). Further arguments are Hydra overrides of every run.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor

from salt_plugin.evaluation.results import accuracy_interval

# (optimizer.lr, method.layer_decay): the recipe's own decay, and none, which suits random weights.
TRIALS = ((1e-3, 0.75), (1e-3, 1.0))
TRIAL_SEED = 100
SEEDS = (1, 2, 3)
STARTS = ("random", "teacher", "student")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run of method=salt")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="digit")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--out", type=Path, required=True)
    given, overrides = parser.parse_known_args()
    chosen, right = {}, {}
    for start in given.starts:
        scores = {}
        for trial in TRIALS:
            found = finetune(given, overrides, start, trial, TRIAL_SEED, test=False)
            scores[trial] = found["val"]["best"]["accuracy"]
            print(f"{start}, rate and decay {trial}: validation {scores[trial]:.3f}", flush=True)
        chosen[start] = max(scores, key=lambda trial: scores[trial])
        for seed in SEEDS:
            finetune(given, overrides, start, chosen[start], seed, test=True)
        right[start] = torch.stack([of_seed(given, start, chosen[start], s) for s in SEEDS])
    report(given, chosen, right)


def finetune(
    given: argparse.Namespace,
    overrides: list[str],
    start: str,
    trial: tuple[float, float],
    seed: int,
    test: bool,
) -> dict:
    """Returns what the run's `accuracy.json` holds, after training unless it is there."""
    out = folder(given, start, trial, seed)
    file = out / "student" / "accuracy.json"
    if not file.is_file():
        lr, decay = trial
        lists = given.data / given.task
        command = [
            *("method=finetune", *shape(given.run, start), f"input_dir={lists}_train.csv"),
            *(f"method.val={lists}_val.csv", f"optimizer.lr={lr}", f"method.layer_decay={decay}"),
            *(f"trainer.max_epochs={given.epochs}", f"seed={seed}", f"hydra.run.dir={out}"),
            *("method.pool=time", "method.data.cache=true", "loader.num_workers=0"),
            *([f"method.test={lists}_test.csv"] if test else []),
            *overrides,
        ]
        subprocess.run([sys.executable, "-m", "salt_plugin.cli", "train", *command], check=True)
    return json.loads(file.read_text())


def shape(run: Path, start: str) -> list[str]:
    """Returns the overrides by which every start has the run's shape, clips and crops."""
    held = yaml.safe_load((run / "config.yaml").read_text())
    method = held["method"]
    scale = [f"method.transform.scale={method['transform']['scale']}"]
    if start != "random":
        return [f"checkpoint={run / 'teacher' if start == 'teacher' else run}", *scale]
    model = {key: method["model"][key] for key in ("patch_size", "tubelet_size", "init_std")}
    clip = {key: method["clip"][key] for key in ("frames", "size", "step")}
    named = [f"method.model.{key}={value}" for key, value in model.items()]
    named += [f"method.clip.{key}={value}" for key, value in clip.items()]
    return ["checkpoint=null", f"method.encoder={method['encoder']}", *named, *scale]


def folder(given: argparse.Namespace, start: str, trial: tuple[float, float], seed: int) -> Path:
    lr, decay = trial
    return given.out / f"{given.task}-{start}-lr{lr:g}-decay{decay:g}-seed{seed}"


def of_seed(given: argparse.Namespace, start: str, trial: tuple[float, float], seed: int) -> Tensor:
    """Returns whether each test video was right, float64 [n]."""
    rows = tested(given, start, trial, seed)
    return torch.tensor([row["label"] == row["predicted"] for row in rows]).double()


def tested(
    given: argparse.Namespace, start: str, trial: tuple[float, float], seed: int
) -> list[dict[str, str]]:
    file = folder(given, start, trial, seed) / "student" / "test.csv"
    return list(csv.DictReader(file.open()))


def report(given: argparse.Namespace, chosen: dict, right: dict[str, Tensor]) -> None:
    """Prints the accuracy of each start, and how the starts differ."""
    lines = (given.data / f"{given.task}_test_groups.csv").read_text().splitlines()
    group_of = {Path(path).name: group for path, group in map(str.split, lines)}
    start = given.starts[0]
    rows = tested(given, start, chosen[start], SEEDS[0])
    names = [group_of[Path(row["path"]).name] for row in rows]
    groups = torch.tensor([sorted(set(names)).index(name) for name in names])
    print(f"{'start':20} rate, decay    {'  '.join(f'seed {seed}' for seed in SEEDS)}   mean")
    for start, right_sn in right.items():
        seeds = "   ".join(f"{value:.3f}" for value in right_sn.mean(1).tolist())
        print(f"{start:20} {chosen[start]!s:14} {seeds}   {right_sn.mean():.3f}")
    for one, other in itertools.combinations(right, 2):
        difference_n = (right[other] - right[one]).mean(0)
        low, high = accuracy_interval(difference_n, groups)
        said = f"{difference_n.mean():+.3f}, 95 %: {low:+.3f} to {high:+.3f}"
        print(f"{f'{other} - {one}':20} {said}")


if __name__ == "__main__":
    main()
