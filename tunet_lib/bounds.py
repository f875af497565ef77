"""Of which type and within which bounds the fields of a dataclass must be."""

from __future__ import annotations

import difflib
import functools
import operator
import types
import typing
from typing import Annotated, Any, Literal

from tunet_lib.files import DataError

WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Within:
    """What a number, or each of several, must be: ``Annotated[float, Within(ge=0, lt=1)]``.

    Its text is the rule in words, for messages and for lists of fields.

    Parameters
    ----------
    odd
        Even numbers are refused.
    **ends
        ``ge``, ``gt``, ``le``, ``lt``: at least, above, at most, below.

    Examples
    --------
    >>> Within(ge=0, lt=1)
    at least 0 and below 1
    """

    def __init__(self, *, odd: bool = False, **ends: float) -> None:
        self.odd, self.ends = odd, ends

    def __repr__(self) -> str:
        ends = [f"{WORDS[name]} {end:g}" for name, end in self.ends.items()]
        return " and ".join(["odd"] * self.odd + ends)

    def holds(self, number: float) -> bool:
        """Tell whether a number keeps the rule; NaN keeps none."""
        within = all(getattr(operator, name)(number, end) for name, end in self.ends.items())
        return within and (number % 2 == 1 or not self.odd)


def check_names(path: object, values: Any, names: set[str]) -> None:
    """Make sure that what a file holds are the fields of a dataclass, all of them and no other.

    Raises
    ------
    DataError
        It holds none, or which are unknown, and what they may have been meant for, or missing.
    """
    if not isinstance(values, dict):
        raise DataError(f"{path}: has no fields; make it by `save` of a preset")
    missing, unknown = sorted(names - values.keys()), []
    for name in sorted(values.keys() - names):
        meant = difflib.get_close_matches(name, missing or names, 1)
        unknown.append(f"{name[:40]} ({meant[0]}?)" if meant else name[:40])
    both = {"unknown": unknown, "missing": missing}
    if wrong := [f"{what} {', '.join(found)}" for what, found in both.items() if found]:
        raise DataError(
            f"{path}: {'; '.join(wrong)}; correct it, or take the tunet_lib that it was made with"
        )


def check_fields(values: Any) -> None:
    """Hold each field of a dataclass against its annotation.

    Parameters
    ----------
    values
        Of any dataclass whose fields are numbers, tuples of them, bools or literals.

    Raises
    ------
    DataError
        A field is of another type than it says, or outside its bounds; what it must be is named.
    """
    kind: Any = type(values)
    for name, hint in _hints(kind).items():
        value = getattr(values, name)
        if rule := _broken_rule(value, hint):
            raise DataError(f"{name} is {value!r}, must be {rule}")


@functools.cache  # evaluating them takes longer than all checks
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _broken_rule(value: Any, hint: Any) -> str | None:
    """Say what a value must be, in type and range, if it is not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, bound = arguments
        numbers = value if isinstance(value, tuple) else (value,)
        return _broken_rule(value, kind) or (None if all(map(bound.holds, numbers)) else f"{bound}")
    if origin is tuple:
        if not isinstance(value, tuple) or len(value) != len(arguments):
            return f"a tuple of {len(arguments)} numbers"
        return next(filter(None, map(_broken_rule, value, arguments)), None)
    if origin in (types.UnionType, typing.Union):
        rules = [_broken_rule(value, argument) for argument in arguments]
        return rules[0] if all(rules) else None
    if origin is Literal:
        return None if value in arguments else f"one of {', '.join(arguments)}"
    allowed = (int, float) if hint is float else hint
    is_true = isinstance(value, bool)  # which Python takes for an int
    good = isinstance(value, allowed) and is_true == (hint is bool)
    return None if good else hint.__name__
