"""Scores of single cases, and from them Table 1 beside the paper's."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunet_lib.config import LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, atomic_path
from tunet_lib.metrics import kits19_score, surface_distances

Row = dict[str, Any]  # one scored case: the keys are SCORE_FIELDS
MeanSD = tuple[float, float]

SYSTEMS: dict[str, str] = {  # key in scores.csv -> title in Table 1, in its order
    **{name: v.title for name, v in VARIANTS.items() if name not in LOCALIZERS},
    "ensemble": "Ensemble",
    "ensemble_postprocess": "Ensemble + post-process",
}

REGIONS = ("whole", "tumor", "mean")
SURFACE_FIGURES = ("hd95_mm", "mean_mm", "surface_dice")
SCORE_FIELDS = (
    "system",
    "fold",
    "case_id",
    *(f"grid_{region}" for region in REGIONS),
    *(f"native_{region}" for region in REGIONS),
    *(f"{region}_{figure}" for region in ("whole", "tumor") for figure in SURFACE_FIGURES),
)


# Vu et al. 2019, Table 1: mean DSC and SD over five folds, of whole, tumor, and their mean.
PAPER_TABLE_1: dict[str, tuple[MeanSD, MeanSD, MeanSD]] = {
    "U-Net 2D": ((0.776, 0.009), (0.174, 0.036), (0.475, 0.017)),
    "U-Net 2D + median": ((0.781, 0.016), (0.172, 0.030), (0.476, 0.020)),
    "U-Net 3D": ((0.793, 0.038), (0.154, 0.019), (0.474, 0.016)),
    "U-Net 3D + median": ((0.809, 0.075), (0.192, 0.056), (0.501, 0.065)),
    "TuNet": ((0.857, 0.029), (0.308, 0.034), (0.582, 0.030)),
    "TuNet + median": ((0.878, 0.010), (0.346, 0.053), (0.612, 0.031)),
    "TuNet + SEB": ((0.868, 0.020), (0.302, 0.035), (0.585, 0.023)),
    "TuNet + SEB + median": ((0.864, 0.033), (0.292, 0.017), (0.578, 0.023)),
    "Ensemble": ((0.894, 0.014), (0.331, 0.025), (0.612, 0.026)),
    "Ensemble + post-process": ((0.902, 0.014), (0.408, 0.031), (0.655, 0.019)),
}
UNKNOWN: MeanSD = (math.nan, math.nan)


@dataclass(frozen=True)
class TableRow:
    """One system of Table 1: DSCs from 0 to 1, nan where there is none.

    `folds` and `cases` say how many were scored: 0 where the system has not run.
    """

    system: str
    title: str
    folds: int
    cases: int
    whole_mean: float
    whole_sd: float
    tumor_mean: float
    tumor_sd: float
    mean_mean: float
    mean_sd: float
    paper_whole_mean: float
    paper_whole_sd: float
    paper_tumor_mean: float
    paper_tumor_sd: float
    paper_mean_mean: float
    paper_mean_sd: float


def score_case(
    system: str,
    fold: int,
    case_id: str,
    predicted_grid: np.ndarray,
    true_grid: np.ndarray,
    predicted_native: np.ndarray | None = None,
    true_native: np.ndarray | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    tolerance_mm: float = 2.0,
) -> Row:
    """Score one prediction on the grid, and on the scan's own voxels if they are given.

    Parameters
    ----------
    system, fold, case_id
        What was scored: a key of `SYSTEMS`, the fold from 0, such as ``"case_00042"``.
    predicted_grid, true_grid
        uint8 label maps (z, y, x) on the grid: the scores of Table 1.
    predicted_native, true_native
        uint8 label maps (z, y, x) on the scan's own voxels: the official KiTS19 score.
    spacing_mm
        The scan's own spacing, (z, y, x) in mm. With it the distances between surfaces
        are measured on the scan's own voxels, which takes seconds on a full-size CT.
    tolerance_mm
        Tolerance of the surface Dice. Two millimeters are one in-plane voxel of the
        paper's grid.

    Returns
    -------
    dict
        The keys are `SCORE_FIELDS`; None for what was not given.

    Raises
    ------
    DataError
        A predicted and a true map differ in shape.
    """
    row: Row = dict.fromkeys(SCORE_FIELDS)
    row |= {"system": system, "fold": fold, "case_id": case_id}
    row |= _prefixed("grid", kits19_score(predicted_grid, true_grid))
    if predicted_native is None or true_native is None:
        return row
    row |= _prefixed("native", kits19_score(predicted_native, true_native))
    if spacing_mm is None:
        return row
    for region, above in (("whole", 0), ("tumor", 1)):
        surface = surface_distances(
            predicted_native > above, true_native > above, spacing_mm, tolerance_mm
        )
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
                f"{case_id} was scored by {row['system']} of fold {fold}, which does not hold "
                "it out: its models may have been trained on it; score it in its own fold"
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
        with Path(path).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream))
        if not lines or tuple(lines[0]) != SCORE_FIELDS:
            raise ValueError("its columns are not those of scores")
        return [_parsed(dict(zip(SCORE_FIELDS, line, strict=True))) for line in lines[1:]]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: is not a table of scores ({error}); evaluate again") from error


def table_1(rows: Iterable[Row], on: Literal["grid", "native"] = "grid") -> list[TableRow]:
    """Summarize scores as the paper's Table 1 does.

    The mean over the cases of each fold, then mean and SD (n - 1) over the folds. A run
    that has not finished gives what there is: nan where a system has not run, and an SD
    of nan for a single fold.

    Parameters
    ----------
    rows
        Scored cases. A system that the paper does not have is put below its ten.
    on
        Which scores: the grid's, as in the paper, or those on the scan's own voxels.

    Returns
    -------
    list of TableRow
        The ten systems in the paper's order, then others.

    Raises
    ------
    DataError
        A system scored one case twice.

    Source
    ------
    Vu et al. 2019, Table 1.
    """
    scores: dict[str, dict[int, list[Row]]] = {system: {} for system in SYSTEMS}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row[f"{on}_mean"] is None:
            continue
        system, case_id = row["system"], row["case_id"]
        if (system, case_id) in seen:
            raise DataError(f"{case_id} is scored twice for {system}; evaluate again")
        seen.add((system, case_id))
        scores.setdefault(system, {}).setdefault(row["fold"], []).append(row)
    return [_table_row(system, list(folds.values()), on) for system, folds in scores.items()]


def format_table(table: Sequence[TableRow], markdown: bool = True, paper: bool = True) -> str:
    """Set the table as text, with the paper's numbers beside those measured.

    Parameters
    ----------
    table
        What `table_1` gave.
    markdown
        False gives plain text in columns.
    paper
        False leaves the paper's numbers out.

    Returns
    -------
    str
        A header, a rule, and a line for each system: ``mean (SD)``, or only the mean of
        a single fold; blank where there is nothing.
    """
    sources = {"": "", "paper_": ", paper"} if paper else {"": ""}
    header = [f"{region}{source}" for region in REGIONS for source in sources.values()]
    lines = [["system", "folds", "cases", *header]]
    for row in table:
        values = asdict(row)
        cells = [
            _cell(values[f"{prefix}{region}_mean"], values[f"{prefix}{region}_sd"])
            for region in REGIONS
            for prefix in sources
        ]
        lines.append([row.title, str(row.folds), str(row.cases), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = [[c.ljust(w) for c, w in zip(cells, widths, strict=True)] for cells in lines]
    if markdown:
        return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def coverage(table: Sequence[TableRow], folds: int = Config.folds) -> str:
    """Say in a few words what of the table is still to be run; empty if it is complete.

    Parameters
    ----------
    table
        What `table_1` gave.
    folds
        How many there are in all.
    """
    run = sorted({row.folds for row in table if row.folds}) or [0]
    absent = [row.title for row in table if not row.folds]
    if run[0] >= folds and not absent:
        return ""
    count = f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}"
    parts = [f"Folds run: {count} of {folds}."]
    if absent:
        parts.append(f"Not yet run: {', '.join(absent)}.")
    if 1 in run:
        parts.append("One fold has no SD.")
    return " ".join(parts)


def write_table(path: str | Path, table: Iterable[TableRow]) -> None:
    """Write the table as CSV, atomically: a column for each field, blank for nan."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(field.name for field in fields(TableRow))
        for row in table:
            system, title, folds, cases, *numbers = asdict(row).values()
            rounded = ("" if math.isnan(number) else round(number, 6) for number in numbers)
            writer.writerow([system, title, folds, cases, *rounded])


def _table_row(system: str, folds: Sequence[Sequence[Row]], on: str) -> TableRow:
    title = SYSTEMS.get(system, system)
    paper = PAPER_TABLE_1.get(title, (UNKNOWN, UNKNOWN, UNKNOWN))
    numbers: dict[str, float] = {}
    for region, published in zip(REGIONS, paper, strict=True):
        means = [statistics.fmean(row[f"{on}_{region}"] for row in rows) for rows in folds]
        for prefix, (mean, sd) in (("", _mean_sd(means)), ("paper_", published)):
            numbers |= {f"{prefix}{region}_mean": mean, f"{prefix}{region}_sd": sd}
    return TableRow(system, title, len(folds), sum(map(len, folds)), **numbers)


def _mean_sd(values: Sequence[float]) -> MeanSD:
    if not values:
        return UNKNOWN
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), sd


def _cell(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} ({sd:.3f})"


def _prefixed(prefix: str, figures: dict[str, float]) -> Row:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _parsed(row: dict[str, str]) -> Row:
    parsed: Row = {"system": row["system"], "fold": int(row["fold"]), "case_id": row["case_id"]}
    for field in SCORE_FIELDS[3:]:
        parsed[field] = float(row[field]) if row[field] else None
    return parsed
