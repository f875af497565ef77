"""Do the networks' own maps tell a wrong tumor? python book/measure_doubt.py --data DATA.

The networks for CTs from anywhere segment two sets of simulated CTs that none of them was trained
on. On the first, `choose`, `tunet_lib.plausible.SURE_PROB` was chosen; on the second, `judge`, it
is judged.

choose
    Phantoms of any look, with a seed of their own.
judge
    Phantoms of any look of `measure_wide.py`, and with ``--kits19 FOLDER`` CTs around some of its
    real label maps.

A line for each CT goes to book/results/doubt.csv as soon as it is there; a call that was cut short
goes on.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from measure_wide import KITS19_CASES, SEED, WIDE_CASES, phantom, simulated

from tunet_lib.files import DataWarning
from tunet_lib.kits19 import find_cases, require_image, require_label
from tunet_lib.metrics import dice
from tunet_lib.phantom import write_phantoms
from tunet_lib.predict import WIDE_WEIGHTS, Networks, predict_scan
from tunet_lib.scans import Scan

RESULT = Path(__file__).parent / "results" / "doubt.csv"
CHOOSE_SEED, CHOOSE_CASES = 77006, 48
JUDGE_PHANTOMS, JUDGE_SHAPES = 16, 4
FIELDS = (
    *("set", "source", "case_id", "mean_prob", "highest_prob"),
    *("tumor_ml", "found_tumor_ml", "wrong_tumor_ml", "tumor", "by_rule"),
)


def cts(data: Path, kits19: Path | None) -> Iterator[tuple[str, str, str, partial]]:
    """Give set, source, name, and what loads a CT with its truth."""
    wide = write_phantoms(data / "wide_unseen", WIDE_CASES, SEED, looks="wide")
    for name, cases in (
        ("choose", write_phantoms(data / "unsure", CHOOSE_CASES, CHOOSE_SEED, looks="wide")),
        ("judge", wide[::2][:JUDGE_PHANTOMS]),
    ):
        for case in cases:
            load = partial(phantom, require_image(case), require_label(case))
            yield name, "wide", case.case_id, load
    if kits19:
        shapes = list(enumerate(find_cases(kits19)[::2][:KITS19_CASES]))[::3]
        for number, case in shapes[:JUDGE_SHAPES]:
            yield "judge", "kits19", case.case_id, partial(simulated, case, number)


def figures(networks: Networks, scan: Scan, truth: np.ndarray) -> dict[str, float]:
    """Segment one CT, and keep what its maps say of the tumor, as `check_tumor` is told."""
    with patch("tunet_lib.predict.check_tumor") as check:
        label = predict_scan(scan, networks)
    on_grid, tumor_prob, _ = check.call_args.args
    probs_of_tumor = tumor_prob[on_grid == 2]
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    return {
        "mean_prob": probs_of_tumor.mean() if probs_of_tumor.size else np.nan,
        "highest_prob": probs_of_tumor.max(initial=0),
        "tumor_ml": (truth == 2).sum() * voxel_ml,
        "found_tumor_ml": (label == 2).sum() * voxel_ml,
        "wrong_tumor_ml": ((label == 2) & (truth < 2)).sum() * voxel_ml,
        "tumor": dice(label == 2, truth == 2) if (truth == 2).any() else np.nan,
        "by_rule": int(check.call_args.kwargs["by_rule"]),
    }


def main() -> None:
    """Measure what is not in the CSV yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kits19", type=Path)
    arguments = parser.parse_args()
    networks = Networks(WIDE_WEIGHTS)
    done = set()
    if RESULT.exists():
        with RESULT.open(newline="", encoding="utf-8") as stream:
            done = {(row["source"], row["case_id"], row["set"]) for row in csv.DictReader(stream)}
    else:
        RESULT.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for name, source, case_id, load in cts(arguments.data, arguments.kits19):
        if (source, case_id, name) in done:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            row = figures(networks, *load())
        written = {key: round(float(value), 4) for key, value in row.items()}
        with RESULT.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writerow({"set": name, "source": source, "case_id": case_id, **written})


if __name__ == "__main__":
    main()
