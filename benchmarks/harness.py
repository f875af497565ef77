"""Two ways to do one thing, measured in turns, with the same input and a check of the output."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes
    ----------
    work, by
        What was done, and with what.
    runs, min_s, median_s, max_s
        Wall time.
    ratio
        Median time of the peer over ours; blank for ours.
    goal
        The least ratio wanted; for ours without peers, the most seconds wanted.
    agrees
        How the peer's output compares with ours.
    """

    work: str
    by: str
    runs: int
    min_s: float
    median_s: float
    max_s: float
    ratio: float | None = None
    goal: float | None = None
    agrees: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if self.goal is None:
            return None
        return self.median_s <= self.goal if self.ratio is None else self.ratio >= self.goal


def compare(
    work: str,
    ours: Work,
    peers: dict[str, tuple[Work, float | None]],
    agree: Callable[[Any, Any], str] | None = None,
    rounds: int = 5,
    ours_name: str = "tunet_lib",
) -> list[Measured]:
    """Measure ours and each peer in turns, so that a busy machine is busy for all of them.

    Parameters
    ----------
    work
        What is done.
    ours
        Does it our way and gives the output.
    peers
        Name → (the same another way, the least ratio of its time to ours that is wanted).
    agree
        Compares (our output, a peer's output), raises if they differ, and says how closely
        they agree.
    rounds
        How many times each is measured, after one run that is not.
    ours_name
        What ours is called.
    """
    everyone = {ours_name: ours, **{name: peer for name, (peer, _) in peers.items()}}
    outputs, times_s = in_turns(everyone, rounds)
    said = {}
    if agree is not None:
        said = {name: agree(outputs[ours_name], outputs[name]) for name in peers}
    goals = {name: goal for name, (_, goal) in peers.items()}
    return ratios(work, times_s, ours_name, goals, said)


def in_turns(
    everyone: dict[str, Work], rounds: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Run each once for its output, then each again and again for its times in seconds."""
    outputs = {name: run() for name, run in everyone.items()}
    times_s: dict[str, list[float]] = {name: [] for name in everyone}
    for _ in range(rounds):
        for name, run in everyone.items():
            start_s = time.perf_counter()
            run()
            times_s[name].append(time.perf_counter() - start_s)
    return outputs, times_s


def ratios(
    work: str,
    times_s: dict[str, list[float]],
    ours_name: str,
    goals: dict[str, float | None],
    said: dict[str, str],
) -> list[Measured]:
    """Make the lines of ours and of each peer that has a goal, or None for one."""
    ours_s = statistics.median(times_s[ours_name])
    lines = [_line(work, ours_name, times_s[ours_name])]
    for name, goal in goals.items():
        ratio = statistics.median(times_s[name]) / ours_s
        lines.append(_line(work, name, times_s[name], ratio, goal, said.get(name, "")))
    return lines


def alone(work: str, run: Work, goal_s: float, rounds: int = 7) -> list[Measured]:
    """Measure something that has no peer."""
    times_s = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start_s)
    return [_line(work, "tunet_lib", times_s, goal=goal_s)]


def table(lines: Sequence[Measured]) -> str:
    """Set the lines as Markdown."""
    rows = [["work", "by", "min s", "median s", "max s", "ratio", "goal", "met", "agrees"]]
    for line in lines:
        met = {None: "", True: "yes", False: "NO"}[line.met]
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        goal = "" if line.goal is None else f"{line.goal:g}{' s' if line.ratio is None else ''}"
        times = (f"{value:.3f}" for value in (line.min_s, line.median_s, line.max_s))
        rows.append([line.work, line.by, *times, ratio, goal, met, line.agrees])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def write(path: Path, row: str, lines: Sequence[Measured], machine: str) -> None:
    """Write the lines of a row as CSV, with the machine in a column; other rows stay."""
    names = ["row", *(field.name for field in fields(Measured)), "machine"]
    kept = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            kept = [line for line in csv.DictReader(stream) if line["row"] != row]
    for line in lines:
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(line).items()}
        kept.append({"row": row, **values, "machine": machine})
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def _line(
    work: str,
    name: str,
    times_s: Sequence[float],
    ratio: float | None = None,
    goal: float | None = None,
    agrees: str = "",
) -> Measured:
    low, middle, high = min(times_s), statistics.median(times_s), max(times_s)
    return Measured(work, name, len(times_s), low, middle, high, ratio, goal, agrees)
