"""Where a result comes from: what was scored, commands, commits, machine, wall time of a run.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunet_lib.environment import git_state, machine, versions
from tunet_lib.evaluation import read_scores
from tunet_lib.files import load_json, save_json
from tunet_lib.runs import Run, Task

TIMES_NAME = "times.json"
PROVENANCE_NAME = "provenance.json"


@contextmanager
def timed(folder: str | Path, step: str) -> Iterator[None]:
    """Add the wall time of a block, and the command, to the run's ``times.json``.

    An interrupted block counts as well.

    Parameters
    ----------
    folder
        The run folder; nothing is written if the block did not make it one.
    step
        Such as ``"prepare"``.
    """
    start_s = time.monotonic()
    try:
        yield
    finally:
        if (Path(folder) / "run.json").exists():
            times_s, commands = _times(Path(folder))
            times_s[step] = round(times_s.get(step, 0.0) + time.monotonic() - start_s, 1)
            commands = list(dict.fromkeys([*commands, _command()]))
            save_json(Path(folder) / TIMES_NAME, {**times_s, "commands": commands})


def write_provenance(run: Run) -> dict[str, Any]:
    """Write ``provenance.json`` into the run folder, atomically.

    Returns
    -------
    dict
        What was written. ``cases`` and ``folds`` are those scored, ``trained`` the variants
        trained in each fold, ``trained_at`` the commits that they were trained at, and
        ``git`` the state now. ``commands`` are all that worked on the folder. ``wall_time_s``
        are the steps as measured, over all sessions; ``training_time_s`` sums the epochs of
        each variant over the folds, so trainings that ran side by side both count.

    Raises
    ------
    DataError
        The folder cannot be written, or its scores or a training's history are damaged.
    """
    scores = read_scores(run.folder / "scores.csv")
    training_time_s = _training_times(run)
    # Without a measured time the trainings may be older than the folder's times.json.
    wall_time_s = {"prepare": 0.0, "train": sum(training_time_s.values()), "evaluate": 0.0}
    measured_s, commands = _times(run.folder)
    wall_time_s |= measured_s
    provenance = {
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commands": commands,
        "seed": run.config.seed,
        "cases": len({row["case_id"] for row in scores}),
        "folds": sorted({row["fold"] for row in scores}),
        "trained": {
            f"fold_{fold}": names
            for fold in range(len(run.folds))
            if (names := [name for name, _ in _trained(run, [fold])])
        },
        "trained_at": _trained_at(run),
        "total_time_s": round(sum(wall_time_s.values()), 1),
        "wall_time_s": wall_time_s,
        "training_time_s": training_time_s,
        "machine": machine(),
        "versions": versions(),
        "git": git_state(),
        "config": dataclasses.asdict(run.config),
    }
    save_json(run.folder / PROVENANCE_NAME, provenance)
    return provenance


def _times(folder: Path) -> tuple[dict[str, float], list[str]]:
    values = load_json(folder / TIMES_NAME) if (folder / TIMES_NAME).exists() else {}
    commands = values.pop("commands", [])
    return values, commands


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
