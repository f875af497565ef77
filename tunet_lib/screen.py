"""What the `tunet` command shows: bars, messages, and what failed while the rest was done."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from tunet_lib.files import notes_taken

console = Console()


class _Forgiving(io.FileIO):
    """What nobody can read (a pipe that was closed, a log on a full disk) fails nothing."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def make_streams_safe() -> None:
    """Let no message end the program: streams may be closed, full, or of few letters.

    The next file that is opened would else get the number of a closed stream, and what is meant
    for the screen would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):  # no console
                setattr(sys, name, _forgiving(stream))


def _forgiving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Forgiving(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def say(message: str) -> None:
    """Print a message as it is, on lines as long as they are."""
    console.print(Text(message), soft_wrap=True)


def warn(message: str) -> None:
    """Print a message that asks for attention, as it is."""
    console.print(Text(message, style="yellow"), soft_wrap=True)


@contextmanager
def notes_at_the_end() -> Iterator[None]:
    """Show what is warned of when the bar is done, a sentence each."""
    notes: list[str] = []
    try:
        with notes_taken() as notes:
            yield
    finally:
        for note in notes:
            warn(note)


def complain(name: str, reason: str) -> None:
    """Print to stderr what is wrong with what."""
    # Text, for a path or a list in a message may look like rich's markup.
    message = Text.assemble((f"{name}:", "red"), f" {reason}")
    Console(stderr=True).print(message, soft_wrap=True)


def show_table(columns: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]]) -> None:
    """Print a table; the last cell of a row is red if the row is bad, else yellow."""
    table = Table(*columns)
    for (*cells, what), is_bad in rows:
        table.add_row(*map(Text, cells), Text(what, style="red" if is_bad else "yellow"))
    console.print(table)


@contextmanager
def failures_at_the_end() -> Iterator[dict[str, str]]:
    """Report what failed (name → reason) once the rest is done; then end with status 1."""
    failures: dict[str, str] = {}
    try:
        yield failures
    finally:  # a step that cannot go on must not hide what failed before it
        for name, reason in failures.items():
            complain(name, reason)
    if failures:
        raise typer.Exit(1)


def bars() -> Progress:
    """Make bars that count; add one by `add_task`."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[..., None]]:
    """Show one bar, and give what advances it, by 1 or by a share."""
    with bars() as progress:
        task = progress.add_task(name, total=total)
        yield lambda part=1: progress.advance(task, part)
        progress.update(task, completed=total)  # parts that are fractions may not add up


@contextmanager
def bytes_bar(name: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Show a bar of bytes, and give what sets its size and what advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as shown:
        task = shown.add_task(name, total=None)
        yield lambda size: shown.update(task, total=size), lambda size: shown.advance(task, size)
