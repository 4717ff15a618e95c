"""What a cluster refuses, at submission or in `salt status`."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_plugin.studies.study import LOCK
from tests.cluster.bench import HERE, ONE_STAGE, Bench
from tests.cluster.slurm import MAX_ARRAY

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cluster.partition=nope", "invalid partition.*partitions here: debug, high"),
        ("cluster.mem=900G", "node configuration is not available.*--mem=900G.*8000 MB"),
        (
            "cluster.gpus_per_node=9",
            "node configuration is not available.*gpus-per-node=9.*gpu:a100:2",
        ),
        ("cluster.gpus_per_node=h100:1", "gpus-per-node=h100:1.*gpu:a100:2"),
        ("cluster.nodes=3", "node configuration is not available"),
        ("cluster.account=nobody", "Invalid account"),
        ("cluster.constraint=h100", "Invalid feature"),
        ("cluster.time='9:00:00'", "time=9:00:00 exceeds the 120 min of the partition"),
        ("cluster.sbatch.reservation=nope", "reservation.*--reservation=nope"),
        ("cluster.sbatch.no-such-option=1", "unrecognized option '--no-such-option=1'"),
    ],
)
def test_what_the_cluster_has_not_is_refused(bench: Bench, change: str, said: str) -> None:
    text = bench.launch(change, status=1)
    assert re.search(f"(?i)error: stage teacher: .*{said}", text), text
    assert not bench.study.root.exists()


def test_options_of_later_stages_are_tested_before_the_first_is_submitted(bench: Bench) -> None:
    change = "stages.report.resources.sbatch.exclude=[n98,n99]"
    for more in ((), ("--dry-run",)):
        text = bench.launch(change, *more, status=1)
        assert "error: stage report: sbatch: allocation failure: Invalid node name" in text
        assert "--exclude=n98,n99" in text
        assert not bench.study.root.exists()


def test_more_elements_than_an_array_may_have(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "range(0,1500)"))
    text = bench.launch(status=1)
    assert "error: stage run: sbatch: allocation failure: Invalid job array specification" in text
    assert f"--array=0-1499; MaxArraySize={MAX_ARRAY}: split the sweep" in text
    assert not bench.study.root.exists()


def contents(folder: Path) -> dict[Path, bytes | None]:
    found = [one for one in folder.rglob("*") if one.name != LOCK]
    return {one: one.read_bytes() if one.is_file() else None for one in found}


def test_half_a_study_is_never_submitted(bench: Bench) -> None:
    user = bench.cluster.run("whoami").strip()
    where = ("where", f"user={user}", "account=video", "set")

    def at_most(jobs: int) -> None:
        bench.cluster.run("sacctmgr", "-i", "modify", "user", *where, f"maxsubmitjobs={jobs}")

    def refused(command: Callable[[], str]) -> None:
        # Two teachers are accepted, and the fourth student is one too many.
        at_most(5)
        try:
            text = command()
        finally:
            at_most(-1)
        assert text.count("job submit limit") == 1
        assert re.search(r"error: stage student: .*nothing was submitted", text)
        assert "go on" not in text
        assert bench.cluster.run("squeue", "-h") == ""

    account = ("cluster.account=video", "cluster.sbatch.hold=true")
    refused(lambda: bench.launch(*account, status=1))
    assert not bench.study.root.exists()
    bench.launch(*account)
    bench.salt("cancel", str(bench.study.root))
    before = contents(bench.study.root)
    refused(lambda: bench.launch(*account, "cluster.time='0:10:00'", status=1))
    assert contents(bench.study.root) == before
    refused(lambda: bench.salt("retry", str(bench.study.root), status=1))
    assert contents(bench.study.root) == before


def test_the_profile_wins_and_the_environment_fills_what_it_leaves_open(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "1"))
    seen = bench.pipeline.parent / "environment"
    bench.profile_keys(setup=[f"env > {seen}"], account="video")
    ours = {
        "TIMELIMIT": "1",
        "NO_REQUEUE": "1",
        "SIGNAL": "KILL@60",
        "EXPORT": "NONE",
        "ARRAY_INX": "0-3",
        "OUTPUT": "/nope/output",
        "WAIT": "1",
    }
    given = {"PARTITION": "high", "ACCOUNT": "nobody", "QOS": "normal", **ours}
    enclosing = {"SLURM_NTASKS": "7", "SLURM_MEM_PER_GPU": "1", "SLURM_HINT": "memory_bound"}
    environment = {f"SBATCH_{name}": value for name, value in given.items()} | enclosing
    text = bench.launch(**environment)
    ignored = ", ".join(sorted(f"SBATCH_{name}" for name in [*ours, "ACCOUNT"]))
    (said,) = (line for line in text.splitlines() if "from your environment" in line)
    assert "partition=high (SBATCH_PARTITION), qos=normal (SBATCH_QOS)" in said
    assert said.endswith(f"not used: {ignored}")
    assert bench.ended()["run/s1"].state == "finished"
    (submission,) = bench.study.submissions()
    job = bench.cluster.run("scontrol", "-o", "show", "job", submission.job)
    for part in ("Partition=high", "Account=video", "QOS=normal", "TimeLimit=00:20:00"):
        assert f" {part} " in job
    assert " Requeue=1 " in job
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "SALT_STUB" in names
    assert not names & {"SLURM_MEM_PER_GPU", "SLURM_HINT", "SBATCH_TIMELIMIT"}


def test_a_job_without_the_environment_gives_its_own_to_the_processes(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "1"))
    stub = f"export SALT_STUB={bench.control}"
    bench.profile_keys(sbatch={"export": "NONE"}, setup=[stub])
    bench.launch()
    assert bench.ended()["run/s1"].state == "finished"


def test_typed_gpus_and_lists(bench: Bench) -> None:
    bench.profile_keys(gpus_per_node="a100:2", sbatch={"exclude": ["localhost"], "hold": True})
    bench.launch()
    text = bench.cluster.run("squeue", "-h", "-o", "%j %b %x")
    found = {tuple(line.split()) for line in text.splitlines()}
    assert found == {
        ("tiny:teacher", "gres:gpu:a100:2", "localhost"),
        ("tiny:student", "gres:gpu:a100:2", "localhost"),
        ("tiny:probe", "gres:gpu:a100:1", "localhost"),
        ("tiny:report", "N/A", "localhost"),
    }


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({"python": "/nope/python -X dev"}, "/nope/python (cluster.python)"),
        ({"python": "/nope/python", "nodes": 2}, "/nope/python (cluster.python)"),
        ({"container": "apptainer exec /nope.sif"}, "apptainer (cluster.container)"),
    ],
    ids=["python", "two-nodes", "container"],
)
def test_what_is_missing_on_a_node_is_said(
    bench: Bench, keys: dict[str, object], missing: str
) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "1"))
    bench.profile_keys(sbatch={"nodelist": "localhost"} if "nodes" not in keys else {}, **keys)
    bench.launch()
    row = bench.ended()["run/s1"]
    assert row.state == "failed"
    assert re.match(rf"[\w.-]+ has no {re.escape(missing)}: install it there", row.reason), row
    if "nodes" not in keys:
        assert row.reason.startswith("localhost ")


@pytest.mark.parametrize("container", [None, "env IN_CONTAINER=1"])
def test_the_python_of_the_profile_runs_the_whole_job_or_what_is_in_the_container(
    bench: Bench, tmp_path: Path, container: str | None
) -> None:
    bench.pipeline.write_text(ONE_STAGE % (1, "1"))
    python, calls = tmp_path / "python", tmp_path / "calls"
    stub = HERE / "stub_python.py"
    python.write_text(
        f'#!/bin/sh\necho "$IN_CONTAINER$@" >> {calls}\nexec {sys.executable} {stub} "$@"\n'
    )
    python.chmod(0o755)
    bench.profile_keys(python=str(python), container=container)
    bench.launch()
    assert bench.ended()["run/s1"].state == "finished"
    *outer, inner = calls.read_text().splitlines()
    if container:
        assert outer == []
        assert inner.startswith("1-m salt_plugin.cli train")
    else:
        assert inner.startswith("-m salt_plugin.cli train")
        assert [call.split()[:3] for call in outer] == [["-u", "-m", "submitit.core._submit"]]


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
    assert f"a killed launch did not note are in the queue: {job}; scancel {job} ends" in said
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
