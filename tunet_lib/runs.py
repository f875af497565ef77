"""A run folder: one configuration, one data folder, the folds, and the trained networks.

It holds ``config.json``, ``run.json`` (the data folder and the folds), ``prepared/`` and
``models/fold_0/tunet/…``; `pipeline` adds ``scores/``, ``scores.csv`` and ``table_1.csv``,
`provenance` ``times.json`` and ``provenance.json``. Whatever is there is kept, so a run that
was cut short goes on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.config import LOCALIZERS, VARIANTS, Config
from tunet_lib.environment import git_state, versions
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.folds import split_cases, split_folds
from tunet_lib.kits19 import find_cases
from tunet_lib.preprocess import PreparedCase, load_prepared, prepare_cases

LOG_NAME = "training.log"
CASES_NAME = "training_cases.json"
TRAINED_WITH_NAME = "trained_with.json"

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
        """List the trainings, fold by fold, all of them or those that are named.

        Raises
        ------
        DataError
            A variant or a fold does not exist.
        """
        names = variants or [*LOCALIZERS, *(name for name in VARIANTS if name not in LOCALIZERS)]
        numbers = folds or range(len(self.folds))
        if unknown := set(names) - set(VARIANTS):
            raise DataError(f"unknown: {', '.join(sorted(unknown))}; there are {[*VARIANTS]}")
        if unknown_folds := set(numbers) - set(range(len(self.folds))):
            wrong = ", ".join(map(str, sorted(unknown_folds)))
            raise DataError(f"there are folds 0 to {len(self.folds) - 1}, not {wrong}")
        return list(dict.fromkeys((name, fold) for fold in numbers for name in names))

    def trained(self, task: Task) -> bool:
        """Tell whether a training is complete."""
        return (self.model_folder(*task) / "model.weights.h5").exists()

    def cases(self) -> list[PreparedCase]:
        """Open the prepared cases of all folds; what else is prepared is no part of the run.

        Raises
        ------
        DataError
            One is missing or broken.
        """
        members = {case_id for fold in self.folds for case_id in fold}
        prepared = load_prepared(self.prepared, self.config)
        cases = [case for case in prepared if case.case_id in members]
        if missing := members - {case.case_id for case in cases}:
            raise DataError(f"{self.prepared}: lacks {', '.join(sorted(missing))}; prepare again")
        return cases

    def seen(self, task: Task) -> list[str]:
        """List the cases that a model was trained on, as its training wrote them down."""
        return load_json(self.model_folder(*task) / CASES_NAME)

    def trained_with(self, task: Task) -> list[dict[str, Any]]:
        """List the states of the code (git, versions) that a model was trained with.

        More than one if it was gone on with later; none if its training noted none.
        """
        path = self.model_folder(*task) / TRAINED_WITH_NAME
        return load_json(path) if path.exists() else []


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
        The folder holds a run with another configuration, or has models that were trained
        on other cases; or no case at all could be prepared.
    """
    folder, data = Path(folder), Path(data).resolve()
    if (folder / "config.json").exists():
        wrong = Config.load(folder / "config.json").differences(config)
        if wrong:
            raise DataError(
                f"{folder}: holds a run with another configuration ({', '.join(wrong)} differ); "
                "choose another folder"
            )
    other_data = (
        f"{folder}: has models that were trained on other cases, or on {data} under another name; "
        "choose another folder"
    )
    has_models = (folder / "models").exists()
    # Before anything that they were trained on is prepared anew.
    if has_models and open_run(folder).data != data:
        raise DataError(other_data)
    cases = find_cases(data)
    config.save(folder / "config.json")
    prepared, failures = prepare_cases(cases, folder / "prepared", config, on_case, workers)
    for case in prepared:
        if not case.has_label:
            failures[case.case_id] = "has no segmentation.nii.gz; training and scoring need one"
    case_ids = [case.case_id for case in prepared if case.has_label]
    if not case_ids:
        raise DataError(f"{data}: no case could be prepared; {_listing(failures)}")
    folds = split_folds(case_ids, config.folds, config.seed)
    run = Run(folder, config, data, folds)
    if has_models and run != open_run(folder):
        raise DataError(f"{other_data}. {_listing(failures)}".strip())
    save_json(folder / "run.json", {"data": str(data), "folds": folds})
    return run, failures


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
    training, validation = split_cases(run.cases(), run.folds, fold, run.config)
    case_ids = [case.case_id for case in training]
    record = run.model_folder(*task) / CASES_NAME
    if record.exists() and load_json(record) != case_ids:
        raise DataError(f"{record.parent}: was trained on other cases; remove it to train again")
    save_json(record, case_ids)
    _note_code(run, task)
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

    A process of its own gives its memory back, and its crash stops no other.

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
            process.wait()
    return failures


def epochs_done(run: Run, task: Task) -> int:
    """Count the epochs of a training so far, from its log."""
    try:
        lines = (run.model_folder(*task) / "history.csv").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return max(0, len(lines) - 1)


def _note_code(run: Run, task: Task) -> None:
    # Each training imports the code as it is at that moment, which may differ within a run.
    states, state = run.trained_with(task), {"git": git_state(), "versions": versions()}
    if state not in states and not run.trained(task):
        save_json(run.model_folder(*task) / TRAINED_WITH_NAME, [*states, state])


def _start_training(run: Run, task: Task, threads: int) -> subprocess.Popen[bytes]:
    name, fold = task
    command = [sys.executable, "-m", "tunet_lib.cli", "train", str(run.folder)]
    command += ["--variant", name, "--fold", str(fold), "--here", "--parent", str(os.getpid())]
    limits = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
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
    # A traceback ends with "ValueError: …", but more lines may follow that one.
    errors = [
        line.removeprefix("Error: ")
        for line in log.read_text(errors="replace").splitlines()
        if re.match(r"(Error|[\w.]+(Error|Exception))\b", line)
    ]
    return f"{errors[-1] if errors else f'its process ended with status {returncode}'} (see {log})"


def _listing(failures: dict[str, str]) -> str:
    return "; ".join(f"{case_id}: {reason}" for case_id, reason in failures.items())
