"""The self-check of the assignments: what a function makes of public values, in a sentence."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunet_lib.exchange import decode, same
from tunet_lib.files import DataError

CHECKS = Path(__file__).parent / "data" / "selfcheck"


def check(assignment: str, question: str, function: Callable[..., Any]) -> None:
    """Call a function with public values, and print what it makes of them.

    The marks come from the same kinds of checks with other values, and from some that are named
    here and left to you.

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
    path = CHECKS / f"{assignment}.json"
    if not path.is_file():
        names = ", ".join(sorted(path.stem for path in CHECKS.glob("*.json")))
        raise DataError(f"there is no assignment {assignment!r}; choose from {names}")
    questions = json.loads(path.read_text(encoding="utf-8"))
    if question not in questions:
        raise DataError(f"{assignment} has no question {question!r}: {', '.join(questions)}")
    asked = questions[question]
    if asked["driver"]:
        space: dict[str, Any] = {}
        exec(asked["driver"], space)  # of the library's own file
        function = functools.partial(space["drive"], function)
    for part in asked["public"]:
        wrong = _first_wrong(function, part["cases"], asked["tolerance"])
        if wrong:
            print(f"{question}, {part['says']}: {wrong} Hint: {part['hint']}")
        else:
            print(f"{question}, {part['says']}: right.")
    if asked["hidden"]:
        print(f"Not checked here, but for marks: {'; '.join(asked['hidden'])}.")


def _first_wrong(function: Callable[..., Any], cases: list[Any], tolerance: float) -> str:
    for number, case in enumerate(cases, start=1):
        arguments = [decode(argument) for argument in case["arguments"]]
        try:
            answer = function(*arguments)
        except Exception as error:
            # Whatever a student's function raises is an answer too: a wrong one.
            return f"call {number} raises {type(error).__name__}: {error}."
        if answer is None:
            return f"call {number} returns nothing yet."
        if not same(answer, decode(case["answer"]), tolerance=tolerance):
            return f"call {number} of {len(cases)} gives another answer than it should."
    return ""
