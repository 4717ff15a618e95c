"""A two-node Slurm with accounting on this machine, from Debian's packages.

`python tests/cluster/slurm.py up [FOLDER]` starts it and prints what to export; `down [FOLDER]`
ends what `up` has started, and nothing else.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGES = (
    "munge slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin "
    "mariadb-server-core mariadb-client-core"
)
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db", "sacct")
TIMEOUT = 60.0
CPUS, MEMORY_MB, MAX_ARRAY = 4, 8000, 1001

SLURM_CONF = """\
ClusterName=salt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
# Other ids every time, so that what earlier clusters have left in a study is not taken for theirs.
FirstJobId={first_job}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
MailProg=/bin/true
Epilog={root}/epilog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# Without control groups, a job step that takes more memory than it was given is found by looking.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={root}/munge.sock
AccountingStorageEnforce=associations,limits
ReturnToService=2
JobRequeue=1
MaxArraySize={max_array}
MinJobAge=3600
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=120 DefaultTime=5 State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=120 DefaultTime=5 State=UP PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
LogFile={root}/log/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""

INIT_SQL = """\
CREATE DATABASE IF NOT EXISTS slurm_acct;
CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct.* TO 'slurm'@'%';
"""


# A job is COMPLETING as long as a test wants it to be, for 20 s at most.
EPILOG = """\
#!/bin/sh
for _ in $(seq 200); do [ -e {root}/hold ] || exit 0; sleep 0.1; done
"""


def missing_programs() -> list[str]:
    """Returns the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class Cluster:
    """Slurm under a folder.

    Args:
        root: A folder that is made and removed; short, since it holds a socket.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self.hold = root / "hold"
        self._started = root / "started.json"
        self.environment = os.environ | {"SLURM_CONF": str(self.conf), "PATH": _path()}

    def up(self) -> None:
        """Starts everything; both nodes are idle afterwards."""
        if self._started.exists():
            raise SystemExit(f"{self.root} holds a cluster already; take it down first")
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("state", "log", "sql"):
            (self.root / name).mkdir(parents=True)
        self.root.chmod(0o755)
        self._started.write_text("[]")
        ports = _free_ports(5)
        self._configure(ports)
        try:
            self._start(ports)
        except BaseException:
            self.down(keep_logs=True)
            raise

    def down(self, keep_logs: bool = False) -> None:
        """Cancels the jobs and ends what `up` has started."""
        if not self._started.exists():
            return
        processes = json.loads(self._started.read_text())
        if any(name == "slurmctld" for name, _, _ in processes):
            self.run("scancel", "--user", getpass.getuser(), check=False)
            _wait(lambda: not self.run("squeue", "-h", check=False).strip(), "jobs", must=False)
        for name, pid, born in reversed(processes):
            _end(name, pid, born)
        if keep_logs:
            self._started.unlink()
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Returns what a command of Slurm prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def start_controller(self) -> None:
        """Starts the controller, which goes on where it was."""
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        self._answers("slurmctld", "scontrol", "ping")

    def end_controller(self) -> None:
        """Ends the controller; jobs that run go on."""
        for name, pid, born in json.loads(self._started.read_text()):
            if name == "slurmctld":
                _end(name, pid, born)

    def _configure(self, ports: Sequence[int]) -> None:
        host = socket.gethostname().partition(".")[0]
        # Names that resolve, since jobs take the first as the address of their rendezvous.
        names = [host, "localhost"] if host != "localhost" else ["localhost", "ip6-localhost"]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB} Gres=gpu:a100:2 State=UNKNOWN"
            for name, port in zip(names, ports[3:], strict=True)
        )
        values = {
            "root": self.root,
            "host": host,
            "user": getpass.getuser(),
            "ctld": ports[0],
            "dbd": ports[1],
            "sql": ports[2],
            "first_job": int(time.time()) % 100_000 * 100 + 1,
            "max_array": MAX_ARRAY,
            "nodes": nodes,
        }
        self.conf.write_text(SLURM_CONF.format(**values))
        epilog = self.root / "epilog"
        epilog.write_text(EPILOG.format(root=self.root))
        epilog.chmod(0o755)
        # Devices that are there anywhere stand for GPUs.
        (self.root / "gres.conf").write_text(
            "AutoDetect=off\n"
            + "".join(
                f"NodeName={name} Name=gpu Type=a100 File={device}\n"
                for name in names
                for device in ("/dev/null", "/dev/zero")
            )
        )
        self._private("slurmdbd.conf", SLURMDBD_CONF.format(**values).encode())
        self._private("munge.key", secrets.token_bytes(1024))
        (self.root / "init.sql").write_text(INIT_SQL)
        self.names = names

    def _private(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_bytes(content)

    def _start(self, ports: Sequence[int]) -> None:
        root = self.root
        sock, sql_sock = f"{root}/munge.sock", f"{root}/sql.sock"
        self._spawn(
            "munged",
            *("munged", "-F", f"--socket={sock}", f"--key-file={root}/munge.key"),
            *(f"--pid-file={root}/munged.pid", f"--seed-file={root}/munge.seed"),
            *(f"--log-file={root}/log/munged.log", "--num-threads=4", "--force"),
        )
        user = getpass.getuser()
        self.run(
            *("mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={root}/sql"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        self._spawn(
            "mariadbd",
            *("mariadbd", "--no-defaults", f"--user={user}", f"--datadir={root}/sql"),
            *(f"--socket={sql_sock}", f"--pid-file={root}/sql.pid", "--bind-address=127.0.0.1"),
            *(
                f"--port={ports[2]}",
                "--innodb-buffer-pool-size=64M",
                f"--init-file={root}/init.sql",
            ),
            *("--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"),
        )
        self._answers("munged", "munge", "-S", sock, "-n")
        login = ["mariadb", "--no-defaults", f"--socket={sql_sock}", "-uslurm", "-pslurm"]
        self._answers("mariadbd", *login, "slurm_acct", "-e", "select 1")
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._answers("slurmdbd", "sacctmgr", "-n", "list", "cluster")
        self.run("sacctmgr", "-i", "add", "cluster", "salt")
        self.run("sacctmgr", "-i", "add", "account", "video", "cluster=salt")
        self.run("sacctmgr", "-i", "add", "user", user, "account=video", check=False)
        self.start_controller()
        for name in self.names:
            self._spawn(f"slurmd-{name}", "slurmd", "-D", "-N", name)
        _wait(
            lambda: self.run("sinfo", "-h", "-N", "-o", "%T").split()[:2] == ["idle", "idle"],
            f"nodes; see {root}/log",
        )

    def _spawn(self, name: str, *command: str) -> None:
        with (self.root / "log" / f"{name}.out").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started = json.loads(self._started.read_text())
        entry = [command[0], process.pid, _born(process.pid)]
        self._started.write_text(json.dumps([*started, entry]))

    def _answers(self, name: str, *command: str) -> None:
        def answers() -> bool:
            done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
            return done.returncode == 0

        _wait(answers, f"{name}; see {self.root}/log")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _born(pid: int) -> str | None:
    """Returns when a process was started, by which it is told from a later one of its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _end(name: str, pid: int, born: str | None) -> None:
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        if born is None or _born(pid) != born:
            return
        os.kill(pid, number)
        _wait(lambda: _born(pid) != born, name, seconds, must=False)


def _wait(
    condition: Callable[[], bool], what: str, seconds: float = TIMEOUT, must: bool = True
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if must:
                raise RuntimeError(f"waited {seconds:g} s for {what}")
            return
        time.sleep(0.1)


def main(arguments: Sequence[str]) -> None:
    """Starts or ends a cluster, as the command line says."""
    folder = (
        Path(arguments[1]) if len(arguments) > 1 else Path(tempfile.gettempdir()) / "salt-slurm"
    )
    cluster = Cluster(folder.absolute())
    if arguments[:1] == ["down"]:
        cluster.down()
        return
    if arguments[:1] == ["packages"]:
        print(PACKAGES)
        return
    if arguments[:1] != ["up"]:
        raise SystemExit("usage: slurm.py packages | up [FOLDER] | down [FOLDER]")
    if missing := missing_programs():
        raise SystemExit(f"not installed: {', '.join(missing)}; as root: make slurm-packages")
    cluster.up()
    print(f"export SLURM_CONF={cluster.conf}")


if __name__ == "__main__":
    main(sys.argv[1:])
