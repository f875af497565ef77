"""Papers as they come in: notebooks and zips, named as Moodle, Canvas or Gradescope do."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MOST_BYTES = 2**25  # of one notebook; a student's pictures fit, a bomb does not
MOST_BYTES_ZIP = 2**29  # of a zip in a zip: some pack the data as well
TOO_LARGE = "too large to be a notebook"
DEEPEST = 4  # zips within zips

NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$", re.IGNORECASE)  # as browsers save them, too
ENDING = re.compile(r"\.(zip|ipynb(\.txt|\.json)?)$", re.IGNORECASE)
# What stands before the student's own file name.
MOODLE = re.compile(r"^(?P<who>.+)_(?P<id>\d+)_assignsubmission_file_?")
CANVAS = re.compile(r"^(?P<who>[^_/]+)_(?:LATE_)?(?P<id>\d+)_\d{3,}_.+$", re.IGNORECASE)
GRADESCOPE = re.compile(r"^(?P<who>submission_(?P<id>\d+))$")

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Paper:
    """One student's notebook.

    Attributes
    ----------
    student
        Who handed it in, by the name of the file or folder.
    cells
        (``"code"`` or ``"markdown"``, source) of each.
    problem
        Why it cannot be read; then there are no cells.
    """

    student: str
    cells: tuple[tuple[str, str], ...] = ()
    problem: str = ""

    @property
    def code(self) -> list[str]:
        """The sources of its cells of code."""
        return [source for kind, source in self.cells if kind == "code"]


@dataclass(frozen=True)
class File:
    """A file that was handed in.

    Attributes
    ----------
    parts
        The folders and zips that it lies in, from the outermost one, and its name.
    data
        What it holds, of a notebook.
    problem
        Why that could not be read.
    """

    parts: Parts
    data: bytes = b""
    problem: str = ""

    @property
    def is_paper(self) -> bool:
        """Whether it is a notebook, or a zip of which nothing can be said."""
        return bool(self.problem) or bool(NOTEBOOK.search(self.parts[-1]))


def read_papers(submissions: str | Path) -> tuple[list[Paper], list[str]]:
    """Read all papers of a class; who handed in twice is told apart by number.

    Parameters
    ----------
    submissions
        A folder or a zip of notebooks, of zips of them, or of folders, as Moodle, Canvas or
        Gradescope export them.

    Returns
    -------
    papers, others
        Sorted by student; who handed in no notebook at all is among them. And the names of files
        that belong to nobody.
    """
    files = list(_files(Path(submissions)))
    papers = [file for file in files if file.is_paper]
    inside = _counted([file.parts for file in papers])
    owners = {_owner(file.parts) for file in papers}
    without: dict[Parts, list[str]] = {}  # whose folder holds files, and no paper
    nobodys = []
    for file in (file for file in files if not file.is_paper):
        folders = [file.parts[:n] for n in range(1, len(file.parts))]
        if _by_system(file.parts):
            theirs = None if _owner(file.parts) in owners else _owner(file.parts)
        else:
            theirs = next((folder for folder in folders if not inside[folder]), None)
            if not theirs and inside[file.parts[:-1]] != 1:
                nobodys.append(_readable("/".join(file.parts)))
        if theirs:
            without.setdefault(theirs, []).append(file.parts[-1])
    names = students([*(file.parts for file in papers), *without])
    read = [read_notebook(name, f.data, f.problem) for name, f in zip(names, papers, strict=False)]
    for name, others in zip(names[len(papers) :], without.values(), strict=True):
        read.append(Paper(name, problem=f"no notebook, but {_readable(', '.join(others))}"))
    return sorted(_told_apart(read), key=lambda paper: paper.student), nobodys


def students(paths: Sequence[Parts]) -> list[str]:
    """Say of each file whose paper it is.

    A teaching system writes it into the name of a file or folder. Elsewhere the outermost folder
    or zip that holds this paper alone has the student's name; where none does, the name of the file
    stands behind those of the folders.

    Examples
    --------
    >>> students([("Ada Lovelace_4711_assignsubmission_file_", "a6.ipynb")])
    ['Ada Lovelace']
    >>> students([("lovelaceada_LATE_123_456_a6-1.ipynb",), ("submission_98765", "a6.ipynb")])
    ['lovelaceada', 'submission_98765']
    >>> students([("ada.ipynb",), ("bob", "a6.ipynb"), ("eve.zip", "work", "a6.ipynb")])
    ['ada', 'bob', 'eve']
    >>> students([("monday", "ada.ipynb"), ("monday", "bob", "a6.ipynb")])
    ['ada', 'bob']
    >>> students([("ada", "a6.ipynb"), ("ada", "draft.ipynb"), ("bob", "a6.ipynb")])
    ['ada/a6', 'ada/draft', 'bob']
    """
    found = {parts: _by_system(parts) for parts in paths}
    numbers: dict[str, set[str]] = defaultdict(set)
    for match in filter(None, found.values()):
        numbers[match["who"]].add(match["id"])
    inside = _counted(paths)
    names = []
    for parts in paths:
        if match := found[parts]:
            several = len(numbers[match["who"]]) > 1
            names.append(f"{match['who']}, {match['id']}" if several else match["who"])
            continue
        lengths = range(1, len(parts) + 1)
        last = next((n for n in lengths if inside[parts[:n]] == 1), len(parts))
        # What all papers lie in tells nobody apart.
        first = 0
        while first < last - 1 and inside[parts[: first + 1]] == len(paths) > 1:
            first += 1
        names.append("/".join(ENDING.sub("", part) for part in parts[first:last]))
    return [_readable(name) for name in names]


def read_notebook(student: str, data: bytes, problem: str = "") -> Paper:
    """Read a notebook, of version 3 or 4, whatever its metadata say or lack."""
    if problem:
        return Paper(student, problem=problem)
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        sources = []
        for cell in cells:
            source = cell["source"] if "source" in cell else cell.get("input", "")
            text = source if isinstance(source, str) else "".join(source)
            kind = "code" if cell.get("cell_type") == "code" else "markdown"
            sources.append((kind, _readable(text)))
        return Paper(student, tuple(sources))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return Paper(student, problem="the file is no notebook that can be read")


def _files(path: Path) -> Iterator[File]:
    if path.is_file():
        yield from _of_file((path.name,), path.read_bytes())
        return
    for each in sorted(path.rglob("*")):
        parts = each.relative_to(path).parts
        if each.is_file() and not _is_hidden(parts):
            yield from _of_file(parts, each.read_bytes() if ENDING.search(each.name) else b"")


def _of_file(parts: Parts, data: bytes, depth: int = 0) -> Iterator[File]:
    if not parts[-1].lower().endswith(".zip"):
        too_large = len(data) > MOST_BYTES
        yield File(parts, b"" if too_large else data, TOO_LARGE if too_large else "")
    elif depth == DEEPEST:
        yield File(parts, problem=f"zips within zips, {DEEPEST} times")
    else:
        try:
            yield from _of_zip(parts, data, depth)
        except Exception as error:  # whatever a damaged or a protected zip makes of its reader
            yield File(parts, problem=f"the zip cannot be read ({type(error).__name__})")


def _of_zip(parts: Parts, data: bytes, depth: int) -> Iterator[File]:
    any_paper = False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for item in archive.infolist():
            within = tuple(part for part in item.filename.split("/") if part not in ("", "."))
            if item.is_dir() or not within or _is_hidden(within):
                continue
            for file in _of_item(archive, item, parts + within, depth):
                any_paper |= file.is_paper
                yield file
    if not any_paper:
        yield File(parts, problem="no notebook is in the zip")


def _of_item(
    archive: zipfile.ZipFile, item: zipfile.ZipInfo, parts: Parts, depth: int
) -> Iterator[File]:
    if not ENDING.search(parts[-1]):
        yield File(parts)
    elif item.file_size > (MOST_BYTES if NOTEBOOK.search(parts[-1]) else MOST_BYTES_ZIP):
        yield File(parts, problem=TOO_LARGE)
    else:
        try:
            data = archive.read(item)
        except Exception as error:  # this one alone; the others may be whole
            yield File(parts, problem=f"it cannot be unpacked ({type(error).__name__})")
        else:
            yield from _of_file(parts, data, depth + 1)


def _is_hidden(parts: Parts) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in parts)


def _by_system(parts: Parts) -> re.Match[str] | None:
    # A folder or zip around all of them may look like one of Canvas's.
    found = (system.match(part) for system in (GRADESCOPE, MOODLE, CANVAS) for part in parts)
    return next(filter(None, found), None)


def _owner(parts: Parts) -> Parts:
    """Give name and number of an owner as Moodle writes them, for `students`; or the path."""
    match = _by_system(parts)
    return (f"{match['who']}_{match['id']}_assignsubmission_file_",) if match else parts


def _counted(paths: Sequence[Parts]) -> Counter[Parts]:
    """Count the papers of each folder, those of folders in it among them."""
    return Counter(parts[:depth] for parts in paths for depth in range(len(parts) + 1))


def _told_apart(papers: Sequence[Paper]) -> list[Paper]:
    taken = {paper.student for paper in papers}  # also "ada (2)", as browsers name a second copy
    seen: set[str] = set()
    told = []
    for paper in papers:
        name, number = paper.student, 2
        while name in seen or (number > 2 and name in taken):
            name, number = f"{paper.student} ({number})", number + 1
        seen.add(name)
        told.append(replace(paper, student=name))
    return told


def _readable(text: str) -> str:
    """Replace what no text file can hold: half of a character, or an undecodable name's byte."""
    return text.encode("utf-8", "replace").decode("utf-8")
