"""The self-check of the assignments: what a function makes of public values, in a sentence."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.exchange import LAZY, decode, encode, same
from tunet_lib.files import DataError

CHECKS = Path(__file__).parent / "data" / "selfcheck"
LONG = 60  # characters of a value that is shown


def check(assignment: str, question: str, function: Callable[..., Any]) -> None:
    """Call a function with public values, and print what it makes of them.

    The marks come from the same kinds of checks with other values, and from some that are named
    here and left to you. `calls` gives the values.

    Parameters
    ----------
    assignment, question
        Such as ``"a6"`` and ``"q4"``.
    function
        What you have written.

    Raises
    ------
    DataError
        There is no such assignment or question.
    """
    asked = _question(assignment, question)
    if asked["driver"]:
        space: dict[str, Any] = {}
        exec(asked["driver"], space)  # of the library's own file
        function = functools.partial(space["drive"], function)
    for part in asked["public"]:
        wrong = _first_wrong(function, part, asked["tolerance"])
        print(f"{question}, {part['says']}: {wrong or 'right.'}")
    if asked["hidden"]:
        print(f"Not checked here, but for marks: {'; '.join(asked['hidden'])}.")


def calls(assignment: str, question: str) -> list[tuple[list[Any], Any]]:
    """Give the public calls of a question, to try them one by one.

    Parameters
    ----------
    assignment, question
        Such as ``"a6"`` and ``"q4"``.

    Returns
    -------
    list of (arguments, answer)
        In the order in which `check` makes them.

    Raises
    ------
    DataError
        There is no such assignment or question.
    """
    parts = _question(assignment, question)["public"]
    cases = [case for part in parts for case in part["cases"]]
    return [([decode(a) for a in case["arguments"]], decode(case["answer"])) for case in cases]


def _question(assignment: str, question: str) -> dict[str, Any]:
    path = CHECKS / f"{assignment}.json"
    if not path.is_file():
        names = ", ".join(sorted(path.stem for path in CHECKS.glob("*.json")))
        raise DataError(f"there is no assignment {assignment!r}; choose from {names}")
    questions: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if question not in questions:
        raise DataError(f"{assignment} has no question {question!r}: {', '.join(questions)}")
    found: dict[str, Any] = questions[question]
    return found


def _first_wrong(function: Callable[..., Any], part: dict[str, Any], tolerance: float) -> str:
    cases, hint = part["cases"], part["hint"]
    for number, case in enumerate(cases, start=1):
        arguments = [decode(argument) for argument in case["arguments"]]
        try:
            answer = function(*arguments)
        except Exception as error:
            # Whatever a student's function raises is an answer too: a wrong one.
            return f"call {number} raises {type(error).__name__}: {error}."
        if _is_changed(arguments, case["arguments"]):
            return f"call {number} changes what it is given, which counts as wrong."
        right = decode(case["answer"])
        try:
            # As the judge sees it, who gets it from another process.
            handed_over = decode(json.loads(json.dumps(encode(answer))))
        except (TypeError, ValueError, RecursionError) as error:
            return f"call {number} returns what the judge does not take: {error}."
        if same(handed_over, right, tolerance=tolerance):
            continue
        if answer is None:
            # There are questions in which that is an answer, and here it is the wrong one.
            return f"call {number} returns None, as before anything is written. Hint: {hint}"
        told = f"call {number} of {len(cases)} gives another answer than it should"
        return f"{told}: {_shown(answer)} for {_shown(right)}. Hint: {hint}"
    return ""


def _is_changed(arguments: list[Any], encoded: list[Any]) -> bool:
    try:
        return any(
            json.dumps(encode(now)) != json.dumps(before)
            for now, before in zip(arguments, encoded, strict=True)
            if not (isinstance(before, dict) and LAZY in before)
        )
    except (TypeError, ValueError):  # they hold what was never given
        return True


def _shown(value: Any) -> str:
    """Show a short value, and of a long one what it is."""
    text = " ".join(repr(value).split())
    if len(text) <= LONG:
        return text
    if isinstance(value, np.ndarray):
        return f"ndarray of shape {value.shape}"
    if hasattr(value, "__len__"):
        return f"{type(value).__name__} of length {len(value)}"
    return f"{text[:LONG]}…"
