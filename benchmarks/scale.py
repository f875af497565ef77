"""How time and memory grow with cases, slices and the ensemble: python -m benchmarks.scale.

Each point runs in a process of its own. Time is what it and its children used of the processors,
which other work on the machine changes little. Memory is theirs at its largest, pages that they
share counted once for each.
"""

from __future__ import annotations

import contextlib
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from benchmarks.cases import full_size_case
from benchmarks.memory import largest_case
from tunet_lib.config import ENSEMBLE
from tunet_lib.predict import COURSE_WEIGHTS

RESULTS = Path(__file__).parents[1] / "book" / "results"
CASES, SLICES, NETWORKS = (10, 40, 210), (50, 216, 500, 1059), (1, 4, 10, 20)
PREPARE = """
from pathlib import Path
from tunet_lib.config import Config
from tunet_lib.kits19 import find_cases
from tunet_lib.preprocess import prepare_cases
cases, config = find_cases({data!r}), Config.preset("paper")
_, failures = prepare_cases(cases, Path({out!r}), config, workers=2)
assert not failures, failures
"""
PREDICT = """
from tunet_lib.kits19 import find_cases
from tunet_lib.predict import predict_scan
from tunet_lib.scans import open_scan, save_label
scan = open_scan(find_cases({data!r})[0].image_path)
save_label(predict_scan(scan, {models!r}), scan, {out!r} + "/label.nii.gz")
"""


def measure(code: str) -> tuple[float, float]:
    """Run code; give the processor time in seconds and the peak memory in GB."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not ended.wait(0.05):
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
                for one in [root, *root.children(recursive=True)]:
                    total += one.memory_info().rss
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code_returned = process.wait()
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    time_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if code_returned:
        raise RuntimeError(f"a measurement failed: {code}")
    return time_s, peak / 1e9


def many_cases(count: int, folder: Path) -> Path:
    """Lay out one full-size case under many names."""
    source = full_size_case()
    for k in range(count):
        (folder / f"case_{k:05d}").mkdir(parents=True)
        for path in (source.image_path, source.label_path):
            assert path is not None
            (folder / f"case_{k:05d}" / path.name).symlink_to(path.resolve())
    return folder


def many_networks(count: int, folder: Path) -> Path:
    """Lay out an L-Net and this many TuNets: the course's four, again and again."""
    shutil.copytree(COURSE_WEIGHTS / "lnet", folder / "lnet")
    for k in range(count):
        shutil.copytree(COURSE_WEIGHTS / ENSEMBLE[k % len(ENSEMBLE)], folder / f"tunet_{k:02d}")
    return folder


def points() -> list[tuple[str, int, float, float]]:
    """Measure what grows, how large it is, seconds, and GB."""
    rows = []

    def add(what: str, size: int, code: str) -> None:
        rows.append((what, size, *measure(code)))
        print(*rows[-1], flush=True)

    for count in NETWORKS:
        with tempfile.TemporaryDirectory() as out:
            models = many_networks(count, Path(out) / "models")
            data = str(full_size_case().image_path.parents[1])  # type: ignore[union-attr]
            add("predict, networks", count, PREDICT.format(data=data, models=str(models), out=out))
    for slices in SLICES:
        data = str(largest_case((slices, 512, 512)))
        with tempfile.TemporaryDirectory() as out:
            add("prepare, slices", slices, PREPARE.format(data=data, out=out))
            models = str(COURSE_WEIGHTS)
            add("predict, slices", slices, PREDICT.format(data=data, models=models, out=out))
    for count in CASES:
        with tempfile.TemporaryDirectory() as out:
            data = str(many_cases(count, Path(out) / "data"))
            add("prepare, cases", count, PREPARE.format(data=data, out=f"{out}/prepared"))
    return rows


def figure(rows: list[tuple[str, int, float, float]]) -> Figure:
    """Draw time and memory over each of the three sizes, on axes that begin at zero."""
    drawn = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = drawn.subplots(2, 3)
    names = ("processor time in s", "peak memory in GB")
    for column, unit in enumerate(("cases", "slices", "networks")):
        for work, color in (("prepare", "#0072B2"), ("predict", "#D55E00")):
            line = [row[1:] for row in rows if row[0] == f"{work}, {unit}"]
            for ax, values in zip(axes[:, column], list(zip(*line, strict=True))[1:], strict=False):
                ax.plot([size for size, *_ in line], values, "o-", color=color, label=work)
        for ax, name in zip(axes[:, column], names, strict=True):
            ax.set(xlabel=unit, ylabel=name)
            ax.set_xlim(0, 1.1 * ax.dataLim.x1)
            ax.set_ylim(0, 1.1 * ax.dataLim.y1)
            ax.spines[["top", "right"]].set_visible(False)
    lines = axes[0, 1].get_legend_handles_labels()  # slices are prepared and predicted
    drawn.legend(*lines, loc="outside upper center", ncols=2, frameon=False)
    return drawn


def main() -> None:
    """Measure, and write the CSV and the figure."""
    rows = points()
    with (RESULTS / "scale.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["work", "size", "cpu_s", "peak_gb"])
        writer.writerows([what, size, round(s, 1), round(gb, 2)] for what, size, s, gb in rows)
    figure(rows).savefig(RESULTS / "scale.png", dpi=180)


if __name__ == "__main__":
    main()
