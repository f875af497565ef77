"""Where a result comes from: what was scored, commands, commits, machine, wall time of a run.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunet_lib.environment import git_state, machine, versions
from tunet_lib.evaluation import read_scores
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.runs import Run, Task

TIMES_NAME = "times"
PROVENANCE_NAME = "provenance.json"


@contextlib.contextmanager
def timed(folder: str | Path, step: str) -> Iterator[None]:
    """Note the wall time of a block, the command and the machine, in a file of their own.

    Many processes work on one run folder, so none of them writes into another's file: each
    block has its own under ``times/``. An interrupted block counts as well, and one that is
    killed leaves the file that it began with.

    Parameters
    ----------
    folder
        The run folder; nothing is written if the block did not make it one.
    step
        Such as ``"prepare"``.
    """
    folder, start_s = Path(folder), time.monotonic()
    name = f"{step}-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.json"
    note = {"step": step, "time_s": 0.0, "started": _now(), "command": _command()}
    note["machine"] = machine()

    def write() -> None:
        # Where it cannot be written the block itself says so, and better.
        with contextlib.suppress(DataError, OSError):
            if (folder / "run.json").exists():
                save_json(folder / TIMES_NAME / name, note)

    write()
    try:
        yield
    finally:
        note["time_s"] = round(time.monotonic() - start_s, 1)
        write()


def write_provenance(run: Run) -> dict[str, Any]:
    """Write ``provenance.json`` into the run folder, atomically.

    Returns
    -------
    dict
        What was written. ``cases`` and ``folds`` are those scored, ``trained`` the variants
        trained in each fold, ``trained_at`` the commits that they were trained at, ``threads``
        how many their sums were shared out among, and ``git`` the state now. ``commands`` are
        all that worked on the folder, and ``machines`` those that they ran on. ``wall_time_s``
        are the steps as measured, summed over all processes that were started for them;
        ``training_time_s`` sums the epochs of each variant over the folds. So what ran side by
        side counts as if it had run in a row.

    Raises
    ------
    DataError
        The folder cannot be written, or its scores or a training's history are damaged.
    """
    scores = read_scores(run.folder / "scores.csv")
    training_time_s = _training_times(run)
    # Without a measured time the trainings may be older than the folder's times.json.
    wall_time_s = {"prepare": 0.0, "train": sum(training_time_s.values()), "evaluate": 0.0}
    notes = _notes(run.folder)
    wall_time_s |= {
        step: round(sum(note["time_s"] for note in notes if note["step"] == step), 1)
        for step in dict.fromkeys(note["step"] for note in notes)
    }
    provenance = {
        "finished": _now(),
        "commands": _each_once(note["command"] for note in notes),
        "seed": run.config.seed,
        "cases": len({row["case_id"] for row in scores}),
        "folds": sorted({row["fold"] for row in scores}),
        "trained": {
            f"fold_{fold}": names
            for fold in range(len(run.folds))
            if (names := [name for name, _ in _trained(run, [fold])])
        },
        "trained_at": _trained_at(run),
        "threads": _threads(run),
        "total_time_s": round(sum(wall_time_s.values()), 1),
        "wall_time_s": wall_time_s,
        "training_time_s": training_time_s,
        "machine": machine(),
        "machines": _each_once(note.get("machine") for note in notes),
        "versions": versions(),
        "git": git_state(),
        "config": dataclasses.asdict(run.config),
    }
    save_json(run.folder / PROVENANCE_NAME, provenance)
    return provenance


def _notes(folder: Path) -> list[dict[str, Any]]:
    """Read what `timed` noted, the earliest first; also from the one file of earlier versions."""
    # What begins with a dot is being written.
    notes = [_note(path) for path in (folder / TIMES_NAME).glob("[!.]*.json")]
    if (path := folder / "times.json").exists():
        values = load_json(path)
        if not isinstance(values, dict):
            raise DataError(f"{path}: is damaged; remove it")
        commands = values.pop("commands", [])
        earlier = [{"step": step, "time_s": time_s} for step, time_s in values.items()]
        earlier += [{"step": "train", "time_s": 0.0, "command": text} for text in commands]
        notes += [_checked(path, {"started": "", "command": None} | note) for note in earlier]
    return sorted(notes, key=lambda note: note["started"])


def _note(path: Path) -> dict[str, Any]:
    return _checked(path, load_json(path))


def _checked(path: Path, note: Any) -> dict[str, Any]:
    try:
        texts = note["step"], note["started"], note["command"] or ""
        if all(isinstance(text, str) for text in texts) and 0 <= note["time_s"] < math.inf:
            return note
    except (KeyError, TypeError):
        pass
    raise DataError(f"{path}: is no note of a step's time; remove it")


def _each_once(values: Iterable[Any]) -> list[Any]:
    once: list[Any] = []
    for value in values:
        if value is not None and value not in once:
            once.append(value)
    return once


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _trained(run: Run, folds: list[int] | None = None) -> list[Task]:
    return [task for task in run.tasks(folds=folds) if run.model_folder(task).is_trained]


def _trained_at(run: Run) -> list[str]:
    commits = set()
    for task in _trained(run):
        for made in run.model_folder(task).trained_with() or [{"git": None}]:
            git = made["git"]
            changed = ", with changes" if git and git["dirty"] else ""
            commits.add(f"{git['commit']}{changed}" if git else "unknown")
    return sorted(commits)


def _threads(run: Run) -> list[int]:
    made = [made for task in _trained(run) for made in run.model_folder(task).trained_with()]
    return sorted({state["threads"] for state in made if "threads" in state})


def _training_times(run: Run) -> dict[str, float]:
    totals: dict[str, float] = {}
    for task in run.tasks():
        if history := run.model_folder(task).history():
            time_s = sum(log["time_s"] for log in history)
            totals[task[0]] = round(totals.get(task[0], 0.0) + time_s, 1)
    return totals


def _command() -> str:
    """Give the command as it was typed, without where on the machine its folders are."""
    arguments = [Path(text).name if os.path.isabs(text) else text for text in sys.argv[1:]]
    return shlex.join(["tunet", *arguments])
