"""How long a checkpoint takes to write: python -m benchmarks.checkpoint [FOLDER].

The network is the paper's TuNet, written as a training writes it, flushed to the disk of FOLDER
(default: the system's temporary folder). Prints the result and writes book/results/checkpoint.csv.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tunet_lib.config import VARIANTS, Config
from tunet_lib.environment import machine
from tunet_lib.training import Schedule, Training, compiled

RESULT = Path(__file__).parents[1] / "book" / "results" / "checkpoint.csv"
TIMES = 5


def main(folder: str | None = None) -> None:
    """Write a checkpoint some times, and note the median time and the size."""
    training = Training.__new__(Training)  # without cases: nothing is trained
    training.network = compiled(VARIANTS["tunet"], Config.preset("paper"))
    training.best = training.network.get_weights()
    training.schedule = Schedule(1e-4)
    times_s = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "checkpoint.npz"
        for _ in range(TIMES):
            start_s = time.perf_counter()
            training.save(path)
            times_s.append(time.perf_counter() - start_s)
        size_mb = path.stat().st_size / 1e6
    here = machine()
    row = {
        "network": "tunet, paper",
        "size_mb": round(size_mb, 1),
        "median_s": round(statistics.median(times_s), 2),
        "min_s": round(min(times_s), 2),
        "max_s": round(max(times_s), 2),
        "machine": f"{here['cores']} cores ({here['cpu']}), {here['os']}",
    }
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main(*sys.argv[1:])
