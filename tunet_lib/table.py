"""Table 1: what the cases scored, summed up beside the paper's own numbers.

Chapters 04 (``notebooks/04_losses_metrics.ipynb``), 10 (``notebooks/10_folds_cluster.ipynb``)
and 14 (``notebooks/14_results.ipynb``).
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tunet_lib.config import Config
from tunet_lib.evaluation import REGIONS, SYSTEMS, Row
from tunet_lib.files import DataError, atomic_path


class MeanSD(NamedTuple):
    """Mean over the folds of their cases' mean, and its SD (n - 1); nan where there is none."""

    mean: float
    sd: float

    def __str__(self) -> str:
        """Give ``mean (SD)``, the mean of a single fold, or nothing."""
        if math.isnan(self.mean):
            return ""
        return f"{self.mean:.3f}" if math.isnan(self.sd) else f"{self.mean:.3f} ({self.sd:.3f})"


UNKNOWN = MeanSD(math.nan, math.nan)

# Vu et al. 2019, Table 1: mean DSC and SD over five folds.
PAPER_TABLE_1: dict[str, dict[str, MeanSD]] = {
    title: dict(zip(REGIONS, map(MeanSD._make, numbers), strict=True))
    for title, numbers in {
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
    }.items()
}


@dataclass(frozen=True)
class TableRow:
    """One system of Table 1.

    Attributes
    ----------
    system, title
        Its key in ``scores.csv``, and its name in the table.
    folds, cases
        How many were scored: 0 where the system has not run.
    measured, paper
        Region (whole, tumor, or the mean of both) → DSC, 0 to 1.
    """

    system: str
    title: str
    folds: int
    cases: int
    measured: Mapping[str, MeanSD]
    paper: Mapping[str, MeanSD]

    def numbers(self) -> dict[str, float]:
        """Give all DSCs by the names of their columns: ``whole_mean`` to ``paper_mean_sd``."""
        return {
            f"{prefix}{region}_{name}": number
            for prefix, source in (("", self.measured), ("paper_", self.paper))
            for region in REGIONS
            for name, number in source[region]._asdict().items()
        }


def fold_means(rows: Iterable[Row], system: str, field: str = "grid_mean") -> list[float]:
    """Average one score of one system over the cases of each fold, in the order of the folds.

    Parameters
    ----------
    rows
        Scored cases.
    system
        A key of `SYSTEMS`.
    field
        Such as ``"grid_tumor"``. Cases for which it was not measured are left out.
    """
    by_fold: dict[int, list[float]] = {}
    for row in rows:
        if row["system"] == system and row[field] is not None:
            by_fold.setdefault(row["fold"], []).append(row[field])
    return [statistics.fmean(by_fold[fold]) for fold in sorted(by_fold)]


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
    rows = [row for row in rows if row[f"{on}_mean"] is not None]
    names = [(row["system"], row["case_id"]) for row in rows]
    if len(set(names)) < len(names):
        system, case_id = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{case_id} is scored twice for {system}; evaluate again")
    table = []
    others: list[str] = [row["system"] for row in rows]
    for system in dict.fromkeys([*SYSTEMS, *others]):
        own = [row for row in rows if row["system"] == system]
        title = SYSTEMS.get(system, system)
        measured = {r: mean_sd(fold_means(own, system, f"{on}_{r}")) for r in REGIONS}
        paper = PAPER_TABLE_1.get(title, dict.fromkeys(REGIONS, UNKNOWN))
        folds = len({row["fold"] for row in own})
        table.append(TableRow(system, title, folds, len(own), measured, paper))
    return table


def mean_sd(fold_means: Sequence[float]) -> MeanSD:
    """Give mean and SD (n - 1) over folds; nan for what too few or infinite ones do not give."""
    if not fold_means:
        return UNKNOWN
    varies = len(fold_means) > 1 and all(map(math.isfinite, fold_means))
    sd = statistics.stdev(fold_means) if varies else math.nan
    return MeanSD(statistics.fmean(fold_means), sd)


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
    header = [name for r in REGIONS for name in ((r, f"{r}, paper") if paper else (r,))]
    lines = [["system", "folds", "cases", *header]]
    for row in table:
        sources = (row.measured, row.paper) if paper else (row.measured,)
        cells = [str(source[region]) for region in REGIONS for source in sources]
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
    most = {row.folds: max(r.cases for r in table if r.folds == row.folds) for row in table}
    partly = [row.title for row in table if row.cases < most[row.folds]]
    if run[0] >= folds and not absent and not partly:
        return ""
    count = f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}"
    parts = [f"Folds run: {count} of {folds}."]
    if absent:
        parts.append(f"Not yet run: {', '.join(absent)}.")
    if partly:
        parts.append(f"Fewer cases than in other rows of as many folds: {', '.join(partly)}.")
    if 1 in run:
        parts.append("One fold has no SD.")
    return " ".join(parts)


def write_table(path: str | Path, table: Sequence[TableRow]) -> None:
    """Write the table as CSV, atomically: a column for each field, blank for nan."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        names = list(table[0].numbers()) if table else []
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["system", "title", "folds", "cases", *names])
        for row in table:
            numbers = row.numbers().values()
            rounded = ("" if math.isnan(number) else round(number, 6) for number in numbers)
            writer.writerow([row.system, row.title, row.folds, row.cases, *rounded])
