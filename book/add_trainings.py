"""Add to the published study what it lacked: python book/add_trainings.py runs/more.

The run was trained later, on the same cases and folds and with the same configuration. Of its
scores those of the cases that the study scored join book/results/scores.csv, its epochs join
learning_curves.csv, and table_1.csv is made anew. Its own provenance is kept beside the study's, as
provenance_2.json or the next free number. When more of the run is trained, call it again.
"""

from __future__ import annotations

import csv
import sys
from itertools import count
from pathlib import Path
from typing import Any

from publish_results import epochs_of, write_learning_curves

from tunet_lib.evaluation import SYSTEMS, check_unseen, read_scores, write_scores
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.provenance import PROVENANCE_NAME
from tunet_lib.runs import Run, open_run
from tunet_lib.table import format_table, table_1, write_table

RESULTS = Path(__file__).parent / "results"


def add(run: Run, results: Path) -> None:
    """Add a run's scores, epochs and provenance to those in the folder `results`.

    Raises
    ------
    DataError
        The run has another configuration or other folds, or scored what is published already,
        and otherwise.
    """
    study = load_json(results / PROVENANCE_NAME)
    ours = load_json(run.folder / PROVENANCE_NAME)
    if ours["config"] != study["config"]:
        raise DataError(f"{run.folder}: its configuration is not the study's")
    before = read_scores(results / "scores.csv")
    place = {row["case_id"]: number for number, row in enumerate(before)}
    more = [
        row
        for row in read_scores(run.folder / "scores.csv")
        if row["case_id"] in place and row not in before
    ]
    systems = list(SYSTEMS)
    rows = sorted(
        before + more,
        key=lambda row: (row["fold"], place[row["case_id"]], systems.index(row["system"])),
    )
    check_unseen(rows, run.folds)
    table = table_1(rows)  # refuses a case that is scored twice
    add_epochs(run, results / "learning_curves.csv")
    write_scores(results / "scores.csv", rows)
    write_table(results / "table_1.csv", table)
    save_json(own_provenance(ours, results), ours)


def add_epochs(run: Run, path: Path) -> None:
    """Add the epochs of a run's complete trainings to a table of epochs."""
    with path.open(newline="", encoding="utf-8") as stream:
        before = [*csv.DictReader(stream)]
    there = {(log["variant"], int(log["fold"])) for log in before}
    tasks = [t for t in run.tasks() if run.model_folder(t).is_trained and t not in there]
    write_learning_curves(path, [*before, *epochs_of(run, tasks)])


def own_provenance(ours: dict[str, Any], results: Path) -> Path:
    """Say where a run's provenance belongs: where an earlier state of it is, or a free name."""
    stem, ending = PROVENANCE_NAME.split(".")
    paths = (results / f"{stem}_{number}.{ending}" for number in count(2))
    return next(path for path in paths if not path.exists() or is_earlier(path, ours))


def is_earlier(path: Path, ours: dict[str, Any]) -> bool:
    """Tell whether a provenance is of the same run: its commands only ever become more."""
    commands = load_json(path)["commands"]
    return ours["commands"][: len(commands)] == commands


if __name__ == "__main__":
    add(open_run(sys.argv[1]), RESULTS)
    print(format_table(table_1(read_scores(RESULTS / "scores.csv"))))
