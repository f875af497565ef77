"""How far do two trainings of the study differ? ``NETWORK SEED --data FOLDER``.

Trains a network of fold 1 as the study did, on the same cases, with a seed of its own, and scores
it on all 42 cases that the fold holds out. With the study's seed, 2019, it scores the network that
comes with the book.

A processor that has no bfloat16 needs ``--precision float32``, which is noted with the epochs.

Results: a line for each case in book/results/seeds.csv, and for each epoch in
seeds_history.csv. A training that was cut short goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments import machine

from tunet_lib.config import VARIANTS, Config
from tunet_lib.course import FOLD, STUDY_CASES, CourseCase, course_config
from tunet_lib.folds import split_cases, split_folds
from tunet_lib.kits19 import Case
from tunet_lib.metrics import kits19_score
from tunet_lib.model import Model
from tunet_lib.model_folder import ModelFolder
from tunet_lib.phantom import write_phantoms
from tunet_lib.postprocess import threshold_labels
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.preprocess import prepare_cases
from tunet_lib.training import train

RESULTS = Path(__file__).parent / "results"


def trained(
    variant: str, config: Config, data: Path, cases: list[Case], folds: list[list[str]]
) -> Model:
    """Train, or go on with it; give the network of the best epoch."""
    prepared, failures = prepare_cases(cases, data / "prepared", config)
    assert not failures, failures
    split = split_cases(prepared, folds, FOLD, inner=config.inner_validation)
    folder = data / "seeds" / f"{variant}_{config.seed}"
    train(VARIANTS[variant], config, split, folder=folder, on_epoch=print)
    return Model.load(folder)


def is_noted(variant: str, seed: int) -> bool:
    """Tell whether its scores are there."""
    path = RESULTS / "seeds.csv"
    if not path.exists():
        return False
    with path.open(encoding="utf-8", newline="") as stream:
        return any(
            (r["variant"], r["seed"]) == (variant, str(seed)) for r in csv.DictReader(stream)
        )


def append(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a table of the results, which begins with their names."""
    rows, path = list(rows), RESULTS / name
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        if not stream.tell():
            writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Train one network, score it, and write down both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("seed", type=int)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--precision", default=course_config().precision, help="of training")
    arguments = parser.parse_args()
    variant, seed, data = arguments.variant, arguments.seed, arguments.data
    if is_noted(variant, seed):
        return
    cases, config = write_phantoms(data / "phantoms", STUDY_CASES), course_config()
    # The study's folds, whatever the seed of the training
    folds = split_folds([case.case_id for case in cases], config.folds, config.seed)
    if seed == config.seed:
        model = Model.load(COURSE_WEIGHTS / variant)
    else:
        ours = dataclasses.replace(config, seed=seed, precision=arguments.precision)
        model = trained(variant, ours, data, cases, folds)
    rows = []
    for each in (case for case in cases if case.case_id in folds[FOLD]):
        case = CourseCase.load(each)
        maps = model.predict(case.volumes, batch_size=16 if model.variant.sees == "slice" else 4)
        label = threshold_labels(maps[..., 0], maps[..., 1])
        score = kits19_score(label, case.truth_on_grid)
        row = {"variant": variant, "seed": seed, "case_id": case.case_id}
        rows.append(row | {region: round(score[region], 4) for region in ("whole", "tumor")})
    append("seeds.csv", rows)
    if seed != config.seed:
        of = {"variant": variant, "seed": seed, "machine": f"{machine()} {arguments.precision}"}
        folder = ModelFolder(data / "seeds" / f"{variant}_{seed}")
        append("seeds_history.csv", (of | log for log in folder.history()))


if __name__ == "__main__":
    main()
