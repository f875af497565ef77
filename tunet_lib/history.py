"""The log of a training, ``history.csv``: a line for each epoch.

Chapter 09 (``notebooks/09_training.ipynb``) draws it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tunet_lib.files import DataError, atomic_path

FIELDS = ("epoch", "loss", "val_loss", "learning_rate", "attempts", "time_s")

EpochLog = dict[str, float]


def write_history(
    path: str | Path,
    history: Sequence[EpochLog],
    *,
    before: Callable[[], object] | None = None,
) -> None:
    """Write the logs of all epochs as CSV, atomically; `before` is that of `atomic_path`."""
    with (
        atomic_path(path, before=before) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[EpochLog]:
    """Read what `write_history` wrote.

    Returns
    -------
    list of dict
        For each epoch: epoch (from 1), loss, val_loss (L2 included), learning_rate, attempts
        (1 unless numbers ceased to be finite, and the epoch began anew), time_s.

    Raises
    ------
    DataError
        The file is missing or not such a CSV, or a number in it cannot be.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if missing := set(FIELDS) - set(reader.fieldnames or ()):
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            rows = [{name: float(row[name]) for name in FIELDS} for row in reader]
        return checked_history(rows)
    except (OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a training history ({error})") from error


def checked_history(rows: Sequence[EpochLog]) -> list[EpochLog]:
    """Make sure that these are the logs of a training's epochs; the counts become integers.

    Raises
    ------
    KeyError, TypeError, ValueError
        They are not.
    """
    for number, row in enumerate(rows, start=1):
        is_count = row["attempts"] >= 1 and row["attempts"] % 1 == 0
        if row["epoch"] != number or not is_count or not row["time_s"] >= 0:
            raise ValueError(f"line {number} is not that of epoch {number}")
        if not all(math.isfinite(row[name]) for name in FIELDS):
            raise ValueError(f"epoch {number} has a number that is not finite")
    counts = ("epoch", "attempts")
    return [{**row, **{name: int(row[name]) for name in counts}} for row in rows]
