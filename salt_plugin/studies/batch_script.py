"""What the script of a job does before and after srun.

Before it: the `setup` of the profile, whose output goes to the element's log. After it, with
`python -m salt_plugin.studies.batch_script FOLDER`: what was interrupted is queued again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.studies.attempts import FAILED, INTERRUPTED, STARTED, ElementDirectory
from salt_plugin.studies.slurm_commands import out_of_memory, own_job_id, own_restart, requeue

# How a job ends before its element starts: `salt_end STATUS REASON REASON_IN_JSON`.
_END = """\
mkdir -p "$salt_folder" || exit
salt_job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
salt_end() {
    salt_line=
    echo "failed: $2" >>"$salt_folder/log.txt"
    printf '{"event": "failed", "time": %s, "job": "%s", "reason": "%s"}\\n' \\
        "$(date +%s)" "$salt_job" "$3" >>"$salt_folder/attempts.jsonl"
    exit $(($1 ? $1 : 1))
}"""

# Lines run in the shell of the script. One that fails says so, as does one that ends the shell; in
# files that a line sources, as in functions, only the status of the whole counts.
_BEFORE = """\
salt_failed() {
    local said="setup line failed (status $1)"
    [ -z "$salt_line" ] || salt_end "$1" "$said: $salt_line" "$said: $salt_json"
}
trap 'salt_failed $?' EXIT
trap 'salt_status=$?; ((${#BASH_SOURCE[@]} > 1)) || salt_failed $salt_status' ERR
echo "# $(date '+%F %T') setup on ${SLURMD_NODENAME:-$HOSTNAME}, job $salt_job," \\
    "restart ${SLURM_RESTART_COUNT:-0}" >>"$salt_folder/log.txt"
{"""

_AFTER = """\
} >>"$salt_folder/log.txt" 2>&1
salt_line=
trap - ERR"""


def before_srun(setup: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Returns lines of bash that run those of a profile, and stop the job at one that fails.

    Args:
        setup: Of the profile; what a line exports, sources or loads holds for those after it.
        folders: Of the elements of the job, in its order.
    """
    quoted = " ".join(shlex.quote(str(folder)) for folder in folders)
    lines = [
        f"salt_folders=({quoted})",
        "salt_folder=${salt_folders[${SLURM_ARRAY_TASK_ID:-0}]}",
        _END,
    ]
    if not setup:
        return lines
    lines.append(_BEFORE)
    for text in setup:
        line = "; ".join(one.strip() for one in text.splitlines() if one.strip())
        lines.append(f"salt_line={shlex.quote(line)} salt_json={shlex.quote(_in_json(line))}")
        lines.append(f"eval {shlex.quote(text)}")
    return [*lines, _AFTER]


def required(programs: Mapping[str, str], nodes: int) -> list[str]:
    """Returns lines of bash, after those of `before_srun`, that end a job without its programs.

    Args:
        programs: Where each comes from, for the message.
        nodes: Of the job, whose script runs on the first alone.
    """
    lines = []
    for program, origin in programs.items():
        said = (
            f" has no {program} ({origin}): install it there, give another, or leave the node out "
            "with sbatch.exclude"
        )
        check = f"command -v {shlex.quote(program)} >/dev/null || echo $SLURMD_NODENAME"
        if nodes > 1:
            one_each = f"srun --export=ALL --ntasks={nodes} --ntasks-per-node=1"
            check = f"{one_each} bash -c {shlex.quote(check)} | head -n 1"
        both = " ".join(f'"$salt_node"{shlex.quote(one)}' for one in (said, _in_json(said)))
        lines.append(f'salt_node=$({check}); [ -z "$salt_node" ] || salt_end 127 {both}')
    return lines


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def after_srun(python: str) -> str:
    """Returns a line of bash that queues an element again that is not over."""
    module = "-m salt_plugin.studies.batch_script"
    return f'[ -f "$salt_folder/finished.json" ] || {python} {module} "$salt_folder"'


def goes_on(files: ElementDirectory, job: str) -> bool:
    """Queues a job again whose processes have ended, if its element was interrupted.

    Args:
        files: The element.
        job: The job that this process belongs to.

    Returns:
        Whether it goes on: not where it has failed, never began or is cancelled, and not after
        `MOST_WITHOUT_PROGRESS` attempts that saved nothing.
    """
    this: dict[str, Any] = {"job": job, "restart": own_restart()}
    attempt = files.last_attempt()
    if not attempt or attempt[0] != attempt[0] | this or files.reason(FAILED):
        return False
    last = attempt[-1]
    # Asked to stop, it has no time to lose: accounting may be slow.
    memory = None if last.get("signal") else out_of_memory(job)
    if memory or last["event"] == STARTED:
        known = files.reason(INTERRUPTED) or "all its processes were killed"
        files.end(INTERRUPTED, f"{known}; {memory}" if memory else known, **this)
    return not files.gives_up(**this) and requeue(job)


def main(folder: str) -> None:
    """Ends the script of a job that this process belongs to: with status 1 where it is over."""
    job = own_job_id()
    raise SystemExit(0 if job is not None and goes_on(ElementDirectory(Path(folder)), job) else 1)


if __name__ == "__main__":
    main(sys.argv[1])
