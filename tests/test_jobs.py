"""Trainings side by side, each a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scans import scan_config

from tunet_lib import jobs
from tunet_lib.jobs import train_tasks
from tunet_lib.runs import Run


@pytest.fixture
def run(tmp_path):
    """Nothing of a run but its folder: what is trained here looks at no case."""
    return Run(tmp_path, scan_config(), Path("data"), [["case_00000"], ["case_00001"]])


@pytest.fixture
def processes(monkeypatch):
    """Let each training be a short script, chosen by its fold."""
    scripts = {}
    started = []

    def start(run, task, threads):
        started.append((task, threads))
        folder = run.model_folder(task)
        folder.path.mkdir(parents=True, exist_ok=True)
        code = scripts.get(task[1], "open('model.weights.h5', 'w')")
        with folder.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code], cwd=folder.path, stdout=log, stderr=subprocess.STDOUT
            )

    monkeypatch.setattr(jobs, "_start", start)
    sleep = jobs.time.sleep
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: sleep(seconds / 20))
    return scripts, started


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('the loss is nan')", "ValueError: the loss is nan"),
        ("print('Error: a.h5: is damaged'); exit(1)", "a.h5: is damaged"),
        ("print('KeyError: x\\n  [[{{node}}]]'); exit(1)", "KeyError: x"),
        ("exit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", f"signal {signal.SIGKILL:d}"),
    ],
)
def test_a_failed_training_is_reported_and_the_others_go_on(run, processes, code, reason):
    processes[0][0] = code
    polled = []
    failures = train_tasks(run, run.tasks(["lnet"]), jobs=2, on_poll=polled.append)
    assert list(failures) == [("lnet", 0)]
    assert reason in failures[("lnet", 0)]
    assert "Traceback" not in failures[("lnet", 0)]
    assert run.model_folder(("lnet", 1)).is_trained
    assert polled


def test_complete_trainings_are_not_started_and_the_cores_are_shared(run, processes, monkeypatch):
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 8)
    tasks = run.tasks(["lnet", "tunet"])
    assert train_tasks(run, tasks[:1], jobs=4) == {}
    assert train_tasks(run, tasks, jobs=4) == {}
    assert processes[1] == [(tasks[0], 8), *((task, 2) for task in tasks[1:])]


def test_trainings_end_with_the_one_who_waits_for_them(run, processes):
    processes[0][0] = "import time; time.sleep(60)"

    def interrupt(active):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tasks(run, run.tasks(["lnet"], [0]), on_poll=interrupt)
    assert not run.model_folder(("lnet", 0)).is_trained


def test_a_process_is_given_its_task_its_parent_and_its_share_of_the_cores(run, monkeypatch):
    started = {}

    def popen(command, env, stdout, stderr):
        started.update(command=command, env=env, log=Path(stdout.name))

    monkeypatch.setattr(jobs.subprocess, "Popen", popen)
    monkeypatch.setattr(jobs.os, "getpid", lambda: 1234)
    jobs._start(run, ("tunet", 1), 3)
    module = [sys.executable, "-m", "tunet_lib.worker"]
    assert started["command"] == [*module, str(run.folder), "tunet", "1", "1234"]
    threads = {started["env"][name] for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}
    assert threads == {"3"}
    assert started["log"] == run.model_folder(("tunet", 1)).log
