"""cluster/submit on a real Slurm: whatever happens to a job, the table is that of `tunet run`.

Three runs of the same four trainings go on at once: one without Slurm and without any mishap;
one whose preparation and one of whose trainings meet their time limit; and one that is first
sent to GPUs which are none, and then requeued, preempted, started twice and left by its node.
"""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from loopback import Slurm, until
from scans import scan_config, write_scans

from tunet_lib.files import load_json
from tunet_lib.runs import Run, open_run

ROOT = Path(__file__).parents[2]
CHOSEN = ["--variant", "unet2d", "--variant", "unet3d", "--fold", "0", "--fold", "1"]
NUMBERS = (2, 4, 12, 14)  # of the chosen ones
CONFIG = scan_config(levels=1, folds=5, epochs=20, stop_patience=20)

# Trainings of this size end in seconds, sooner than Slurm does anything. So the first start of each
# waits after two epochs until there is a file, which decides what happens when on any machine.
GATED = """
import os, time
from tunet_lib import worker
from tunet_lib.cli import main

gate, train = os.environ.get("TUNET_GATE"), worker.train_task

def wait(log):
    while log["epoch"] >= 2 and not os.path.exists(gate):
        time.sleep(0.1)

if gate and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
    worker.train_task = lambda run, task: train(run, task, wait)
main()
"""
# The first start of the preparation hangs, like a file system that does not answer, and so does
# the first start of training 2, in the midst of it; until Slurm's time limit.
HANGING = """#!/bin/bash
case "$1 ${{SLURM_ARRAY_TASK_ID:-}} ${{SLURM_RESTART_COUNT:-0}}" in
"prepare  0") sleep 600 ;;
"train 2 0") export TUNET_GATE=/never ;;
esac
exec {tunet} "$@"
"""


@pytest.fixture(scope="module")
def tunet(tmp_path_factory) -> Path:
    """Give a command that runs this copy of the library."""
    command = tmp_path_factory.mktemp("bin") / "tunet"
    environment = f"PYTHONPATH={ROOT} TF_CPP_MIN_LOG_LEVEL=3"
    words = f"{environment} {shlex.quote(sys.executable)} -c {shlex.quote(GATED)}"
    command.write_text(f'#!/bin/bash\nexec env {words} "$@"\n')
    command.chmod(0o755)
    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Give a folder with a space in its name, which holds the cases and the configuration."""
    folder = tmp_path_factory.mktemp("a study")
    write_scans(folder / "kits", count=10)
    CONFIG.save(folder / "tiny.json")
    return folder


@pytest.fixture(scope="module")
def plain(folder, tunet, slurm):
    """Start the run that nothing disturbs, and give what waits for it."""
    options = ["--config", "tiny.json", *CHOSEN, "--jobs", "2"]
    command = [tunet, "run", "kits", "plain", *options]
    one_thread = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    with (folder / "plain.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=slurm.environment | one_thread, stdout=log, stderr=log
        )

    def finished() -> Path:
        assert process.wait(300) == 0, (folder / "plain.log").read_text()
        return folder / "plain"

    yield finished
    process.kill()


class Chain:
    """The three submissions of one run, from a copy of the script whose top lines are edited."""

    def __init__(self, slurm: Slurm, folder: Path, run: str, tunet: Path) -> None:
        self.slurm, self.folder, self.name, self.tunet = slurm, folder, run, tunet
        self.gate: Path | None = None
        self.jobs: dict[str, str] = {}
        self.shown = ""

    @property
    def run(self) -> Run:
        return open_run(self.folder / self.name)

    def submit(self, *arguments: str, **lines: str) -> None:
        values = {
            **{"data": "kits", "run": self.name, "config": "(--config tiny.json)"},
            **{"array": "--array=2,4,12,14", "gpu": "", "cpus": "1", "memory": "1000"},
            **{"minutes": "10", "warning": "30"},
            "setup": shlex.quote("; ".join(self.setup())),
        } | lines
        script = (
            (ROOT / "cluster" / "submit").read_text("utf-8").replace("per-task=4", "per-task=1")
        )
        for name, value in values.items():
            pattern = re.compile(rf"^{name}=(\([^)]*\)|'[^']*'|\S*)", re.MULTILINE)
            script, count = pattern.subn(lambda _, v=f"{name}={value}": v, script, count=1)
            assert count == 1, name
        copy = self.folder / f"submit_{self.name}"
        copy.write_text(script)
        self.shown = self.slurm.call("bash", str(copy), *arguments, cwd=self.folder)
        found = re.search(r"prepare (\d+), train (\d+) .*, score (\d+)", self.shown)
        self.jobs = dict(zip(("prepare", "train", "score"), found.groups(), strict=True))

    def setup(self) -> list[str]:
        """Give the lines of a job that come before its command."""
        gate = [f"export TUNET_GATE={shlex.quote(str(self.gate))}"] if self.gate else []
        return [f"PATH={shlex.quote(str(self.tunet.parent))}:$PATH", *gate]

    def status(self) -> str:
        return self.slurm.call(str(self.tunet), "status", str(self.folder / self.name), *CHOSEN)

    def state(self, job: str) -> str:
        return self.slurm.job(job, "JobState")

    def element(self, number: int) -> str:
        return f"{self.jobs['train']}_{number}"

    def log(self, job: str) -> str:
        """Give what a submission's tasks have printed."""
        logs = (self.folder / self.name / "logs").glob(f"{job}_*.log")
        return "\n".join(path.read_text("utf-8") for path in sorted(logs))

    def epochs(self, number: int) -> int:
        run = self.run
        return len(run.model_folder(run.tasks()[number]).history())

    def owner(self, number: int) -> dict:
        run = self.run
        path = run.model_folder(run.tasks()[number]).path / "owner.json"
        return load_json(path) if path.exists() else {}

    def until(self, holds, seconds: float = 400) -> None:
        until(holds, seconds, lambda: f"{self.slurm.call('squeue')}\n{self.log('*')[-3000:]}")

    def until_scored(self) -> None:
        ended = ("COMPLETED", "FAILED", "CANCELLED")
        self.until(lambda: self.state(self.jobs["score"]) in ended)
        assert self.state(self.jobs["score"]) == "COMPLETED", self.log("*")

    def results(self) -> dict[str, bytes]:
        return results(self.folder / self.name)


def results(run: Path) -> dict[str, bytes]:
    """Give the table, the scores and the networks, byte for byte."""
    weights = [folder.weights for folder in map(open_run(run).model_folder, chosen(run))]
    paths = [run / "table_1.csv", run / "scores.csv", *weights]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def chosen(run: Path) -> list:
    return open_run(run).tasks(CHOSEN[1:4:2], [0, 1])


@pytest.fixture(scope="module")
def limited(slurm, folder, tunet, tmp_path_factory) -> Chain:
    """Submit the chain whose preparation and training 2 hang until their time limit."""
    shim = tmp_path_factory.mktemp("hanging") / "tunet"
    shim.write_text(HANGING.format(tunet=shlex.quote(str(tunet))))
    shim.chmod(0o755)
    chain = Chain(slurm, folder, "limited", shim)
    # As short as every start but the hanging ones can be sure to do something before the warning,
    # with a dozen others beside it: what is told too early starts again, for ever.
    chain.submit(minutes="2", warning="20")
    return chain


@pytest.fixture(scope="module")
def chain(slurm, folder, tunet) -> Chain:
    chain = Chain(slurm, folder, "mishaps", tunet)
    chain.gate = folder / "go on"
    return chain


def test_a_job_that_was_given_a_gpu_and_sees_none_ends_with_a_sentence(plain, limited, chain):
    chain.submit("--array=2,4,12", gpu="gpu:1", partition="gpu", cpu_partition="main")
    assert "once prepared: tunet status" in chain.shown
    chain.until(lambda: chain.state(chain.jobs["score"]) == "FAILED")
    assert [chain.state(chain.element(n)) for n in (2, 4, 12)] == ["FAILED"] * 3
    assert chain.log("train").count("was given a GPU by Slurm") == 3
    assert "Traceback" not in chain.log("*")
    assert "was given a GPU by Slurm" in chain.log("score")  # which is asked before all else
    assert "4 missing" in chain.status()


def test_what_status_prints_repairs_and_no_mishap_changes_a_byte(plain, chain, slurm):
    array = re.search(r"--array=\S+", chain.status())[0]
    assert array == "--array=2,4,12,14"
    chain.submit(array)
    assert "missing" not in chain.status()  # queued, or running already
    chain.until(lambda: min(map(chain.epochs, NUMBERS)) >= 2)
    # The four fill two nodes at least, so one that can be preempted is not on the lost node; and
    # a third node is large enough for what starts again while others wait at the gate.
    nodes = {number: slurm.job(chain.element(number), "NodeList") for number in NUMBERS}
    lost = NUMBERS[0]
    preempted = next(number for number in NUMBERS if nodes[number] != nodes[lost])
    requeued, twice = (number for number in NUMBERS if number not in (lost, preempted))

    # A node that hangs, and whose daemon is gone: Slurm calls it lost, and starts its jobs
    # elsewhere; then the old copy goes on.
    old = psutil.Process(int(chain.owner(lost)["process"]["pid"]))
    old.send_signal(signal.SIGSTOP)
    slurm.kill_node(nodes[lost])
    lost_job = chain.owner(lost)

    again = Chain(slurm, chain.folder, chain.name, chain.tunet)
    again.gate = chain.gate
    again.submit(f"--array={twice}")
    slurm.call("scontrol", "requeue", chain.element(requeued))
    options = ["-p", "urgent", "-w", nodes[preempted], "-c", "2", "--mem=100", "-o", "/dev/null"]
    urgent = slurm.call("sbatch", "--parsable", *options, "--wrap", "sleep 1")

    chain.until(lambda: chain.owner(lost) not in ({}, lost_job))
    assert old.is_running()
    assert "running" in chain.status()
    chain.gate.touch()
    old.send_signal(signal.SIGCONT)
    chain.until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE)
    assert "taken over by" in chain.log("train")
    slurm.start_node(nodes[lost])

    chain.until_scored()
    again.until_scored()
    assert slurm.job(urgent, "JobState") == "COMPLETED"
    for number in (requeued, preempted, lost):
        assert int(slurm.job(chain.element(number), "Restarts")) >= 1
    assert "4 done" in chain.status()
    assert chain.results() == results(plain())


def test_fifty_trainings_are_listed_and_what_lacks_is_named(chain, slurm):
    lines = slurm.call(str(chain.tunet), "status", str(chain.run.folder)).splitlines()
    assert [int(line.split()[0]) for line in lines[:50]] == list(range(50))
    assert lines[50:] == [
        "46 missing, 4 done",
        "To go on, submit again with: --array=0-1,3,5-11,13,15-49",
    ]
    assert "46 of 50 trainings are not complete" in chain.log("score")


def test_all_that_worked_on_the_run_is_on_record(chain):
    made = load_json(chain.run.folder / "provenance.json")
    commands = {f"tunet train {chain.name} --task {number}" for number in NUMBERS}
    assert commands <= set(made["commands"])
    notes = [load_json(path) for path in (chain.run.folder / "times").iterdir()]
    starts = [note for note in notes if note["step"] == "train"]
    assert len(starts) >= 3 + 4 + 3  # without a GPU; with one thread each; started again
    assert made["wall_time_s"]["train"] > 0


def test_a_time_limit_in_preparation_and_in_training_changes_no_byte(plain, limited, slurm):
    limited.until_scored()
    assert int(slurm.job(limited.jobs["prepare"], "Restarts")) >= 1
    assert int(slurm.job(limited.element(2), "Restarts")) >= 1
    assert limited.results() == results(plain())
