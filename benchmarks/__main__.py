"""Measure all rows, or those that are named: python -m benchmarks [prepare back …].

A row's lines are measured in turns in one process, so a row can be measured again by itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from pathlib import Path

# Without it TensorFlow reports each feature of the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.harness import table, write
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
    """Measure, print the table, and put each row into the CSV in place of its last measurement."""
    here = machine()
    described = f"{here['cores']} cores ({here['cpu']}), {here['memory_gb']:.0f} GB, {here['os']}"
    used = ", ".join(
        f"{name} {version}" for name, version in {**versions(), **peers()}.items() if version
    )
    for name in names or ROWS:
        lines = importlib.import_module(f"benchmarks.{name}").measure()
        print(table(lines), flush=True)
        write(RESULT, name, lines, f"{described}; {used}")
    print(f"{described}\n{RESULT}")


def peers() -> dict[str, str]:
    """Give the versions of what is measured beside."""
    names = ("torch", "monai", "torchio", "SimpleITK", "surface-distance-based-measures")
    return {name: metadata.version(name) for name in names}


if __name__ == "__main__":
    main(sys.argv[1:])
