"""How long does a chapter run? ``[NUMBER …]``, such as ``05``; all of them without a number.

Runs each from top to bottom, with the solutions of its exercises, in a kernel of its own on two
processor cores. Nothing else may run meanwhile. Writes book/results/chapters.csv, where the other
chapters keep their lines; a test holds the cards of the chapters against it.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import time
from pathlib import Path

import nbformat
from experiments import machine
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TABLE = Path(__file__).parent / "results" / "chapters.csv"
CORES = 2
LONGEST_S = 1200


def cpu_s() -> float:
    """Give the processor time of all kernels that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(path: Path) -> dict[str, str]:
    """Run a notebook as it stands, and give its line of the table."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    started, used_s = time.monotonic(), cpu_s()
    NotebookClient(notebook, timeout=LONGEST_S, resources=where).execute()
    wall_s, used_s = time.monotonic() - started, cpu_s() - used_s
    figures = {"wall_s": f"{wall_s:.0f}", "cpu_s": f"{used_s:.0f}"}
    return {"chapter": path.stem} | figures | {"cores": str(CORES), "machine": machine()}


def main() -> None:
    """Measure chapters, and write their lines as soon as they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*")
    numbers = parser.parse_args().numbers
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    lines = {}
    if TABLE.exists():
        with TABLE.open(newline="", encoding="utf-8") as stream:
            lines = {line["chapter"]: line for line in csv.DictReader(stream)}
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        if numbers and path.stem[:2] not in numbers:
            continue
        lines[path.stem] = line = measure(path)
        print(*line.values(), flush=True)
        with TABLE.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, line, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines[chapter] for chapter in sorted(lines))


if __name__ == "__main__":
    main()
