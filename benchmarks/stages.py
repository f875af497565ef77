"""Where the time of preparing one CT goes: python -m benchmarks.stages."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from isal import igzip_threaded

from benchmarks.cases import full_size_case
from benchmarks.harness import in_turns
from benchmarks.prepare import CONFIG, ours
from tunet_lib.kits19 import require_image
from tunet_lib.median import median_3x3x3
from tunet_lib.placement import Placement
from tunet_lib.preprocess import normalize
from tunet_lib.scans import open_scan

RESULT = Path(__file__).parents[1] / "book" / "results" / "stages.csv"
ROUNDS = 7


def main() -> None:
    """Measure the stages in turns, print and write them."""
    path = require_image(full_size_case())
    scan = open_scan(path)
    placement = Placement(scan, CONFIG)
    grid_hu, inside = placement.to_grid(scan), placement.covered

    def unpack() -> None:
        with igzip_threaded.open(path, "rb") as stream:
            while stream.read(1 << 22):
                pass

    stages = {
        "unpack the file": unpack,
        "unpack and resample": lambda: placement.to_grid(scan),
        "median filter": lambda: median_3x3x3(grid_hu),
        "normalize": lambda: normalize(grid_hu, inside),
        "all": ours,
    }
    _, times_s = in_turns(stages, ROUNDS)
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["stage", "min_s", "median_s"])
        for name, values in times_s.items():
            line = [name, f"{min(values):.2f}", f"{statistics.median(values):.2f}"]
            writer.writerow(line)
            print(*line)


if __name__ == "__main__":
    main()
