"""A Slurm on this machine alone: a controller and nodes that are processes, on 127.0.0.1.

Everything lies in one temporary folder, and belongs to the user who starts it.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SYSTEM = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian puts daemons

# Small waits, so that a test need not: a node is lost after 10 s of silence, a requeued job may
# start after 5. Nodes have more processors than there are, so that jobs need not wait.
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=2 RealMemory=8000
NodeName=g1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[4]} CPUs=4 RealMemory=8000 Gres=gpu:3
PartitionName=main Nodes=n[1-3] Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=urgent Nodes=n[1-3] MaxTime=60 PriorityTier=10 State=UP
PartitionName=gpu Nodes=g1 MaxTime=60 State=UP
"""
NODES = ("n1", "n2", "n3", "g1")


def missing_programs() -> list[str]:
    """List what of Slurm is not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]


class Slurm:
    """Daemons that run until `stop`; `environment` is what a command needs to reach them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": SYSTEM, "SLURM_CONF": f"{folder}/slurm.conf"}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "state").mkdir()
        names = {"folder": folder, "user": getpass.getuser(), "ports": free_ports(5)}
        names["host"] = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**names))
        # No GPU is here: devices that open stand for them.
        devices = [f"NodeName=g1 Name=gpu File=/dev/{name}\n" for name in ("zero", "null", "full")]
        (folder / "gres.conf").write_text("".join(devices))
        (folder / "cgroup.conf").write_text("ConstrainCores=no\n")
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    def start(self) -> None:
        """Start all daemons, and wait until every node is idle."""
        files = {"key": "key-file", "socket": "socket", "pid": "pid-file", "seed": "seed-file"}
        options = [f"--{name}={self.folder}/munge.{end}" for end, name in files.items()]
        # Forced: a temporary folder is not as well guarded as it would like.
        self._daemon("munged", "munged", "--foreground", "--force", *options)
        self._until((self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self._until(lambda: all(self.node_state(node) == "idle" for node in NODES))

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node without a warning; its jobs live on."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def stop(self) -> None:
        """Cancel all jobs, and end all daemons and what they left."""
        self.call("scancel", "--user", getpass.getuser(), check=False)
        with contextlib.suppress(TimeoutError):
            self._until(lambda: not self.call("squeue", "-h", check=False), seconds=20)
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        # A job whose daemon was killed is nobody's child any more, and may wait for ever.
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    process.kill()

    def call(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """Run a command that may ask Slurm, and give what it prints."""
        caught = {"capture_output": True, "text": True, "check": False, "timeout": 300}
        done = subprocess.run(command, env=self.environment, cwd=cwd, **caught)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def node_state(self, node: str) -> str:
        """Give the state of a node, such as idle."""
        return self.call("sinfo", "-h", "-N", "-n", node, "-o", "%t", check=False).split("\n")[0]

    def job(self, job: str, field: str) -> str:
        """Give a field of a job, such as JobState; of an array's element by its ID_NUMBER."""
        shown = self.call("scontrol", "show", "job", "--oneliner", job, check=False).split()
        found = [word.partition("=")[2] for word in shown if word.startswith(f"{field}=")]
        return found[0] if found else ""

    def _daemon(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.daemons[name] = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def _until(self, holds, seconds: float = 60) -> None:
        until(holds, seconds, lambda: self.logs())

    def logs(self) -> str:
        """Give the end of each daemon's log."""
        ends = [
            f"{p.name}: {p.read_text('utf-8')[-800:]}" for p in sorted(self.folder.glob("*.log"))
        ]
        return "\n".join(ends)


def until(holds, seconds: float, describe=lambda: "") -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {seconds} s. {describe()}")
        time.sleep(0.3)


def free_ports(count: int) -> list[int]:
    """Find ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
