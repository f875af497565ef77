"""How sure are the course's networks, and how often right? ``--data FOLDER`` for 210 phantoms.

Asked on the cases of the inner split: those that the networks of fold 1 were not trained on, and
that are not held out either; they chose the best epoch. A temperature that is chosen on them can
be judged on all held-out cases (chapter 14).

Voxels near a kidney, where L-Net says 5 % or more, are counted by their tumor probability, in steps
of 1/255, as maps are stored: a line for each step goes to book/results/calibration.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from tunet_lib.course import FOLD, STUDY_CASES, CourseCase, course_config
from tunet_lib.folds import split_cases, split_folds
from tunet_lib.phantom import write_phantoms

RESULT = Path(__file__).parent / "results" / "calibration.csv"
STEPS = 256
NEAR_KIDNEY_PROB = 0.05


def counts(prob: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count voxels by probability: (step, 2) of all, and of those that are true."""
    step = np.rint(prob * (STEPS - 1)).astype(int)
    return np.stack(
        [np.bincount(step, minlength=STEPS), np.bincount(step[truth], minlength=STEPS)], axis=-1
    )


def main() -> None:
    """Segment the cases of the inner split, and write the counts over all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    cases = write_phantoms(parser.parse_args().data, STUDY_CASES)
    config = course_config()
    folds = split_folds([case.case_id for case in cases], config.folds, config.seed)
    inner = split_cases(cases, folds, FOLD, inner=True).validation
    found = {"tunet": np.zeros((STEPS, 2), int), "ensemble": np.zeros((STEPS, 2), int)}
    for each in inner:
        case = CourseCase.load(each)
        near, truth = case.lnet_prob() >= NEAR_KIDNEY_PROB, case.truth_on_grid == 2
        found["tunet"] += counts(case.maps("tunet")[near][:, 1], truth[near])
        found["ensemble"] += counts(case.ensemble()[near][:, 1], truth[near])
        print(case.case_id, len(inner), "cases in all", flush=True)
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("system", "step", "voxels", "tumor_voxels"))
        for system, by_step in found.items():
            writer.writerows((system, step, *row) for step, row in enumerate(by_step.tolist()))


if __name__ == "__main__":
    main()
