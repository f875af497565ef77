"""The box of a mask: most of a volume holds nothing, and need not be looked at."""

from __future__ import annotations

import numpy as np


def box_of(mask: np.ndarray | np.bool_) -> tuple[slice, ...]:
    """Give the smallest box that holds all that is set in a mask, empty if nothing is.

    Examples
    --------
    >>> box_of(np.array([[0, 0, 0, 0], [0, 1, 0, 1]], bool))
    (slice(1, 2, None), slice(1, 4, None))
    """
    mask = np.asarray(mask)
    box: list[slice] = []
    for axis in range(mask.ndim):
        part = mask[tuple(box)]
        others = tuple({*range(mask.ndim)} - {axis})
        found = np.flatnonzero(part.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    return tuple(box)
