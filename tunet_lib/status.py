"""Where each training of a run stands, and what has to be started again.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunet_lib.files import DataError
from tunet_lib.owner import Owner, read_owner
from tunet_lib.process import this_process
from tunet_lib.runs import Run, Task

State = Literal["done", "running", "queued", "stopped", "broken", "missing"]
REPAIRED: tuple[State, ...] = ("stopped", "missing")  # by going on; what is broken has to go first
QUIET_S = 600  # a training of another machine that saved nothing for so long is taken for dead


@dataclass(frozen=True)
class Standing:
    """Where one training stands.

    Attributes
    ----------
    number
        Its place in the run's list of trainings: its number in a job array.
    task
        The name of the variant, and the fold.
    state
        Done; running; queued in Slurm; stopped after some epochs; broken, so that it cannot go
        on; or missing, which is not begun.
    epochs
        Done so far.
    where
        Host and job of what runs, and for how long it has saved nothing if that is long; or what is
        wrong with what is broken.
    left_s
        At most so many seconds of training remain, by the epochs so far; None if unknown.
    """

    number: int
    task: Task
    state: State
    epochs: int = 0
    where: str = ""
    left_s: float | None = None


@dataclass(frozen=True)
class Element:
    """One element of a job array: its job, whether it runs, and on which node."""

    job: str
    is_running: bool
    node: str


@dataclass(frozen=True)
class Queue:
    """What Slurm's queue holds: a run's trainings by their numbers, and all jobs that run."""

    elements: Mapping[int, Element]
    running: frozenset[str]


def standings(
    run: Run, tasks: Iterable[Task] | None = None, *, queue: Queue | None = None
) -> list[Standing]:
    """Tell where trainings stand.

    Parameters
    ----------
    run
        The run, from any machine that sees its folder.
    tasks
        Which; default: all. Their numbers are those in the list of all.
    queue
        What `slurm_queue` gave; None if there is no Slurm here.
    """
    chosen = run.tasks() if tasks is None else set(tasks)
    return [
        _standing(run, number, task, queue)
        for number, task in enumerate(run.tasks())
        if task in chosen
    ]


def array_of(numbers: Iterable[int]) -> str:
    """Write numbers as the option that makes a job array of them.

    >>> array_of([9, 3, 7, 8, 12])
    '--array=3,7-9,12'
    """
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = [f"{first}-{last}" if first < last else f"{first}" for first, last in spans]
    return f"--array={','.join(parts)}"


def untrained(run: Run) -> str:
    """Say which trainings are not complete, and how they can be; empty if all are."""
    tasks = run.tasks()
    left = [task for task in tasks if not run.model_folder(task).is_trained]
    if not left:
        return ""
    by_folds: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(name for name, _ in left):
        folds = tuple(fold for variant, fold in left if variant == name)
        by_folds.setdefault(folds, []).append(name)
    named = "; ".join(
        f"{', '.join(names)} (fold {', '.join(map(str, folds))})"
        for folds, names in by_folds.items()
    )
    return (
        f"{len(left)} of {len(tasks)} trainings are not complete: {named}. Train them with "
        f"`tunet train`, or on a cluster submit {array_of(map(tasks.index, left))}"
    )


def slurm_queue(run: Run) -> Queue | None:
    """Ask Slurm what it holds of a run's trainings, whoever submitted them.

    Jobs are told by their comment, which ``cluster/submit`` gives them.

    Returns
    -------
    Queue or None
        None if there is no Slurm here, or it does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--format=%A|%K|%T|%N|%k"]
    try:
        done = subprocess.run(  # the comments are everybody's, in whatever encoding
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_queue(done.stdout, run.folder)


def read_queue(text: str, folder: Path) -> Queue:
    """Read a list of squeue, with the columns that `slurm_queue` asks for."""
    elements: dict[int, Element] = {}
    running = set()
    for line in text.splitlines():
        job, number, state, node, comment = [*line.split("|", 4), *[""] * 5][:5]
        is_running = state in ("RUNNING", "COMPLETING")
        if is_running:
            running.add(job)
        # Submitted twice, a training may wait in one array and run in the other.
        is_ours = comment == comment_of(folder) and number.isdecimal()
        if is_ours and (is_running or int(number) not in elements):
            elements[int(number)] = Element(job, is_running, node)
    return Queue(elements, frozenset(running))


def comment_of(folder: Path) -> str:
    """Give the comment that jobs of a run have in Slurm."""
    return f"tunet train {folder.resolve()}"


def _standing(run: Run, number: int, task: Task, queue: Queue | None) -> Standing:
    folder = run.model_folder(task)
    epochs = 0
    try:
        history = folder.epochs_done()
        epochs = len(history)
        folder.check_files(run.config)
        if folder.is_trained:
            return Standing(number, task, "done", epochs)
        owner = read_owner(folder.path)
    except DataError as error:
        return Standing(number, task, "broken", epochs, str(error))
    times_s = [log["time_s"] for log in history]
    left_s = (run.config.epochs - epochs) * statistics.median(times_s) if times_s else None
    patience_s = max([QUIET_S, *(3 * time_s for time_s in times_s)])
    element = queue.elements.get(number) if queue else None
    if element is not None and not element.is_running:
        return Standing(number, task, "queued", epochs, f"job {element.job}", left_s)
    if element is not None:
        where = f"{element.node}, job {element.job}"
    elif owner is not None and _lives(owner, queue, patience_s):
        where = str(owner)
    else:
        return Standing(number, task, "stopped" if epochs else "missing", epochs, "", left_s)
    # How long a start takes, and its first epoch, is not known.
    is_begun = owner is not None and (element is None or owner.slurm_job == element.job)
    if times_s and is_begun and (quiet_s := _quiet_s(folder.path)) > patience_s:
        where += f", and has saved nothing for {quiet_s / 60:.0f} minutes: it may stand still"
        left_s = None
    return Standing(number, task, "running", epochs, where, left_s)


def _lives(owner: Owner, queue: Queue | None, patience_s: float) -> bool:
    """Tell whether a start that wrote its name down still trains."""
    if owner.slurm_job and queue is not None:
        return owner.slurm_job in queue.running
    if owner.process.host == this_process().host:
        return not owner.process.is_dead()
    return _quiet_s(owner.folder) < patience_s  # of another machine only its files can tell


def _quiet_s(folder: Path) -> float:
    """Give the seconds since a file of a folder was last written."""
    last = 0.0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was being written
            last = max(last, path.stat().st_mtime)
    return time.time() - last
