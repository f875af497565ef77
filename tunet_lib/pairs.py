"""Any folder of predicted label maps scored against true ones, and against another's.

Chapter 14 (``notebooks/14_results.ipynb``).
"""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tunet_lib.evaluation import SURFACE_TOLERANCE_MM
from tunet_lib.files import DataError, atomic_path, files_below, readable
from tunet_lib.formats import SECOND_OF_PAIR, suffix_of
from tunet_lib.metrics import kits19_score, surface_distances
from tunet_lib.scans import load_label_map

FIELDS = (
    *("case_id", "predicted", "whole", "tumor", "mean"),
    *(f"{region}_{name}" for region in ("whole", "tumor") for name in ("hd95_mm", "surface_dice")),
)
NUMBERED = re.compile(r"(?:case|prediction)_(\d{5})(?!\d)")  # KiTS19's cases and its submissions
KINDS = ("label", "labels", "seg", "segmentation", "pred", "prediction", "mask")
# Of the label map of a CT of nnU-Net's, whose own name says its channel, and of others.
ENDING = re.compile(rf"(?:_0000)?(?:_(?:{'|'.join(KINDS)}))?$", re.IGNORECASE)
# Other label maps of a case in KiTS21 and KiTS23: each annotator's, and more and less of what they
# marked.
OTHERS = re.compile(r"(?:^|/)(?:(?:segmentations|instances)/|aggregated_(?:AND|OR)_seg\.)")
# Names of files whose folder is named after the case.
PLAIN = (*KINDS, "aggregated_MAJ_seg")
DRAWS = 4000

Row = dict[str, Any]


class Interval(NamedTuple):
    """A mean over cases, and the middle 95 % of what it is when they are drawn anew.

    The latter are NaN of a single case, and where a figure is not finite, as a distance to nothing.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Give ``0.412 [0.340, 0.481]``."""
        if math.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def find_labels(folder: str | Path) -> dict[str, Path]:
    """Find the label maps in a folder: case → file.

    A case is named by ``case_00042`` or ``prediction_00042`` in the path, else by the file
    without ``_label`` and the like at its end. CTs, ``imaging.nii.gz``, are left out, and so is
    DICOM beside a label map of the same case.

    Raises
    ------
    DataError
        There is none, or there are two of one case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder")
    found: dict[str, Path] = {}
    # DICOM last: there a label map, DICOM SEG, is written and not read.
    for path in sorted(files_below(folder), key=lambda path: (suffix_of(path) == ".dcm", path)):
        is_other = suffix_of(path) in ("", *SECOND_OF_PAIR)
        within = path.relative_to(folder)
        if is_other or path.name.startswith((".", "imaging.")) or OTHERS.search(within.as_posix()):
            continue
        case_id = _case_of(within)
        if case_id in found and suffix_of(path) == ".dcm":
            continue
        if case_id in found:
            raise DataError(
                f"{path}: {case_id} is also in {found[case_id]}; leave one of them, or name each "
                "after its case"
            )
        found[case_id] = path
    if not found:
        raise DataError(f"{folder}: holds no label map, such as case_00000.nii.gz")
    return found


def score_pairs(
    predicted: str | Path,
    truth: str | Path,
    *,
    cyst_as_kidney: bool = False,
    on_case: Callable[[str], Any] | None = None,
) -> list[Row]:
    """Score each true label map's prediction on the scan's own voxels.

    Parameters
    ----------
    predicted, truth
        Folders of label maps, 0 background, 1 kidney, 2 tumor, in any format that is read.
    cyst_as_kidney
        Take the label 3, a cyst, as kidney, in both.
    on_case
        Called with each case that is scored.

    Returns
    -------
    list of dict
        By case: `FIELDS`. A case that was not predicted has a DSC and surface Dice of 0 and an
        infinite distance, whatever is true of it, and ``predicted`` is False.

    Raises
    ------
    DataError
        A file is no label map; a prediction does not match the truth in shape, spacing or place;
        or no prediction has the name of a case.
    """
    ours, true = find_labels(predicted), find_labels(truth)
    if not ours.keys() & true.keys():
        raise DataError(f"{predicted}: no file is named as a case, such as {min(true)}.nii.gz")
    rows = []
    for case_id, path in true.items():
        rows.append(_score(case_id, ours.get(case_id), path, cyst_as_kidney))
        if on_case is not None:
            on_case(case_id)
    return rows


def interval(values: Sequence[float], seed: int = 14) -> Interval:
    """Give the mean of a figure over cases, with its bootstrap interval.

    Parameters
    ----------
    values
        One for each case; for two systems their differences, case by case.
    seed
        Of the draws.
    """
    numbers = np.asarray(values, float)
    rng = np.random.default_rng(seed)
    means = numbers[rng.integers(0, len(numbers), (DRAWS, len(numbers)))].mean(axis=1)
    few = len(numbers) < 2 or not np.isfinite(numbers).all()
    low, high = (math.nan, math.nan) if few else np.percentile(means, [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high))


def differences(rows: Sequence[Row], others: Sequence[Row], region: str) -> list[float]:
    """Give the DSC in `rows` less that in `others`, case by case, for those that both have."""
    other = {row["case_id"]: row[region] for row in others}
    return [row[region] - other[row["case_id"]] for row in rows if row["case_id"] in other]


def write_pairs(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write scores as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"case_id": readable(row["case_id"])} for row in rows)


def read_pairs(path: str | Path) -> list[Row]:
    """Read what `write_pairs` wrote.

    Raises
    ------
    DataError
        The file is missing, or holds something else.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            rows: list[Row] = list(lines)
        if tuple(lines.fieldnames or ()) != FIELDS:
            raise ValueError("its columns are others")
        for row in rows:
            row["predicted"] = {"true": True, "false": False}[str(row["predicted"]).lower()]
            if None in row:
                raise ValueError("a line has more cells than there are columns")
            row |= {name: float(row[name]) for name in FIELDS[2:]}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is no table of scores; make it by tunet score") from error
    return rows


def _case_of(path: Path) -> str:
    numbered = NUMBERED.search(path.name) or NUMBERED.search(str(path.parent))
    if numbered:
        return f"case_{numbered[1]}"
    stem = path.name[: len(path.name) - len(suffix_of(path))]
    name = path.parent.name if stem in PLAIN and path.parent.name else ENDING.sub("", stem)
    return unicodedata.normalize("NFC", name)  # some programs write an accent apart


def _score(case_id: str, predicted: Path | None, truth: Path, cyst_as_kidney: bool) -> Row:
    true = load_label_map(truth, cyst_as_kidney=cyst_as_kidney)
    row: Row = {"case_id": case_id, "predicted": predicted is not None}
    if predicted is None:
        return row | {name: math.inf if name.endswith("_mm") else 0.0 for name in FIELDS[2:]}
    ours = load_label_map(predicted, true, cyst_as_kidney=cyst_as_kidney).label
    row |= kits19_score(ours, true.label)
    for region, above in (("whole", 0), ("tumor", 1)):
        surface = surface_distances(
            ours > above,
            true.label > above,
            true.spacing_mm,
            tolerance_mm=SURFACE_TOLERANCE_MM,
        )
        row[f"{region}_hd95_mm"] = surface.hd95_mm
        row[f"{region}_surface_dice"] = surface.surface_dice
    return row
