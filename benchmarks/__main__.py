"""Measure all rows, or those that are named: python -m benchmarks [prepare back …]."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

# Without it TensorFlow reports each feature of the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.harness import Measured, table, write
from tunet_lib.environment import machine, versions

ROWS = (
    "startup",
    "prepare",
    "back",
    "algorithm_1",
    "surfaces",
    "patch_rate",
    "train_step",
    "predict",
)
RESULT = Path(__file__).parents[1] / "book" / "results" / "benchmarks.csv"


def main(names: list[str]) -> None:
    """Measure, print the table, and write the CSV if every row was measured."""
    lines: list[Measured] = []
    for name in names or ROWS:
        measured = importlib.import_module(f"benchmarks.{name}").measure()
        print(table(measured), flush=True)
        lines += measured
    here = machine()
    described = f"{here['cores']} cores ({here['cpu']}), {here['memory_gb']:.0f} GB, {here['os']}"
    used = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    if not names:
        write(RESULT, lines, f"{described}; {used}")
        print(f"{table(lines)}\n\n{described}\n{RESULT}")


if __name__ == "__main__":
    main(sys.argv[1:])
