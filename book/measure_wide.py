"""Measure the networks on CTs of other looks: python book/measure_wide.py --data DATA.

An L-Net and a TuNet of each of the two sets that come with the library, the course's and `wide`,
segment CTs that neither was trained on:

portal
    The tuning phantoms of `experiments.py`, which look like the study's: what does breadth cost?
wide, healthy
    Phantoms of any look, those with a tumor and those with kidneys but none.
kits19
    With ``--kits19 FOLDER``: CTs simulated around every other of its real label maps, at most 60.
real
    With ``--real CT LABEL VALUES``: a CT whose kidneys are marked by these values of a label map.

A line for each CT goes to book/results/wide_scores.csv as soon as it is there; a call that was cut
short has measured a share of every source, and goes on. Scores are of the CT's own voxels. No CT
measured here chose anything, but for those of `portal`: on them the course's recipe was chosen.
"""

from __future__ import annotations

import argparse
import csv
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cc3d
import numpy as np
from experiments import TUNING_CASES, TUNING_SEED

from tunet_lib.files import DataWarning
from tunet_lib.kits19 import Case, find_cases, require_image, require_label
from tunet_lib.metrics import dice
from tunet_lib.mistakes import tumor_figures, tumor_free_kidneys
from tunet_lib.phantom import simulate_ct, write_phantoms
from tunet_lib.predict import COURSE_WEIGHTS, WIDE_WEIGHTS, Networks, predict_scan
from tunet_lib.scans import Scan, load_label_map, load_scan, scan_of

RESULT = Path(__file__).parent / "results" / "wide_scores.csv"
SEED, WIDE_CASES = 77004, 96  # apart from those that trained
KITS19_CASES = 60
SMALLEST_KIDNEY_ML = 10  # a smaller piece is a part of one
FIELDS = (
    "source",
    "case_id",
    "networks",
    "whole",
    "tumor",
    "tumor_ml",
    "found_tumor_ml",
    "false_tumor_ml",
    "healthy_kidneys",
)


@dataclass(frozen=True)
class Measured:
    """A CT and its truth, loaded when its turn comes; tumors are scored if they are in it."""

    source: str
    case_id: str
    load: Callable[[], tuple[Scan, np.ndarray]]
    tumors_marked: bool = True


def of_phantoms(source: str, cases: list[Case]) -> Iterator[Measured]:
    """Give phantoms as they are; those without a tumor are a source of their own."""
    for case in cases:
        label_path, image_path = require_label(case), require_image(case)
        label = load_label_map(label_path).label
        if not label.any():
            continue  # no kidney: nothing to score
        yield Measured(
            source if (label == 2).any() else "healthy",
            case.case_id,
            partial(phantom, image_path, label_path),
        )


def phantom(image: Path, label: Path) -> tuple[Scan, np.ndarray]:
    """Load a phantom and its truth."""
    return load_scan(image), load_label_map(label).label


def simulated(case: Case, seed: int) -> tuple[Scan, np.ndarray]:
    """Simulate a CT around a real label map."""
    truth = load_label_map(require_label(case))
    rng = np.random.default_rng([SEED, seed])
    hu = simulate_ct(truth.label, truth.spacing_mm, rng)
    return scan_of(hu, truth.spacing_mm), truth.label


def real(ct: Path, label: Path, values: list[int]) -> tuple[Scan, np.ndarray]:
    """Load a CT and which of its voxels are kidney; the label map may have many other values."""
    scan = load_scan(ct)
    organs = load_scan(label).volume_hu  # a label map of other values than 0, 1 and 2
    return scan, np.isin(np.round(organs), values).astype(np.uint8)


def score(
    truth: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, ...]
) -> dict[str, float | None]:
    """Score a label map on the voxels of the CT."""
    figures, voxel_ml = tumor_figures(label, truth, spacing_mm), math.prod(spacing_mm) / 1000
    healthy = tumor_free_kidneys(truth, spacing_mm)
    kidneys = cc3d.dust(healthy, threshold=round(SMALLEST_KIDNEY_ML / voxel_ml), connectivity=26)
    _, count = cc3d.connected_components(kidneys, connectivity=26, return_N=True)
    return {
        "whole": dice(label > 0, truth > 0),
        "tumor": dice(label == 2, truth == 2) if (truth == 2).any() else None,
        "tumor_ml": figures["tumor_ml"],
        "found_tumor_ml": float((label == 2).sum()) * voxel_ml,
        "false_tumor_ml": figures["false_tumor_ml"],
        "healthy_kidneys": count,
    }


def course_pair(folder: Path) -> Networks:
    """Take one L-Net and one TuNet of the course, as `wide` has: what differs is their training."""
    folder.mkdir(exist_ok=True)
    for name in ("lnet", "tunet"):
        if not (folder / name).exists():
            (folder / name).symlink_to(COURSE_WEIGHTS / name)
    return Networks(folder)


def main() -> None:
    """Measure what is not in the CSV yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kits19", type=Path)
    parser.add_argument("--real", nargs="+", metavar="CT LABEL VALUE")
    arguments = parser.parse_args()
    tuning = write_phantoms(arguments.data / "tuning", TUNING_CASES, TUNING_SEED)
    wide = write_phantoms(arguments.data / "wide_unseen", WIDE_CASES, SEED, looks="wide")
    todo = [*of_phantoms("portal", tuning), *of_phantoms("wide", wide)]
    if arguments.kits19:
        for number, case in enumerate(find_cases(arguments.kits19)[::2][:KITS19_CASES]):
            todo.append(Measured("kits19", case.case_id, partial(simulated, case, number)))
    todo = [*todo[::3], *todo[1::3], *todo[2::3]]
    if arguments.real:
        ct, label, *values = arguments.real
        load = partial(real, Path(ct), Path(label), [int(value) for value in values])
        todo.insert(0, Measured("real", Path(ct).name, load, tumors_marked=False))
    networks = {
        "course": course_pair(arguments.data / "course_pair"),
        "wide": Networks(WIDE_WEIGHTS),
    }
    done = set()
    if RESULT.exists():
        with RESULT.open(newline="", encoding="utf-8") as stream:
            done = {(r["source"], r["case_id"], r["networks"]) for r in csv.DictReader(stream)}
    else:
        RESULT.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for each in todo:
        left = [name for name in networks if (each.source, each.case_id, name) not in done]
        if not left:
            continue
        scan, truth = each.load()
        for name in left:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)  # of the rule, for each CT
                label = predict_scan(scan, networks[name])
            row = score(truth, label, scan.spacing_mm)
            if not each.tumors_marked:
                row |= dict.fromkeys(("tumor", "tumor_ml", "false_tumor_ml", "healthy_kidneys"))
            written = {k: "" if v is None else round(v, 4) for k, v in row.items()}
            written |= {"source": each.source, "case_id": each.case_id, "networks": name}
            with RESULT.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, FIELDS, lineterminator="\n").writerow(written)
            print(*written.values(), flush=True)


if __name__ == "__main__":
    main()
