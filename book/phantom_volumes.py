"""Compare phantoms with real cases by volume: python book/phantom_volumes.py PHANTOMS KITS19.

Both are folders in KiTS19's layout, of which only the label maps are read. Writes
quantiles of the volumes to book/results/phantom_volumes.csv. They show what phantoms are like;
phantoms are not fitted to them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tunet_lib.kits19 import find_cases, require_label
from tunet_lib.metrics import volume_ml
from tunet_lib.scans import load_label_map

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def main(phantoms: str, real: str) -> None:
    """Write the quantiles of both folders, in ml."""
    volumes = {"phantom": volumes_ml(phantoms), "KiTS19": volumes_ml(real)}
    lines = ["region,source,count," + ",".join(f"q{100 * q:02.0f}" for q in QUANTILES)]
    for column, region in enumerate(("tumor", "whole")):
        for source, values in volumes.items():
            numbers = np.quantile(values[:, column], QUANTILES)
            row = region, source, str(len(values)), *(f"{number:.1f}" for number in numbers)
            lines.append(",".join(row))
    path = Path(__file__).parent / "results" / "phantom_volumes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def volumes_ml(folder: str) -> np.ndarray:
    """Measure all tumors of each case together, and kidneys with tumors: (cases, 2) in ml."""
    rows = []
    for case in find_cases(folder):
        truth = load_label_map(require_label(case))
        masks = truth.label == 2, truth.label > 0
        rows.append([volume_ml(mask, truth.spacing_mm) for mask in masks])
    return np.array(rows)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
