"""Copy what the book shows from a finished run: python book/publish_results.py runs/course.

Scores, table, learning curves and provenance go to book/results/, the networks of the course's
fold to tunet_lib/course_weights/, what they find in cases that they never saw to
tunet_lib/course_maps/, and a picture of one such case to book/_static/.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import result_picture

from tunet_lib.config import ENSEMBLE, LOCALIZERS
from tunet_lib.course import COURSE_MAPS, FOLD, CourseCase, held_out_cases
from tunet_lib.files import DataError
from tunet_lib.history import FIELDS
from tunet_lib.model_folder import ModelFolder
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.runs import Run, Task, open_run
from tunet_lib.weights import halve_weights

BOOK = Path(__file__).parent
SCORED = ("scores.csv", "algorithm_1.csv", "table_1.csv", "provenance.json")
LIMIT_MB = 30  # weights are downloaded with every clone


def main(folder: str) -> None:
    """Publish the run in `folder`."""
    run = open_run(folder)
    if missing := [name for name in SCORED if not (run.folder / name).exists()]:
        raise DataError(
            f"{run.folder}: lacks {', '.join(missing)}; first `tunet evaluate`, then `tunet table`"
        )
    copy_weights(run)
    results = BOOK / "results"
    results.mkdir(exist_ok=True)
    for added in results.glob("provenance_*.json"):  # of trainings that were added to another run
        added.unlink()
    for name in SCORED:
        shutil.copyfile(run.folder / name, results / name)
    write_learning_curves(BOOK / "results" / "learning_curves.csv", epochs_of(run, run.tasks()))
    write_maps()
    result_picture.main()


def epochs_of(run: Run, tasks: Iterable[Task]) -> Iterator[dict[str, Any]]:
    """Give the epochs of some trainings."""
    for name, fold in tasks:
        for log in run.model_folder((name, fold)).history():
            yield {"fold": fold, "variant": name} | log


def write_learning_curves(path: Path, epochs: Iterable[dict[str, Any]]) -> None:
    """Put epochs into one table, fold by fold."""
    in_order = sorted(epochs, key=lambda log: (int(log["fold"]), log["variant"]))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["fold", "variant", *FIELDS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(in_order)


def copy_weights(run: Run) -> None:
    """Replace the course weights by all trained networks of the course's fold.

    Raises
    ------
    DataError
        A TuNet or an L-Net is missing, or all are too large; then nothing is replaced.
    """
    folders = {name: run.model_folder((name, FOLD)) for name, _ in run.tasks(folds=[FOLD])}
    trained = {name: folder for name, folder in folders.items() if folder.is_trained}
    if missing := {*ENSEMBLE, *LOCALIZERS} - set(trained):
        raise DataError(
            f"{run.folder}: fold {FOLD} lacks {', '.join(sorted(missing))}; train first"
        )
    size_mb = sum(folder.weights.stat().st_size for folder in trained.values()) / 2e6  # halved
    if size_mb > LIMIT_MB:
        raise DataError(f"{run.folder}: {size_mb:.1f} MB of weights, at most {LIMIT_MB}")
    for old in COURSE_WEIGHTS.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    for variant, folder in trained.items():
        publish_model(folder, COURSE_WEIGHTS / variant)
    print(f"{size_mb:.1f} MB of weights")


def publish_model(source: ModelFolder, target: Path) -> None:
    """Copy a trained network, its weights as float16: half the size, and they load as float32."""
    target.mkdir(parents=True, exist_ok=True)
    for path in (source.config_path, source.variant_path):
        shutil.copyfile(path, target / path.name)
    halve_weights(source.weights, target / source.weights.name)


def write_maps() -> None:
    """Store what each of the course's networks finds in each held-out case, in steps of 1/255."""
    COURSE_MAPS.mkdir(exist_ok=True)
    names = [path.name for path in sorted(COURSE_WEIGHTS.iterdir()) if path.is_dir()]
    for source in held_out_cases(BOOK.parent / "data" / "phantoms"):
        case = CourseCase.load(source)
        maps = {name: np.rint(255 * case.predict(name)).astype(np.uint8) for name in names}
        path = COURSE_MAPS / f"{case.case_id}.npz"
        np.savez_compressed(path, ct=np.uint32(case.digest()), **maps)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1])
