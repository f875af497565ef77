"""Papers as they come in: notebooks and zips, named as Moodle, Canvas or Gradescope do."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOST_BYTES = 2**25  # of one notebook; a student's pictures fit, a bomb does not

# What stands before the student's own file name.
MOODLE = re.compile(r"^(?P<who>.+)_\d+_assignsubmission_file_?")
CANVAS = re.compile(r"^(?P<who>[^_/]+)_(?:LATE_)?\d+_\d+_.+$", re.IGNORECASE)
GRADESCOPE = re.compile(r"^submission_(?P<who>\d+)$")


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


def read_papers(folder: str | Path) -> list[Paper]:
    """Read all papers of a folder, sorted by student; who handed in twice is told apart by number.

    Parameters
    ----------
    folder
        Notebooks, zips of them, or folders, as Moodle, Canvas or Gradescope export them.
    """
    found = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found += _of_file(PurePosixPath(path.relative_to(folder)), path.read_bytes())
    papers, seen = [], {}
    for name, data in found:
        student = student_of(name)
        seen[student] = seen.get(student, 0) + 1
        label = student if seen[student] == 1 else f"{student} ({seen[student]})"
        papers.append(read_notebook(label, data))
    return sorted(papers, key=lambda paper: paper.student)


def student_of(path: PurePosixPath) -> str:
    """Find in a path whose paper it is.

    Examples
    --------
    >>> student_of(PurePosixPath("Ada Lovelace_4711_assignsubmission_file_/a6.ipynb"))
    'Ada Lovelace'
    >>> student_of(PurePosixPath("lovelaceada_LATE_123_456_a6-1.ipynb"))
    'lovelaceada'
    >>> student_of(PurePosixPath("submission_98765/a6.ipynb"))
    'submission_98765'
    >>> student_of(PurePosixPath("ada.ipynb")), student_of(PurePosixPath("ada/a6.ipynb"))
    ('ada', 'ada')
    """
    for part in path.parts:
        if GRADESCOPE.match(part):
            return part
        if match := MOODLE.match(part) or CANVAS.match(part):
            return match["who"]
    folders = [part for part in path.parts[:-1] if not part.endswith(".zip")]
    if folders:
        return folders[-1]
    # A notebook in a student's zip: the zip has the name, the notebook that of the assignment.
    return re.sub(r"\.(ipynb|zip)$", "", path.parts[0])


def read_notebook(student: str, data: bytes) -> Paper:
    """Read a notebook, of version 3 or 4, whatever its metadata say or lack."""
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        sources = []
        for cell in cells:
            source = cell["source"] if "source" in cell else cell.get("input", "")
            text = source if isinstance(source, str) else "".join(source)
            sources.append(("code" if cell.get("cell_type") == "code" else "markdown", text))
        return Paper(student, tuple(sources))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return Paper(student, problem="the file is no notebook that can be read")


def _of_file(path: PurePosixPath, data: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    if path.suffix == ".ipynb":
        yield path, data
    elif path.suffix == ".zip":
        inside = list(_of_zip(path, data))
        yield from inside or [(path, b"")]  # a paper that cannot be read, not a missing one


def _of_zip(path: PurePosixPath, data: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.infolist():
                name = PurePosixPath(item.filename)
                hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
                if hidden or item.is_dir() or item.file_size > MOST_BYTES:
                    continue
                if name.suffix == ".ipynb" or (
                    name.suffix == ".zip" and path.suffix != name.suffix
                ):
                    yield path / name, archive.read(item)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError):
        return
