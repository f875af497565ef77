"""A run folder: one configuration, one data folder, the folds, and the trained networks.

It holds ``config.json``, ``run.json`` (the data folder and the folds), ``prepared/`` and
``models/fold_0/tunet/…``; `scoring` adds ``scores/``, ``scores.csv`` and ``table_1.csv``,
`provenance` ``times/`` and ``provenance.json``. Whatever is there is kept, so a run that
was cut short goes on.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.config import LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.folds import split_folds
from tunet_lib.layouts import find_data
from tunet_lib.model_folder import ModelFolder
from tunet_lib.preprocess import PreparedCase, load_prepared, prepare_cases

Task = tuple[str, int]  # the name of a variant, and a fold
OnCase = Callable[[str], Any]


@dataclass(frozen=True)
class Run:
    """One experiment on disk: a configuration, a data folder, and what came of them."""

    folder: Path
    config: Config
    data: Path
    folds: list[list[str]]
    cyst_as_kidney: bool = False  # what its label maps call 3

    @property
    def prepared(self) -> Path:
        """Where the prepared cases are."""
        return self.folder / "prepared"

    def model_folder(self, task: Task) -> ModelFolder:
        """Where one training and its weights are."""
        variant, fold = task
        return ModelFolder(self.folder / "models" / f"fold_{fold}" / variant)

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


def prepare_run(
    data: str | Path,
    folder: str | Path,
    config: Config,
    *,
    cyst_as_kidney: bool = False,
    workers: int = 1,
    on_case: OnCase | None = None,
) -> tuple[Run, dict[str, str]]:
    """Start a run, or go on with one: prepare every case and deal the cases into folds.

    Parameters
    ----------
    data
        A folder in a layout that `find_data` knows.
    folder
        The run folder.
    config
        Must be the one that the folder was started with.
    cyst_as_kidney
        Whether label maps may hold 3, cyst, which counts as kidney.
    workers
        Processes.
    on_case
        Called with the case_id after each case.

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
    cases = find_data(data, cyst_as_kidney=cyst_as_kidney).cases
    config.save(folder / "config.json")
    prepared, failures = prepare_cases(
        cases, folder / "prepared", config, workers=workers, on_case=on_case
    )
    for case in prepared:
        if not case.has_label:
            failures[case.case_id] = "has no segmentation.nii.gz; training needs a label map"
    case_ids = [case.case_id for case in prepared if case.has_label]
    run = Run(folder, config, data, _deal(data, case_ids, config, failures), cyst_as_kidney)
    if has_models and run != open_run(folder):
        raise DataError(f"{other_data}. {_listing(failures)}".strip())
    start = {"data": str(data), "folds": run.folds, "cyst_as_kidney": cyst_as_kidney}
    save_json(folder / "run.json", start)
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
        cyst_as_kidney = bool(values.get("cyst_as_kidney", False))
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'run.json'}: is damaged; prepare the run again") from error
    return Run(folder, Config.load(folder / "config.json"), data, folds, cyst_as_kidney)


def _deal(
    data: Path, case_ids: list[str], config: Config, failures: dict[str, str]
) -> list[list[str]]:
    """Deal the cases into folds; where they are too few, say as well why others are missing."""
    if not case_ids:
        raise DataError(f"{data}: no case could be prepared; {_listing(failures)}")
    try:
        return split_folds(case_ids, config.folds, config.seed)
    except DataError as error:
        raise DataError(f"{data}: {error}. {_listing(failures)}".strip()) from error


def _listing(failures: dict[str, str]) -> str:
    return "; ".join(f"{case_id}: {reason}" for case_id, reason in failures.items())
