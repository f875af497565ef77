"""Score the book's networks on every case that their fold holds out: ``--data FOLDER``.

The study scored twelve cases of each fold. The ten networks of fold 1 come with the book, so that
all 42 cases of that fold can be scored on any computer, in two minutes of a core for each case.

Results: a line for each case and system in book/results/fold_1_scores.csv, and for each step of
Algorithm 1 in fold_1_algorithm_1.csv. What was cut short goes on with the next case.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tunet_lib.course import FOLD, STUDY_CASES, course_config
from tunet_lib.folds import split_cases
from tunet_lib.phantom import write_phantoms
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.runs import prepare_run
from tunet_lib.scoring import evaluate_run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Make a run of the study's cases and the book's networks, and score one fold of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    write_phantoms(data / "phantoms", STUDY_CASES)
    run, unused = prepare_run(data / "phantoms", data / f"fold_{FOLD}", course_config())
    assert not unused, unused
    split = split_cases(run.cases(), run.folds, FOLD, inner=run.config.inner_validation)
    for task in run.tasks(folds=[FOLD]):
        folder = run.model_folder(task)
        if not folder.is_trained:
            folder.note_cases([case.case_id for case in split.training])
            shutil.copytree(COURSE_WEIGHTS / task[0], folder.path, dirs_exist_ok=True)
    _, failures = evaluate_run(run, on_case=print)
    assert not failures, failures
    for name in ("scores", "algorithm_1"):
        shutil.copy(run.folder / f"{name}.csv", RESULTS / f"fold_{FOLD}_{name}.csv")


if __name__ == "__main__":
    main()
