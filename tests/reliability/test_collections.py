"""Collections as clusters have them, in two processes that are killed; probed, and their features.

They are made of a few real videos: prepared in each way, frames in folders, images, and a server.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import outcome
import pytest
from attempts import train, train_through
from deaths import Death
from served import serving
from small_run import TINY

from salt_plugin.cli import _main as salt
from salt_plugin.data import read_inputs

pytestmark = pytest.mark.slow

BASE = [
    "method=pixel_teacher",
    *TINY,
    "loader.num_workers=1",
    "method.checkpoint.every_n_steps=2",
    "trainer.max_steps=12",
    "trainer.gpus=0",
]
# One process in the middle of a step; then the first one in the middle of a checkpoint.
DEATHS = [
    Death("teacher", 6, "step", 0.0, 1, signal.SIGKILL, None),
    Death("teacher", 9, "checkpoint", 0.5, 0, signal.SIGKILL, None),
]
PREPARED = {
    "videos": ["--store=videos"],
    "videos-shards": ["--store=videos", "--shards=8KB"],
    "frames": ["--store=frames"],
    "frames-shards": ["--store=frames", "--shards=60KB"],
}
KINDS = ("videos", "videos-shards", "frames-shards", "folders", "images", "server")
OFTEN = ("videos", "frames-shards", "server")  # the others before a release


class Given(NamedTuple):
    """What is trained on: overrides, and the labelled input among them."""

    overrides: list[str]
    labelled: str


@pytest.fixture(scope="module")
def outs(shared_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two MPEG-4 videos of each of three classes, prepared in each way."""
    # One server of processes for all: with what training needs, which takes seconds to load.
    get_context("forkserver").set_forkserver_preload(["salt_plugin.train", "attempts"])
    forkserver.ensure_running()
    root = tmp_path_factory.mktemp("collections")
    source = shared_videos / "ut_interaction"
    rows = (source / "train.csv").read_text().splitlines()
    chosen = [[row for row in rows if row.endswith(f" {label}")][:2] for label in range(3)]
    (root / "list.csv").write_text("".join(f"{source / row}\n" for two in chosen for row in two))
    how = ["--short-side=40", "--fps=5", "--workers=2"]
    for name, options in PREPARED.items():
        salt(["data", "prepare", str(root / "list.csv"), str(root / name), *how, *options])
    return {name: root / name for name in PREPARED}


@pytest.fixture(scope="module")
def collections(
    outs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Given]]:
    for name in ("videos-shards", "frames-shards"):
        assert len(list((outs[name] / "shards").glob("*.tar"))) > 1
    root = outs["videos"].parent
    rows = [row.split(",") for row in (outs["frames"] / "prepared.csv").read_text().split()[1:]]
    folders = [(outs["frames"] / path.removesuffix("%06d.jpg"), label) for path, label in rows]
    (root / "folders.csv").write_text("".join(f"{path} {label}\n" for path, label in folders))
    for number, (path, _) in enumerate(folders):
        shutil.copy(path / "000003.jpg", root / f"{number}.jpg")
    images = [f"{number}.jpg {label}\n" for number, (_, label) in enumerate(folders)]
    (root / "images.csv").write_text("".join(images))
    given = {
        name: Given([f"input_dir={path}"], str(path))
        for name, path in [*outs.items(), ("folders", root / "folders.csv")]
    }
    both = f"input_dir=[{outs['videos']},{root / 'images.csv'}]"
    given["images"] = Given([both, "method.data.weights=[1,2]"], str(root / "images.csv"))
    files = {
        f"/{path.relative_to(root)}": path.read_bytes()
        for path in root.rglob("*")
        if path.suffix in (".tar", ".npy", ".mp4")
    }
    with serving(files) as server:
        lines = []
        for name in ("videos", "videos-shards", "frames-shards"):
            listed = (outs[name] / "prepared.csv").read_text().split()[1:]
            for row in listed[:: 2 if name == "videos" else 3]:
                member, chained, file = row.split(",")[0].rpartition("::")
                lines.append(f"{member}{chained}{server.at(f'{name}/{file}')} {row[-1]}\n")
        (root / "far.csv").write_text("".join(lines))
        given["server"] = Given([f"input_dir={root / 'far.csv'}"], str(root / "far.csv"))
        yield given


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.release) for kind in KINDS],
)
def test_a_collection_trains_alike_through_kills_is_probed_and_gives_features(
    collections: dict[str, Given],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    overrides = [*BASE, *collections[kind].overrides]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(whole, overrides, ranks=2)
    toll = train_through(killed, overrides, DEATHS, ranks=2)
    assert (toll.torn, toll.resumed) == (1, 2)
    outcome.require_same(whole, killed, "teacher")
    assert outcome.equal(*(outcome.checkpoint(one / "teacher") for one in (whole, killed)))
    assert outcome.skipped(whole) == outcome.skipped(killed) == {}

    labelled = collections[kind].labelled
    paths = read_inputs(labelled).paths
    lists = [f"--train={labelled}", f"--test={labelled}"]
    probe = ["probe", str(killed), *lists, "--protocol=knn", "--workers=1", f"--cache={tmp_path}"]
    with pytest.warns(UserWarning, match="videos of the list test are in the list train"):
        salt(probe)
    assert "knn" in capsys.readouterr().out
    salt(["features", str(killed), labelled, f"--out={tmp_path / 'features.npz'}"])
    found = np.load(tmp_path / "features.npz")
    assert sorted(set(found["path"].tolist())) == sorted(paths)
    assert len(paths) == (7 if kind == "server" else 6)
