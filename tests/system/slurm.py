"""A real SLURM of two nodes on this machine: munged, one slurmctld and two slurmd, in a folder of its own and on ports of its own.

`python tests/system/slurm.py` starts one and keeps it until Ctrl-C, to try things by hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")

CONF = """\
ClusterName=scigpt-test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until the credentials of its former life have expired
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=15
SlurmdTimeout=10
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=2000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=2000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None when it can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if not all(shutil.which(p, path=path) for p in PROGRAMS):
        return "SLURM is not installed"
    return None if os.geteuid() == 0 else "SLURM is started by root only"


def eventually(condition: Callable[[], bool], what: str, patience: float = 180.0) -> None:
    """Wait for something that must come; fails loudly when it does not."""
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"{what}: not within {patience:.0f} s")
        time.sleep(0.02)


class Cluster:
    """The daemons and what a test does to them. Use `cluster()`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        for name in [n for n in self.environment if n.startswith(("SLURM_", "SBATCH_", "SQUEUE_")) and n != "SLURM_CONF"]:
            del self.environment[name]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("munge", "state"):
            (self.folder / name).mkdir(mode=0o755)
        key, munge = self.folder / "munge" / "key", self.folder / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.conf.write_text(CONF.format(folder=self.folder, ports=_free_ports(3)))
        files = {n: f"{munge}/{n}" for n in ("socket", "pid-file", "log-file", "seed-file")}
        options = [f"--{name}={file}" for name, file in files.items()]
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        eventually((munge / "socket").exists, "munged")
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        for node in NODES:
            self.start_slurmd(node)
        eventually(lambda: self.call("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], "two idle nodes")

    def stop(self) -> None:
        """End the jobs and the daemons, then whatever is left of them."""
        with suppress(AssertionError, subprocess.CalledProcessError):
            self.call("scancel", "--user=root")
            eventually(lambda: not self.call("squeue", "-h"), "an empty queue", 30)
        for daemon in reversed(self._daemons.values()):
            daemon.kill()
            daemon.wait()
        for pid in self.processes():
            _kill(pid)

    def _daemon(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def start_slurmd(self, node: str) -> None:
        self._daemon(node, "slurmd", "-D", "-f", str(self.conf), "-N", node)

    def kill_slurmd(self, node: str) -> None:
        """The daemon only; the steps on its node run on."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def lose_node(self, node: str) -> None:
        """The node with everything that runs on it."""
        self.kill_slurmd(node)
        found = self.processes(SLURMD_NODENAME=node)
        steps = {_parent(pid) for pid in found if _name(_parent(pid)) == "slurmstepd"}
        for pid in (*steps, *found):
            _kill(pid)

    def call(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def processes(self, **variables: str) -> list[int]:
        """Ids of the processes of this cluster that have these variables in their environment."""
        wanted = {f"{n}={v}".encode() for n, v in ({"SLURM_CONF": str(self.conf)} | variables).items()}
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:  # gone, or a zombie
                continue
        return [pid for pid in found if pid != os.getpid()]

    def trainer(self, job: str, rank: int) -> int:
        """Process id of one training process of a job."""
        found = [pid for pid in self.processes(SLURM_JOB_ID=job, SLURM_PROCID=str(rank)) if b"pretrain" in _command(pid)]
        (pid,) = [pid for pid in found if _name(_parent(pid)) == "slurmstepd"]
        return pid


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="scigpt-slurm-"))  # not in pytest's folder: the path of a socket must be short
    folder.chmod(0o755)
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster() as running:
        sys.stdout.write(f"export SLURM_CONF={running.conf}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()
