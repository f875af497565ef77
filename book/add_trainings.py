"""Add to the published study what it lacked: python book/add_trainings.py runs/more.

The run was trained later, on the same cases and folds and with the same configuration. Of its
scores those of the cases that the study scored join book/results/scores.csv and algorithm_1.csv,
its epochs join learning_curves.csv, in the place of those of a training whose weights were lost,
and table_1.csv is made anew. Its own provenance is kept beside the study's, as
provenance_2.json or the next free number. When more of the run is trained, call it again.
"""

from __future__ import annotations

import csv
import sys
from itertools import count
from pathlib import Path
from typing import Any

from publish_results import epochs_of, write_learning_curves

from tunet_lib.evaluation import STEPS, SYSTEMS, Row, check_unseen, read_scores, write_scores
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
    scored = (row["case_id"] for row in read_scores(results / "scores.csv"))
    place = {case_id: number for number, case_id in enumerate(dict.fromkeys(scored))}
    rows, steps = (
        joined(run.folder / name, results / name, list(systems), place)
        for name, systems in (("scores.csv", SYSTEMS), ("algorithm_1.csv", STEPS))
    )
    check_unseen(rows, run.folds)
    table = table_1(rows)  # refuses a case that is scored twice
    add_epochs(run, results / "learning_curves.csv")
    write_scores(results / "scores.csv", rows)
    write_scores(results / "algorithm_1.csv", steps)
    write_table(results / "table_1.csv", table)
    save_json(own_provenance(ours, results), ours)


def joined(theirs: Path, published: Path, order: list[str], place: dict[str, int]) -> list[Row]:
    """Give the rows of a published table and those that a run adds, by fold, case and system.

    `place` is that of each published case; the run's others are left out.
    """
    before = read_scores(published)
    more = [r for r in read_scores(theirs) if r["case_id"] in place and r not in before]
    return sorted(
        before + more,
        key=lambda row: (row["fold"], place[row["case_id"]], order.index(row["system"])),
    )


def add_epochs(run: Run, path: Path) -> None:
    """Put the epochs of a run's complete trainings into a table of epochs."""
    tasks = [task for task in run.tasks() if run.model_folder(task).is_trained]
    with path.open(newline="", encoding="utf-8") as stream:
        others = [
            log for log in csv.DictReader(stream) if (log["variant"], int(log["fold"])) not in tasks
        ]
    write_learning_curves(path, [*others, *epochs_of(run, tasks)])


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
