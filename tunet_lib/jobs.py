"""Many trainings side by side, each in a process of its own.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tunet_lib import worker
from tunet_lib.allowance import gpus, processors, thread_limits
from tunet_lib.files import noting
from tunet_lib.runs import Run, Task

OnPoll = Callable[[list[Task]], Any]

# Unlike with -m, the user's working folder is not searched, where a keras.py may lie; and of two
# libraries it is the parent's.
BOOT = (
    "import sys; path = [*filter(None, sys.path), {library!r}]; "
    "sys.path[:] = path[::-1]; import tunet_lib; sys.path[:] = path; "
    "from {module} import main; main(sys.argv[1:])"
)


def train_tasks(
    run: Run, tasks: Iterable[Task], jobs: int = 1, *, on_poll: OnPoll | None = None
) -> dict[Task, str]:
    """Train many, each in a process of its own, `jobs` at a time.

    A process of its own gives its memory back, and its crash stops no other. Where there are
    several GPUs, each has one of its own, as long as they last.

    Parameters
    ----------
    run, tasks
        What to train; those that are complete are left as they are.
    jobs
        How many at a time; the cores are shared out among them. Sums, and with them the
        weights' last bits, may depend on it.
    on_poll
        Called about once a second with the tasks under way.

    Returns
    -------
    dict
        Task → reason, for those that failed.
    """
    tasks = list(tasks)
    jobs = max(1, min(jobs, len(tasks)))
    waiting = [task for task in tasks if not run.model_folder(task).is_trained]
    active: dict[Task, subprocess.Popen[bytes]] = {}
    failures: dict[Task, str] = {}
    threads = max(1, processors() // jobs)
    cards: list[str | None] = [*gpus()]
    free = (cards or [None]) * jobs
    card: dict[Task, str | None] = {}
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                task = waiting.pop(0)
                with noting(failures, task):
                    active[task] = start_worker(run, task, threads, card=free[0])
                    card[task] = free.pop(0)
            time.sleep(1)
            if on_poll is not None:
                on_poll(list(active))
            for task, process in list(active.items()):
                if process.poll() is not None:
                    if process.returncode:
                        failures[task] = failure_reason(run, task, process.returncode)
                    free.insert(0, card[task])
                    del active[task]
    finally:
        for process in active.values():
            process.terminate()
            process.wait()
    return failures


def start_worker(
    run: Run, task: Task, threads: int, *, card: str | None = None
) -> subprocess.Popen[bytes]:
    """Start the process that trains one task, and write what it prints to the task's log.

    Parameters
    ----------
    run, task
        What to train.
    threads
        How many it may compute with.
    card
        The one GPU that it may see, as in ``CUDA_VISIBLE_DEVICES``; without it, all.
    """
    name, fold = task
    limits = {**thread_limits(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if card is not None:
        limits["CUDA_VISIBLE_DEVICES"] = card
    library = str(Path(worker.__file__).resolve().parents[1])
    boot = BOOT.format(library=library, module=worker.__name__)
    log = run.model_folder(task).log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", boot, str(run.folder), name, str(fold)],
            env={**os.environ, **limits},
            stdin=subprocess.PIPE,  # nothing comes, and its end is this process's end
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def failure_reason(run: Run, task: Task, returncode: int) -> str:
    """Say why a training failed: the signal that killed it, or the last error in its log."""
    if returncode < 0:
        return f"its process was killed by signal {-returncode}; was there enough memory?"
    log = run.model_folder(task).log
    lines: list[str] = []
    with contextlib.suppress(OSError):  # its folder was removed: no reason to end the others
        lines = log.read_text(errors="replace").splitlines()
    # A traceback ends with "ValueError: …", but more lines may follow that one.
    errors = [
        line.removeprefix("Error: ")
        for line in lines
        if re.match(r"(Error|[\w.]+(Error|Exception))\b", line)
    ]
    return f"{errors[-1] if errors else f'its process ended with status {returncode}'} (see {log})"
