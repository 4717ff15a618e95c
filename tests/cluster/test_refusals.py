"""What a cluster refuses, at submission or in `salt status`."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.cluster.bench import ONE_STAGE, Bench
from tests.cluster.slurm import MAX_ARRAY

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cluster.partition=nope", "invalid partition.*partitions here: debug, high"),
        ("cluster.mem=900G", "node configuration is not available.*--mem=900G.*8000 MB"),
        ("cluster.gpus_per_node=9", "node configuration is not available.*gpus-per-node=9.*gpu:2"),
        ("cluster.nodes=3", "node configuration is not available"),
        ("cluster.account=nobody", "Invalid account"),
        ("cluster.constraint=h100", "Invalid feature"),
        ("cluster.time='9:00:00'", "time=9:00:00 exceeds the 120 min of the partition"),
    ],
)
def test_what_the_cluster_has_not_is_refused(bench: Bench, change: str, said: str) -> None:
    text = bench.launch(change, status=1)
    assert re.search(f"(?i)error: stage teacher: .*{said}", text), text
    assert bench.study.submissions() == []


def test_more_elements_than_an_array_may_have(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "range(0,1500)"))
    text = bench.launch(status=1)
    assert f"an array of 1,500 elements exceeds the cluster's MaxArraySize={MAX_ARRAY:,}" in text
    assert bench.study.submissions() == []


def test_more_jobs_than_the_account_may_have(bench: Bench) -> None:
    user = bench.cluster.run("whoami").strip()
    where = ("where", f"user={user}", "account=video", "set")
    bench.cluster.run("sacctmgr", "-i", "modify", "user", *where, "maxsubmitjobs=5")
    try:
        text = bench.launch("cluster.account=video", status=1)
        assert "11 elements with 0 jobs of yours in the queue exceed MaxSubmitJobs=5" in text
    finally:
        bench.cluster.run("sacctmgr", "-i", "modify", "user", *where, "maxsubmitjobs=-1")


def test_without_accounting_the_queue_and_the_files_tell(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (2, "1,2"))
    bench.fail("run/s2")
    bench.launch()
    bench.ended()
    folder = bench.pipeline.parent / "bin"
    folder.mkdir()
    sacct = folder / "sacct"
    sacct.write_text("#!/bin/sh\necho Slurm accounting storage is disabled >&2; exit 1\n")
    sacct.chmod(0o755)
    path = f"{folder}:{bench.cluster.environment['PATH']}"
    text = bench.salt("status", str(bench.study.root), PATH=path)
    assert "1 finished, 1 failed" in text
    assert "no accounting (sacct: Slurm accounting storage is disabled)" in text


def test_while_slurm_gives_no_answer_nothing_is_submitted_again(bench: Bench) -> None:
    bench.launch("cluster.sbatch.hold=true", "cluster.patience=0")
    folder = bench.pipeline.parent / "bin"
    folder.mkdir()
    for name in ("sacct", "squeue"):
        (folder / name).write_text(
            "#!/bin/sh\necho Unable to contact slurm controller >&2; exit 1\n"
        )
        (folder / name).chmod(0o755)
    path = f"{folder}:{bench.cluster.environment['PATH']}"
    assert "11 unknown" in bench.salt("status", str(bench.study.root), PATH=path)
    text = bench.salt("retry", str(bench.study.root), PATH=path, status=1)
    assert "the queue cannot be asked (squeue: Unable to contact" in text
    assert len(bench.study.submissions()) == 6


def test_jobs_that_a_killed_launch_did_not_note_are_not_submitted_again(bench: Bench) -> None:
    bench.launch("cluster.sbatch.hold=true")
    *noted, lost = bench.study.submitted.read_text().splitlines()
    bench.study.submitted.write_text("".join(f"{line}\n" for line in noted))
    job = json.loads(lost)["job"]
    said = bench.launch("cluster.sbatch.hold=true", status=1)
    assert f"a killed launch did not note are in the queue: {job}; salt cancel" in said
    bench.salt("cancel", str(bench.study.root))
    assert bench.cluster.run("squeue", "-h", "-t", "pending,running") == ""


def test_a_folder_that_the_nodes_do_not_see(bench: Bench, tmp_path: Path) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for a folder that this process alone sees")
    bench.pipeline.write_text(ONE_STAGE % (2, "1"))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    # The mount is private to this shell: the nodes find an empty folder.
    shell = (
        f"mount -t tmpfs none {hidden} && "
        f'"$@" launch {bench.pipeline} cluster={bench.profile} --out {hidden}/study && '
        f'until "$@" status {hidden}/study | tee said | grep -q "1 failed"; do sleep 1; done; '
        "cat said"
    )
    before = ("unshare", "--mount", "sh", "-c", shell, "sh")
    text = bench.salt(before=before)
    assert "Do the nodes see the study's folder" in " ".join(text.split())
