"""Values that two processes, or a file and a program, exchange: JSON and arrays, nothing else."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

ARRAY, LAZY, DICT = "array", "lazy", "dict"
KINDS = "biuf"  # of arrays: bool, integers, floats; never objects, which would be pickled


class Lazy:
    """A sequence that the receiver gets as an iterator: it can be gone through once."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = list(items)

    def __iter__(self) -> Iterator[Any]:
        """Go through the items from the start."""
        return iter(self.items)


def encode(value: Any) -> Any:
    """Turn a value into what `json.dumps` takes, to the last bit.

    Parameters
    ----------
    value
        None, bool, int, float, str, arrays of these (not of str), and tuples, lists and
        dictionaries of all this. Tuples become lists; `Lazy` stays what it is. A set has no order,
        and is not taken.

    Raises
    ------
    TypeError
        It is, or holds, anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.floating):
        return float(value)  # `item` of a long double is a long double again
    if isinstance(value, np.generic) and not isinstance(value, np.complexfloating):
        return encode(value.item())
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in KINDS:
            raise TypeError(f"an array of dtype {value.dtype} cannot be handed over")
        bits = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {ARRAY: [value.dtype.str, list(value.shape), bits]}
    if isinstance(value, Lazy):
        return {LAZY: [encode(item) for item in value]}
    if isinstance(value, dict):
        return {DICT: [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    raise TypeError(f"a value of type {type(value).__name__} cannot be handed over")


def decode(value: Any) -> Any:
    """Make of a parsed JSON text what `encode` was given.

    Raises
    ------
    ValueError
        It is nothing that `encode` makes. No array is larger than its own bytes.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, content), *_ = value.items()
        with contextlib.suppress(TypeError):  # what it holds is nothing of its kind
            if kind == ARRAY:
                return _array(*content)
            if kind == LAZY:
                return iter([decode(item) for item in content])
            if kind == DICT:
                return {_key(key): decode(item) for key, item in content}
    raise ValueError("not a value that was encoded")


def same(given: Any, right: Any, *, tolerance: float = 1e-6) -> bool:
    """Say whether an answer is the right one, however its numbers are wrapped.

    Parameters
    ----------
    given, right
        Decoded values. Lists, tuples and arrays of the same numbers are the same; so are 1,
        1.0 and True.
    tolerance
        Of floats, relative and absolute; integers and bools have to be equal.

    Examples
    --------
    >>> same([1, 2.0], np.array([1, 2]))
    True
    >>> same([1, 2], [1, 2, 3])
    False
    """
    if isinstance(right, dict):
        if not isinstance(given, dict) or given.keys() != right.keys():
            return False
        return all(same(given[key], right[key], tolerance=tolerance) for key in right)
    if right is None:
        return given is None
    if isinstance(right, str):
        return isinstance(given, str) and given == right
    a, b = _numbers(given), _numbers(right)
    if a is not None and b is not None:
        if a.shape != b.shape:
            return False
        if b.dtype.kind != "f":
            return bool(np.array_equal(a, b))
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))
    if isinstance(right, list | tuple) and isinstance(given, list | tuple):
        pairs = zip(given, right, strict=False)
        return len(given) == len(right) and all(same(*p, tolerance=tolerance) for p in pairs)
    return False


def _key(key: Any) -> Any:
    found = decode(key)
    return tuple(found) if isinstance(found, list) else found  # it was a tuple, as no list can be


def _array(dtype: str, shape: list[int], bits: str) -> np.ndarray:
    kind = np.dtype(str(dtype))
    if kind.kind not in KINDS:
        raise ValueError(f"an array of dtype {dtype} is not taken")
    data = base64.b64decode(bits, validate=True)
    # A copy, since what is read from bytes cannot be written to.
    return np.frombuffer(data, kind).reshape([int(size) for size in shape]).copy()


def _numbers(value: Any) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in KINDS else None
