"""A real Slurm for the tests of this folder, and studies on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bench import Bench
from tests.cluster.slurm import Cluster, missing_programs


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if missing := missing_programs():
        pytest.skip(
            f"NO SLURM HERE, NOTHING OF IT WAS TESTED: {', '.join(missing)} missing; as root: "
            "make slurm-packages"
        )
    with tempfile.TemporaryDirectory(prefix="salt-slurm-") as folder:
        one = Cluster(Path(folder) / "c")
        one.up()
        try:
            yield one
        finally:
            one.down()


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.chdir(tmp_path)
    yield Bench(cluster, tmp_path)
    cluster.run("scancel", "--user", str(os.getuid()), check=False)
