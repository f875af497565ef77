"""A run folder: one configuration, one data folder, the folds, and the trained networks.

It holds ``config.json``, ``run.json`` (the data folder and the folds), ``left_out.json`` if cases
are left out, ``prepared/`` and ``models/fold_0/tunet/…``; `scoring` adds ``scores/``,
``scores.csv`` and ``table_1.csv``, `provenance` ``times/`` and ``provenance.json``. Whatever is
there is kept, so a run that was cut short goes on.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.config import LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, files_below, is_list_of, load_json, save_json
from tunet_lib.folds import split_folds
from tunet_lib.kits19 import Case, check_case_id
from tunet_lib.layouts import find_data
from tunet_lib.model_folder import ModelFolder
from tunet_lib.origin import CASE_FILE, has_changed
from tunet_lib.preprocess import PreparedCase, load_prepared, prepare_cases

Task = tuple[str, int]  # the name of a variant, and a fold
OnCase = Callable[[str], Any]
NO_LABEL = "has no segmentation.nii.gz; training needs a label map"
LEFT_OUT_NAME = "left_out.json"
LEFT_OUT = "is left out, as was asked for"


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

    @property
    def case_ids(self) -> set[str]:
        """The cases of all folds."""
        return {case_id for fold in self.folds for case_id in fold}

    def check_cases(self, cases: Iterable[Case], cyst_as_kidney: bool) -> None:
        """Make sure that these are the cases that the run was dealt over, wherever they lie now.

        Raises
        ------
        DataError
            Some are new, gone or changed, or cysts are to count for something else.
        """
        found = {case.case_id: case for case in cases}
        wrong = sorted(self.case_ids ^ set(found)) or [
            case_id
            for case_id, case in found.items()
            if has_changed(case, self.config, self.prepared / case_id / CASE_FILE)
        ]
        if wrong:
            raise DataError(
                f"{self.folder}: has models that were trained on other cases (new, gone or "
                f"changed: {', '.join(wrong[:10])}{', …' if wrong[10:] else ''}); choose another "
                f"folder, or bring back what was in {self.data}"
            )
        if cyst_as_kidney != self.cyst_as_kidney:
            way = "with" if self.cyst_as_kidney else "without"
            raise DataError(
                f"{self.folder}: has models that were trained {way} --cyst-as kidney; choose "
                "another folder"
            )

    def sources(self) -> dict[str, Case]:
        """Find the files that the cases were prepared from: case_id → case.

        Raises
        ------
        DataError
            The data folder is not where it was, or cannot be read.
        """
        try:
            found = find_data(self.data, cyst_as_kidney=self.cyst_as_kidney)
        except DataError as error:
            raise DataError(
                f"{error}; if it has moved, run `tunet prepare` with its new place and "
                f"{self.folder}"
            ) from error
        return {case.case_id: case for case in found.cases}

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
        check_tasks(self.config, names, numbers)
        return list(dict.fromkeys((name, fold) for fold in numbers for name in names))

    def cases(self) -> list[PreparedCase]:
        """Open the prepared cases of all folds; what else is prepared is no part of the run.

        Raises
        ------
        DataError
            One is missing or broken.
        """
        cases = load_prepared(self.prepared, self.config, self.case_ids)
        if missing := self.case_ids - {case.case_id for case in cases}:
            raise DataError(f"{self.prepared}: lacks {', '.join(sorted(missing))}; prepare again")
        return cases


def check_tasks(
    config: Config, variants: Iterable[str] | None, folds: Iterable[int] | None
) -> None:
    """Raise a `DataError` if a variant or a fold does not exist."""
    if unknown := set(variants or ()) - set(VARIANTS):
        raise DataError(f"unknown: {', '.join(sorted(unknown))}; there are {[*VARIANTS]}")
    if unknown_folds := set(folds or ()) - set(range(config.folds)):
        wrong = ", ".join(map(str, sorted(unknown_folds)))
        raise DataError(f"there are folds 0 to {config.folds - 1}, not {wrong}")


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

    If a case cannot be prepared there are no folds: whatever kept it out may pass, and the run
    would have to go on without it. Folds that something was trained on are kept.

    Parameters
    ----------
    data
        A folder in a layout that `find_data` knows. It may move, as long as its cases stay what
        they are.
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
    run, unused
        The run, and case_id → reason of the cases that are no part of it.

    Raises
    ------
    DataError
        The folder holds a run with another configuration, or has models that were trained
        on other cases; or a case could not be prepared, or there are too few.
    """
    folder, data = Path(folder), Path(data).resolve()
    check_config(folder, config)
    found = find_data(data, cyst_as_kidney=cyst_as_kidney).cases
    unused = {case.case_id: NO_LABEL for case in found if case.label_path is None}
    unused |= dict.fromkeys(left_out(folder), LEFT_OUT)
    cases = [case for case in found if case.case_id not in unused]
    for case in cases:
        try:
            check_case_id(case.case_id)
        except DataError as error:
            raise DataError(f"{data}: {error}; rename its files") from error
    started = open_run(folder) if _holds_models(folder) else None
    if started is not None:  # before anything that they were trained on is prepared anew
        started.check_cases(cases, cyst_as_kidney)
    config.save(folder / "config.json")
    _, failures = prepare_cases(
        cases, folder / "prepared", config, workers=workers, on_case=on_case
    )
    if failures:
        # Folds over the others would stay folds over the others when the rest is mended.
        raise DataError(_advice(data, failures, len(cases), begun=started is not None))
    folds = started.folds if started is not None else _deal(folder, data, cases, config)
    if started is None or started.data != data:  # the same cases, moved
        start = {"data": str(data), "folds": folds, "cyst_as_kidney": cyst_as_kidney}
        save_json(folder / "run.json", start)
    return open_run(folder), unused


def check_config(folder: str | Path, config: Config) -> None:
    """Make sure that a folder holds no run with another configuration.

    Raises
    ------
    DataError
        It does, and which fields differ.
    """
    path = Path(folder) / "config.json"
    if path.exists() and (wrong := Config.load(path).differences(config)):
        raise DataError(
            f"{folder}: holds a run with another configuration ({', '.join(wrong)} differ); "
            "choose another folder"
        )


def leave_out(data: str | Path, folder: str | Path, case_ids: Iterable[str]) -> None:
    """Leave cases out of a run, for good: noted in its folder, for all that prepares it again.

    Parameters
    ----------
    data, folder
        As in `prepare_run`.
    case_ids
        Such as ``["case_00042"]``; those that are left out already stay so.

    Raises
    ------
    DataError
        The data folder has no such case; or trainings were begun on the run's cases already.
    """
    folder, noted = Path(folder), left_out(folder)
    names = [name for name in dict.fromkeys(case_ids) if name not in noted]
    if unknown := set(names) - {case.case_id for case in find_data(data).cases}:
        raise DataError(f"{data}: has no {', '.join(sorted(unknown))}, which is to be left out")
    if names and _holds_models(folder):
        raise DataError(
            f"{folder}: has trainings that were begun with {', '.join(names)}; choose another "
            "folder to leave it out"
        )
    if names:
        save_json(folder / LEFT_OUT_NAME, sorted([*noted, *names]))


def _holds_models(folder: Path) -> bool:
    # A file manager may have left its own, such as .DS_Store.
    return any(not path.name.startswith(".") for path in files_below(folder / "models"))


def left_out(folder: str | Path) -> list[str]:
    """List the cases that a run was told to leave out.

    Raises
    ------
    DataError
        The list is damaged.
    """
    path = Path(folder) / LEFT_OUT_NAME
    case_ids = load_json(path) if path.exists() else []
    if not is_list_of(str, case_ids):
        raise DataError(f"{path}: is no list of cases; remove it")
    return case_ids


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
    config = Config.load(folder / "config.json")
    try:
        data, folds = Path(values["data"]), values["folds"]
        cyst_as_kidney = values.get("cyst_as_kidney", False)
        _check_folds(folds, config.folds)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / 'run.json'}: is damaged ({error}); prepare it again") from error
    return Run(folder, config, data, folds, cyst_as_kidney is True)


def _check_folds(folds: Any, count: int) -> None:
    """Raise a ValueError if these are no folds, or a case is not named as a file may be."""
    if not is_list_of(list, folds) or len(folds) != count or not all(folds):
        raise ValueError(f"it has no {count} folds with cases in them")
    case_ids = [case_id for fold in folds for case_id in fold]
    if not is_list_of(str, case_ids) or len(set(case_ids)) < len(case_ids):
        raise ValueError("a case is named twice, or has no name")
    for case_id in case_ids:
        check_case_id(case_id)


def _deal(folder: Path, data: Path, cases: list[Case], config: Config) -> list[list[str]]:
    path = folder / LEFT_OUT_NAME
    taken_back = f"; remove {path} to use again what is left out" if path.exists() else ""
    if not cases:
        raise DataError(f"{data}: no case has a label map, and training needs one{taken_back}")
    try:
        return split_folds([case.case_id for case in cases], config.folds, config.seed)
    except DataError as error:
        raise DataError(f"{data}: {error}{taken_back}") from error


def _advice(data: Path, failures: dict[str, str], count: int, *, begun: bool) -> str:
    without = " ".join(f"--leave-out {name}" for name in failures)
    choice = "" if begun else f", or, where a case's own files are bad, leave it out ({without})"
    return (
        f"{data}: {len(failures)} of {count} cases could not be prepared, and nothing is trained "
        f"without them; mend what is wrong and prepare again{choice}: {_listing(failures)}"
    )


def _listing(failures: dict[str, str], shown: int = 10) -> str:
    rest = f"; and {len(failures) - shown} more" if len(failures) > shown else ""
    listed = list(failures.items())[:shown]
    sentences = (f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in listed)
    return "; ".join(sentences) + rest
