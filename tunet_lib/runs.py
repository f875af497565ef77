"""A run folder: one configuration, one data folder, the folds, and the trained networks.

It holds ``config.json``, ``run.json`` (the data folder and the folds), ``prepared/`` and
``models/fold_0/tunet/…``; `pipeline` adds ``scores/``, ``scores.csv``, ``table_1.csv`` and
``provenance.json``. Whatever is there is kept, so a run that was cut short goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.config import LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.folds import split_cases, split_folds
from tunet_lib.kits19 import find_cases
from tunet_lib.preprocess import load_prepared, prepare_cases

LOG_NAME = "training.log"

Task = tuple[str, int]  # the name of a variant, and a fold
OnCase = Callable[[str], Any]


@dataclass(frozen=True)
class Run:
    """One experiment on disk: a configuration, a data folder, and what came of them."""

    folder: Path
    config: Config
    data: Path
    folds: list[list[str]]

    @property
    def prepared(self) -> Path:
        """Where the prepared cases are."""
        return self.folder / "prepared"

    def model_folder(self, variant: str, fold: int) -> Path:
        """Where the weights of one training are."""
        return self.folder / "models" / f"fold_{fold}" / variant

    def tasks(
        self, variants: Sequence[str] | None = None, folds: Sequence[int] | None = None
    ) -> list[Task]:
        """List the trainings, fold by fold: L-Net first, for all depend on it.

        Raises
        ------
        DataError
            A variant or a fold does not exist.
        """
        names = variants or [*LOCALIZERS, *(name for name in VARIANTS if name not in LOCALIZERS)]
        numbers = range(len(self.folds)) if folds is None else folds
        if unknown := set(names) - set(VARIANTS):
            raise DataError(f"unknown: {', '.join(sorted(unknown))}; there are {[*VARIANTS]}")
        if unknown_folds := set(numbers) - set(range(len(self.folds))):
            raise DataError(f"there are folds 0 to {len(self.folds) - 1}, not {unknown_folds}")
        return [(name, fold) for fold in numbers for name in names]

    def trained(self, task: Task) -> bool:
        """Tell whether a training is complete."""
        return (self.model_folder(*task) / "model.weights.h5").exists()


def prepare_run(
    data: str | Path,
    folder: str | Path,
    config: Config,
    on_case: OnCase | None = None,
    workers: int = 1,
) -> tuple[Run, dict[str, str]]:
    """Start a run, or go on with one: prepare every case and deal the cases into folds.

    Parameters
    ----------
    data
        A folder in KiTS19's layout.
    folder
        The run folder.
    config
        Must be the one that the folder was started with.
    on_case
        Called with the case_id after each case.
    workers
        Processes.

    Returns
    -------
    run, failures
        The run, and case_id → reason of the cases that could not be prepared.

    Raises
    ------
    DataError
        The folder holds a run with another configuration or other cases, or no case at
        all could be prepared.
    """
    folder, data = Path(folder), Path(data).resolve()
    if (folder / "config.json").exists():
        wrong = Config.load(folder / "config.json").differences(config)
        if wrong:
            raise DataError(
                f"{folder}: holds a run with another configuration ({', '.join(wrong)} differ); "
                "choose another folder"
            )
    config.save(folder / "config.json")
    cases = find_cases(data)
    prepared, failures = prepare_cases(cases, folder / "prepared", config, on_case, workers)
    for case in prepared:
        if not case.has_label:
            failures[case.case_id] = "has no segmentation.nii.gz; training and scoring need one"
    case_ids = [case.case_id for case in prepared if case.has_label]
    if not case_ids:
        raise DataError(f"{data}: no case could be prepared; {_listing(failures)}")
    folds = split_folds(case_ids, config.folds, config.seed)
    if (folder / "run.json").exists() and open_run(folder).folds != folds:
        raise DataError(f"{folder}: was started with other cases; choose another folder")
    save_json(folder / "run.json", {"data": str(data), "folds": folds})
    return Run(folder, config, data, folds), failures


def open_run(folder: str | Path) -> Run:
    """Open a run that `prepare_run` started.

    Raises
    ------
    DataError
        There is none, or its files are damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise DataError(f"{folder}: is no run folder; start one with `tunet prepare`")
    values = load_json(folder / "run.json")
    try:
        data, folds = Path(values["data"]), values["folds"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'run.json'}: is damaged; prepare the run again") from error
    return Run(folder, Config.load(folder / "config.json"), data, folds)


def train_task(run: Run, task: Task, on_epoch: Callable[[Any], Any] | None = None) -> None:
    """Train one variant on one fold, in this process."""
    from tunet_lib.training import train  # loads TensorFlow

    name, fold = task
    cases = load_prepared(run.prepared, run.config)
    training, validation = split_cases(cases, run.folds, fold, run.config)
    train(
        VARIANTS[name],
        training,
        validation,
        run.config,
        run.model_folder(name, fold),
        fold=fold,
        on_epoch=on_epoch,
    )


def train_tasks(
    run: Run,
    tasks: Iterable[Task],
    jobs: int = 1,
    on_poll: Callable[[list[Task]], Any] | None = None,
) -> dict[Task, str]:
    """Train many, each in a process of its own, `jobs` at a time.

    A process of its own gives its memory back, and its crash stops no other. Two small
    nets with a core each train faster than one after the other with two cores.

    Parameters
    ----------
    run, tasks
        What to train; those that are complete are left as they are.
    jobs
        How many at a time; the cores are shared out among them.
    on_poll
        Called about once a second with the tasks under way.

    Returns
    -------
    dict
        Task → reason, for those that failed.
    """
    waiting = [task for task in tasks if not run.trained(task)]
    active: dict[Task, subprocess.Popen[bytes]] = {}
    failures: dict[Task, str] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                task = waiting.pop(0)
                active[task] = _start_training(run, task, threads)
            time.sleep(1)
            if on_poll is not None:
                on_poll(list(active))
            for task, process in list(active.items()):
                if process.poll() is not None:
                    if process.returncode:
                        failures[task] = _reason(run, task, process.returncode)
                    del active[task]
    finally:
        for process in active.values():
            process.terminate()
    return failures


def epochs_done(run: Run, task: Task) -> int:
    """Count the epochs of a training so far, from its log."""
    try:
        lines = (run.model_folder(*task) / "history.csv").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return max(0, len(lines) - 1)


def _start_training(run: Run, task: Task, threads: int) -> subprocess.Popen[bytes]:
    name, fold = task
    command = [sys.executable, "-m", "tunet_lib.cli", "train", str(run.folder)]
    command += ["--variant", name, "--fold", str(fold), "--here"]
    limits = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    log = run.model_folder(*task) / LOG_NAME
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        return subprocess.Popen(
            command, env={**os.environ, **limits}, stdout=stream, stderr=subprocess.STDOUT
        )


def _reason(run: Run, task: Task, returncode: int) -> str:
    if returncode < 0:
        return f"its process was killed by signal {-returncode}; was there enough memory?"
    log = run.model_folder(*task) / LOG_NAME
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with status {returncode}"


def _listing(failures: dict[str, str]) -> str:
    return "; ".join(f"{case_id}: {reason}" for case_id, reason in failures.items())
