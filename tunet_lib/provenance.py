"""Where a result comes from: versions, seed, commit, machine and wall time of a run."""

from __future__ import annotations

import csv
import dataclasses
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.runs import Run

TIMES_NAME = "times.json"
PROVENANCE_NAME = "provenance.json"
PACKAGES = [
    *("tunet-book", "keras", "tensorflow", "numpy", "scipy", "nibabel"),
    *("connected-components-3d", "surface-distance-based-measures"),
]


@contextmanager
def timed(folder: str | Path, step: str) -> Iterator[None]:
    """Add the wall time of a block to the run's ``times.json``, also if it is interrupted.

    Parameters
    ----------
    folder
        The run folder; nothing is written if the block did not make it one.
    step
        Such as ``"prepare"``.
    """
    start_s = time.monotonic()
    try:
        yield
    finally:
        if (Path(folder) / "run.json").exists():
            times_s = _times(Path(folder))
            times_s[step] = round(times_s.get(step, 0.0) + time.monotonic() - start_s, 1)
            save_json(Path(folder) / TIMES_NAME, times_s)


def write_provenance(run: Run) -> dict[str, Any]:
    """Write ``provenance.json`` into the run folder, atomically.

    Returns
    -------
    dict
        What was written. ``wall_time_s`` are the steps as measured, over all sessions;
        ``training_time_s`` sums the epochs of each variant over the folds, so trainings
        that ran side by side both count.

    Raises
    ------
    DataError
        The folder cannot be written, or a training's history is damaged.
    """
    training_time_s = _training_times(run)
    # Without a measured time the trainings may be older than the folder's times.json.
    wall_time_s = {"prepare": 0.0, "train": sum(training_time_s.values()), "evaluate": 0.0}
    wall_time_s |= _times(run.folder)
    provenance = {
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": _command(),
        "seed": run.config.seed,
        "cases": sum(map(len, run.folds)),
        "folds": len(run.folds),
        "total_time_s": round(sum(wall_time_s.values()), 1),
        "wall_time_s": wall_time_s,
        "training_time_s": training_time_s,
        "machine": machine(),
        "versions": versions(),
        "git": git_state(),
        "config": dataclasses.asdict(run.config),
    }
    save_json(run.folder / PROVENANCE_NAME, provenance)
    return provenance


def versions() -> dict[str, str | None]:
    """Give the versions of Python and of the packages that decide the numbers."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Give the commit that the library runs from, and whether its files were changed since.

    None if it does not run from a checkout of its own.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """Describe the machine: CPU, cores, memory in GB, GPUs and operating system."""
    cpu = re.search(r"^model name\s*: (.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = re.search(r"^MemTotal: +(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        "gpus": [m[1] for m in (re.search(r"Model:\s*(.+)", _text(p)) for p in gpus) if m],
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _times(folder: Path) -> dict[str, float]:
    return load_json(folder / TIMES_NAME) if (folder / TIMES_NAME).exists() else {}


def _training_times(run: Run) -> dict[str, float]:
    totals: dict[str, float] = {}
    for name, fold in run.tasks():
        path = run.model_folder(name, fold) / "history.csv"
        if path.exists():
            try:
                with path.open(newline="") as stream:
                    time_s = sum(float(row["time_s"]) for row in csv.DictReader(stream))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}: is no training history; train again") from error
            totals[name] = round(totals.get(name, 0.0) + time_s, 1)
    return totals


def _command() -> str:
    """Give the command as it was typed, without where on the machine its folders are."""
    arguments = [Path(text).name if os.path.isabs(text) else text for text in sys.argv[1:]]
    return shlex.join(["tunet", *arguments])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
