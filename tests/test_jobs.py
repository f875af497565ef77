"""Trainings side by side, each a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from scans import scan_config

from tunet_lib import jobs
from tunet_lib.jobs import failure_reason, train_tasks
from tunet_lib.runs import Run


@pytest.fixture
def run(tmp_path):
    """Nothing of a run but its folder: what is trained here looks at no case."""
    return Run(tmp_path, scan_config(), Path("data"), [["case_00000"], ["case_00001"]])


@pytest.fixture
def processes(monkeypatch):
    """Let each training be a short script, chosen by its fold."""
    scripts = {}
    started, opened = [], []

    def start(run, task, threads, card):
        started.append((task, threads) if card is None else (task, threads, card))
        folder = run.model_folder(task)
        folder.path.mkdir(parents=True, exist_ok=True)
        code = scripts.get(task[1], "open('model.weights.h5', 'w')")
        with folder.log.open("w") as log:
            opened.append(
                subprocess.Popen(
                    [sys.executable, "-c", code],
                    cwd=folder.path,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return opened[-1]

    monkeypatch.setattr(jobs, "start_worker", start)
    sleep = jobs.time.sleep
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: sleep(seconds / 20))
    yield scripts, started, opened
    for process in opened:  # whatever the test has found
        process.kill()
        process.wait()


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


def test_a_folder_that_cannot_be_written_is_one_trainings_failure(run, monkeypatch):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    (run.folder / "models").mkdir()
    (run.folder / "models" / "fold_0").write_text("a file in the place of a folder")
    failures = train_tasks(run, run.tasks(["lnet"], [0]))
    assert list(failures) == [("lnet", 0)]
    assert "fold_0" in failures[("lnet", 0)]


def test_complete_trainings_are_not_started_and_the_cores_are_shared(run, processes, monkeypatch):
    monkeypatch.setattr(jobs, "processors", lambda: 8)
    tasks = run.tasks(["lnet", "tunet"])
    assert train_tasks(run, tasks[:1], jobs=4) == {}
    assert train_tasks(run, tasks, jobs=4) == {}
    assert processes[1] == [(tasks[0], 8), *((task, 2) for task in tasks[1:])]


def test_each_training_has_a_gpu_of_its_own(run, processes, monkeypatch):
    monkeypatch.setattr(jobs, "gpus", lambda: ["2", "5"])
    processes[0][0] = "import time; time.sleep(0.4); open('model.weights.h5', 'w')"
    tasks = run.tasks(["lnet", "tunet"])
    assert train_tasks(run, tasks, jobs=2) == {}
    cards = {task: card for task, _, card in processes[1]}
    assert (cards[tasks[0]], cards[tasks[1]]) == ("2", "5")
    assert set(cards) == set(tasks)
    assert set(cards.values()) == {"2", "5"}


def test_trainings_end_with_the_one_who_waits_for_them(run, processes):
    processes[0][0] = "import time; time.sleep(60)"

    def interrupt(active):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tasks(run, run.tasks(["lnet", "tunet"], [0]), jobs=2, on_poll=interrupt)
    statuses = [process.poll() for process in processes[2]]  # None: it still runs
    assert statuses == [-signal.SIGTERM] * 2


def test_a_process_is_given_its_task_and_its_share_of_the_cores(run, monkeypatch):
    started = {}

    def popen(command, env, stdin, stdout, stderr):
        started.update(command=command, env=env, stdin=stdin, log=Path(stdout.name))

    monkeypatch.setattr(jobs.subprocess, "Popen", popen)
    jobs.start_worker(run, ("tunet", 1), 3, card="5")
    python, option, boot, *arguments = started["command"]
    assert (python, option) == (sys.executable, "-c")
    assert "from tunet_lib.worker import main; main(sys.argv[1:])" in boot
    assert arguments == [str(run.folder), "tunet", "1"]
    assert started["stdin"] == subprocess.PIPE
    threads = {started["env"][name] for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}
    assert threads == {"3"}
    assert started["env"]["CUDA_VISIBLE_DEVICES"] == "5"
    assert started["log"] == run.model_folder(("tunet", 1)).log


@pytest.mark.slow
def test_the_working_folder_of_the_user_is_not_searched_for_modules(run, tmp_path, monkeypatch):
    """keras-team/keras#3165: a keras.py, or a copy.py, beside the user."""
    for name in ("keras", "copy", "json", "tunet_lib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    process = jobs.start_worker(run, ("tunet", 1), 1)
    assert process.wait(60) == 1
    log = run.model_folder(("tunet", 1)).log.read_text()
    assert log.startswith(f"Error: {run.folder}: is no run folder")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_ends_with_its_parent_however_that_ends(tmp_path, how):
    """The parent alone is killed, and no child trains on beside its successor's."""
    code = f"""
import time, sys
from pathlib import Path
from scans import scan_config
from tunet_lib import jobs, worker
from tunet_lib.runs import Run
worker.__name__ = "hanging"
run = Run(Path({str(tmp_path)!r}), scan_config(), Path("data"), [])
process = jobs.start_worker(run, ("tunet", 0), 1)
print(process.pid, flush=True)
time.sleep(60)
"""
    (tmp_path / "hanging.py").write_text(
        "import sys, time\nfrom tunet_lib import worker\n"
        "worker.open_run = lambda folder: (print('here', flush=True), time.sleep(60))\n"
        "main = worker.main\n"
    )
    tests = Path(__file__).parent
    path = os.pathsep.join(map(str, (tmp_path, tests, tests.parent)))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    child = psutil.Process(int(parent.stdout.readline()))
    log = tmp_path / "models" / "fold_0" / "tunet" / "training.log"
    wait_until(lambda: "here" in log.read_text())
    parent.send_signal(how)
    parent.wait(10)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait_until(is_so, seconds=30):
    end_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_folder_that_was_removed_meanwhile_ends_its_own_training_only(run):
    assert "ended with status 1" in failure_reason(run, ("tunet", 0), 1)
