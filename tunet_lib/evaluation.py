"""Scores of single cases: what Table 1 is made of.

Chapters 10 (``notebooks/10_folds_cluster.ipynb``) and 14 (``notebooks/14_results.ipynb``).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.config import LOCALIZERS, VARIANTS
from tunet_lib.files import DataError, atomic_path
from tunet_lib.metrics import kits19_score, surface_distances

Row = dict[str, Any]  # one scored case: the keys are SCORE_FIELDS
Pair = tuple[np.ndarray, np.ndarray]  # a predicted and a true label map on the same voxels

SYSTEMS: dict[str, str] = {  # key in scores.csv -> title in Table 1, in its order
    **{name: v.title for name, v in VARIANTS.items() if name not in LOCALIZERS},
    "ensemble": "Ensemble",
    "ensemble_postprocess": "Ensemble + post-process",
}

STEPS: dict[str, str] = {  # what Algorithm 1 makes of the ensemble, step by step
    "ensemble": "Ensemble, cut at 0.5",
    "line_9": "after line 9: the whole region has grown",
    "line_27": "after line 27: the tumor as well",
    "ensemble_postprocess": "after line 28: within L-Net's mask",
}

MOST_ML = 1e6  # of a tumor: more than any CT shows
SURFACE_TOLERANCE_MM = 2.0  # of the surface Dice: one in-plane voxel of the paper's grid
REGIONS = ("whole", "tumor", "mean")
SURFACE_FIGURES = ("hd95_mm", "mean_mm", "surface_dice")
SCORE_FIELDS = (
    *("system", "fold", "case_id"),
    *(f"grid_{region}" for region in REGIONS),
    *(f"native_{region}" for region in REGIONS),
    *(f"{region}_{figure}" for region in ("whole", "tumor") for figure in SURFACE_FIGURES),
    *("tumor_ml", "tumor_sensitivity", "tumor_precision", "false_tumor_ml"),
)


def score_case(
    system: str,
    fold: int,
    case_id: str,
    *,
    grid: Pair,
    native: Pair | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
) -> Row:
    """Score one prediction on the grid, and on the scan's own voxels if they are given.

    Parameters
    ----------
    system, fold, case_id
        What was scored: a key of `SYSTEMS`, the fold from 0, such as ``"case_00042"``.
    grid
        The predicted and the true label map on the grid, uint8: the scores of Table 1.
    native
        Both on the scan's own voxels: the official KiTS19 score.
    spacing_mm
        The scan's own spacing, (z, y, x) in mm. With it the distances between surfaces
        are measured on the scan's own voxels, which takes seconds on a full-size CT.

    Returns
    -------
    dict
        The keys are `SCORE_FIELDS`; None for what was not given, and for the figures of
        `mistakes.tumor_figures`, which a run adds.

    Raises
    ------
    DataError
        A predicted and a true map differ in shape.
    """
    row: Row = dict.fromkeys(SCORE_FIELDS)
    row |= {"system": system, "fold": fold, "case_id": case_id}
    row |= _prefixed("grid", kits19_score(*grid))
    if native is None:
        return row
    row |= _prefixed("native", kits19_score(*native))
    if spacing_mm is None:
        return row
    for region, above in (("whole", 0), ("tumor", 1)):
        predicted, truth = (label > above for label in native)
        surface = surface_distances(predicted, truth, spacing_mm, tolerance_mm=SURFACE_TOLERANCE_MM)
        row |= _prefixed(region, vars(surface))
    return row


def check_unseen(rows: Iterable[Row], folds: Sequence[Sequence[str]]) -> None:
    """Make sure that every case was scored by models that never saw it in training.

    Parameters
    ----------
    rows
        Scored cases.
    folds
        For each fold the `case_id` of the cases it holds out.

    Raises
    ------
    DataError
        A case scored in a fold is not among those that the fold holds out.
    """
    for row in rows:
        fold, case_id = row["fold"], row["case_id"]
        if not 0 <= fold < len(folds) or case_id not in folds[fold]:
            raise DataError(
                f"{case_id} was scored by {row['system']} of fold {fold}, "
                "which does not hold it out; score it in its own fold"
            )


def write_scores(path: str | Path, rows: Iterable[Row]) -> None:
    """Write scored cases as CSV, atomically; what was not measured stays blank."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, SCORE_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_scores(path: str | Path) -> list[Row]:
    """Read what `write_scores` wrote, with the same numbers to the last bit.

    Raises
    ------
    DataError
        The file is missing, has other columns, or holds something that is not a number.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.reader(stream))
        if not lines or tuple(lines[0]) != SCORE_FIELDS:
            raise ValueError("its columns are not those of scores")
        return [_parsed(dict(zip(SCORE_FIELDS, line, strict=True))) for line in lines[1:]]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not a table of scores ({error}); evaluate again") from error


def _prefixed(prefix: str, figures: dict[str, float]) -> Row:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _parsed(row: dict[str, str]) -> Row:
    parsed: Row = {"system": row["system"], "fold": int(row["fold"]), "case_id": row["case_id"]}
    return parsed | {field: _figure(field, row[field]) for field in SCORE_FIELDS[3:]}


def _figure(field: str, text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    # A distance is infinite where there is one surface only, and nan where there is none.
    largest = math.inf if field.endswith("_mm") else MOST_ML if field.endswith("_ml") else 1.0
    if not (0 <= value <= largest or (math.isnan(value) and field.endswith(SURFACE_FIGURES))):
        raise ValueError(f"{field} is {text}")
    return value
