"""Every file of a data folder opened, to the last byte, before hours are spent on it.

Chapter 01 (``notebooks/01_kits19.ipynb``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.config import Config
from tunet_lib.download import LISTING_NAME, label_digests
from tunet_lib.files import DataError, load_json, notes_taken, noting, sha256_of
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, Case
from tunet_lib.layouts import find_data
from tunet_lib.parallel import each
from tunet_lib.plausible import check_label
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import ScanFile, load_label, open_scan


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file of one case, or only strange."""

    case_id: str
    file: str
    what: str
    is_strange_only: bool = False


def check_folder(
    folder: str | Path,
    *,
    labels_only: bool = False,
    cyst_as_kidney: bool = False,
    workers: int = 1,
    on_case: Callable[[str], Any] | None = None,
) -> tuple[int, list[Problem]]:
    """Open and verify every file of a data folder.

    A CT must be whole and three-dimensional, without NaN, have a voxel size and hold HU; a label
    map must hold 0, 1 and 2 only and lie on its CT; and one of KiTS19's 210 must be, byte for
    byte, the published one. What is strange and may yet be right is listed as well.

    Parameters
    ----------
    folder
        The data folder.
    labels_only
        A case without a CT is no problem.
    cyst_as_kidney
        Nor is a label map with 3, cyst.
    workers
        Processes; each has one case in memory.
    on_case
        Called with the case_id after each case.

    Returns
    -------
    count, problems
        How many cases there are, and what is wrong or strange, sorted by case.

    Raises
    ------
    DataError
        The folder is missing or unreadable, or holds no case.
    """
    folder = Path(folder)
    data = find_data(folder, cyst_as_kidney=cyst_as_kidney)
    cases = data.cases
    digests = label_digests() if _is_kits19(data.folder) else {}
    task = functools.partial(check_case, digests=digests, labels_only=labels_only)
    problems: list[Problem] = []
    failures: dict[str, str] = {}
    for case, result in each(task, cases, workers):
        with noting(failures, case.case_id):
            problems += result()
        if on_case is not None:
            on_case(case.case_id)
    problems += [Problem(case_id, "", what) for case_id, what in failures.items()]
    return len(cases), sorted(problems, key=lambda p: (p.case_id, p.file))


def check_case(
    case: Case, digests: dict[str, tuple[str, int]], labels_only: bool = False
) -> list[Problem]:
    """Open and verify the files of one case.

    Parameters
    ----------
    case
        Where its files are.
    digests
        case_id → (SHA-256, bytes) of published label maps.
    labels_only
        A missing CT is no problem.
    """
    problems: list[Problem] = []
    scan: ScanFile | None = None
    if case.image_path is not None:
        with _noting(problems, case.case_id, case.image_path):
            scan = open_scan(case.image_path)
            # As every use of it begins, to the last byte; the smallest grid will do.
            prepare_scan(scan, Config.preset("course"), [False])
    elif not labels_only:
        problems.append(Problem(case.case_id, IMAGE_NAME, "is missing"))
    if case.label_path is None:
        if case.case_id in digests:
            problems.append(Problem(case.case_id, LABEL_NAME, "is missing"))
        return problems
    with _noting(problems, case.case_id, case.label_path):
        label = load_label(case.label_path, scan, cyst_as_kidney=case.cyst_as_kidney)
        check_label(label, case.label_path)
        published = digests.get(case.case_id) if case.label_path.name == LABEL_NAME else None
        if published is not None and sha256_of(case.label_path) != published[0]:
            raise DataError("is not the label map that KiTS19 published (SHA-256)")
    return problems


@contextlib.contextmanager
def _noting(problems: list[Problem], case_id: str, path: Path) -> Iterator[None]:
    """Note what is wrong with a file, and what is strange about it."""

    def note(what: str, **kind: bool) -> None:
        problems.append(Problem(case_id, path.name, what.removeprefix(f"{path}: "), **kind))

    notes: list[str] = []
    try:
        with notes_taken() as notes:
            yield
    except DataError as error:
        note(str(error))
    for what in notes:
        note(what, is_strange_only=True)


def _is_kits19(folder: Path) -> bool:
    """Tell KiTS19 from phantoms, and from other people's data in the same layout."""
    if not (folder / LISTING_NAME).exists():
        return False
    entries = load_json(folder / LISTING_NAME)
    return isinstance(entries, list) and not any(
        isinstance(entry, dict) and entry.get("synthetic") for entry in entries
    )
