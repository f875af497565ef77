"""What an assignment consists of: questions, each of some parts that earn points on their own."""

from __future__ import annotations

import hashlib
import hmac
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.parent.name for path in HERE.glob("*/oracle.py")))
PUBLIC = bytes(16)  # the "secret" of the checks that students have
SECRET_BYTES = 16

Case = tuple[Any, ...]


class CourseworkError(ValueError):
    """What a teacher gave cannot be used: names it, and says what to do."""


@dataclass(frozen=True)
class Part:
    """Some calls of a function; the points are earned if all of them answer right.

    Attributes
    ----------
    points
        For this part.
    says
        What it checks, in words for the student.
    hint
        What to look at if it fails. It names no value.
    draw
        Random generator → arguments of each call.
    public
        Whether the self-check has it as well, with other values.
    """

    points: int
    says: str
    hint: str
    draw: Callable[[np.random.Generator], Sequence[Case]]
    public: bool = False


@dataclass(frozen=True)
class Question:
    """A function to write.

    Attributes
    ----------
    name, function
        Such as ``"q4"``, ``"grow"``.
    answer
        The oracle: the same arguments → the right answer.
    parts
        In the order in which they are told.
    tolerance
        Of floats.
    driver
        Source of ``drive(function, *arguments)``, where one call is not enough to tell.
    """

    name: str
    function: str
    answer: Callable[..., Any]
    parts: tuple[Part, ...]
    tolerance: float = 1e-6
    driver: str = ""

    @property
    def points(self) -> int:
        """All that can be earned."""
        return sum(part.points for part in self.parts)


@dataclass(frozen=True)
class Task:
    """An assignment.

    Attributes
    ----------
    name, title
        Such as ``"a6"``, ``"Verdict"``.
    questions
        Those that are judged by their answers.
    written, written_points
        The name of the question that is marked by hand, and its points.
    """

    name: str
    title: str
    questions: tuple[Question, ...]
    written: str
    written_points: int

    @property
    def points(self) -> int:
        """All that can be earned without a mark by hand."""
        return sum(question.points for question in self.questions)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return HERE / self.name


def load_task(name: str) -> Task:
    """Load an assignment by its name.

    Raises
    ------
    CourseworkError
        There is none of that name.
    """
    if name not in NAMES:
        raise CourseworkError(f"there is no assignment {name}; choose from {', '.join(NAMES)}")
    return importlib.import_module(f"coursework.{name}.oracle").TASK


def seeds_of(task: Task, secret: bytes) -> dict[str, bytes]:
    """Derive a seed for each part, ``"q4/0"``; it tells nothing of the secret or of others."""
    names = [f"{q.name}/{number}" for q in task.questions for number in range(len(q.parts))]
    return {
        name: hmac.new(secret, f"{task.name}/{name}".encode(), hashlib.sha256).digest()
        for name in names
    }


def cases_of(part: Part, seed: bytes) -> list[Case]:
    """Draw the arguments of a part's calls."""
    return [tuple(case) for case in part.draw(np.random.default_rng(list(seed)))]


def read_secret(path: str | Path) -> bytes:
    """Read a teacher's secret: 32 hexadecimal digits.

    Raises
    ------
    CourseworkError
        The file is missing or holds anything else.
    """
    path = Path(path)
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise CourseworkError(f"{path}: no secret can be read; make one by: make secret") from error
    if len(secret) != SECRET_BYTES:
        raise CourseworkError(f"{path}: holds {len(secret)} bytes, not {SECRET_BYTES}: make secret")
    return secret
