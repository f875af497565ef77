"""The 3x3x3 median filter, several voxels at a time.

A median needs no branches: comparing two whole arrays with `minimum` and `maximum` sorts
them voxel by voxel, and a processor does that for 8 or 16 voxels at once.

Chapter 02 (``notebooks/02_preprocess.ipynb``).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tunet_lib.allowance import processors

PLANES, ROWS = 8, 32  # a block of the volume whose copies stay in a processor's cache


def median_3x3x3(volume: np.ndarray) -> np.ndarray:
    """Give each voxel the median of itself and its 26 neighbors; borders are repeated.

    The same as ``scipy.ndimage.median_filter(volume, 3, mode="nearest")``.

    Parameters
    ----------
    volume
        (z, y, x), any number type.

    Returns
    -------
    numpy.ndarray
        (z, y, x), the type of `volume`.
    """
    padded = np.pad(volume, 1, mode="edge")
    filtered = np.empty_like(volume)
    depth, height, _ = volume.shape

    def filter_planes(z: int) -> None:
        for y in range(0, height, ROWS):
            block = padded[z : z + PLANES + 2, y : y + ROWS + 2]
            filtered[z : z + PLANES, y : y + ROWS] = _median_of(block)

    with ThreadPoolExecutor(processors()) as workers:  # NumPy lets threads compute side by side
        list(workers.map(filter_planes, range(0, depth, PLANES)))
    return filtered


def _median_of(block: np.ndarray) -> np.ndarray:
    """Give the medians of the inner voxels of a block."""
    by_x = sort_3(block[..., :-2], block[..., 1:-1], block[..., 2:])
    by_y = [sort_3(part[:, :-2], part[:, 1:-1], part[:, 2:]) for part in by_x]
    # cube[i][j][k]: the 27 values, sorted along each of three directions.
    cube = [[sort_3(part[:-2], part[1:-1], part[2:]) for part in row] for row in by_y]
    # So (i + 1)(j + 1)(k + 1) of them are at most cube[i][j][k]. If that is more than the 14
    # that the median has, it lies above the median; and alike from the other end. These are
    # four on either side, and the median of the 19 others is the median of all.
    others = [
        cube[i][j][k]
        for i in range(3)
        for j in range(3)
        for k in range(3)
        if (i + 1) * (j + 1) * (k + 1) <= 14 and (3 - i) * (3 - j) * (3 - k) <= 14
    ]
    # Of 11 of 19 values neither the least nor the largest is the median of all 19.
    kept, waiting = others[:11], others[11:]
    while len(kept) > 1:
        kept = _without_extremes(kept)
        if waiting:
            kept.append(waiting.pop())
    return kept[0]


def _without_extremes(values: list[np.ndarray]) -> list[np.ndarray]:
    """Leave out, voxel by voxel, the least and the largest of some values."""
    half = len(values) // 2
    pairs = [sort_2(values[k], values[-1 - k]) for k in range(half)]
    low, high = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    middle = values[half : len(values) - half]  # the odd one, if there is one
    least, largest, rest = low[0], high[0], []
    for value in low[1:] + middle:
        least, value = sort_2(least, value)
        rest.append(value)
    if middle:
        high.append(rest.pop())
    for value in high[1:]:
        value, largest = sort_2(value, largest)
        rest.append(value)
    return rest


def sort_2(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort two arrays voxel by voxel.

    Parameters
    ----------
    a, b
        Any number type, of one shape.

    Returns
    -------
    tuple of numpy.ndarray
        The smaller and the larger values, of that shape and type.
    """
    return np.minimum(a, b), np.maximum(a, b)


def sort_3(
    a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort three arrays voxel by voxel: a sorting network of three comparisons.

    Parameters
    ----------
    a, b, c
        Any number type, of one shape.

    Returns
    -------
    tuple of numpy.ndarray
        The smallest, the middle and the largest values, of that shape and type.
    """
    a, b = sort_2(a, b)
    b, c = sort_2(b, c)
    a, b = sort_2(a, b)
    return a, b, c
