"""The windows that cover a volume at prediction, and the average of what they answer.

Chapters 03 (``notebooks/03_patches.ipynb``), 06 (``notebooks/06_lnet.ipynb``) and
11 (``notebooks/11_inference.ipynb``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.files import DataError

Shape = tuple[int, int, int]
Predict = Callable[[np.ndarray], np.ndarray]
OnPart = Callable[[float], Any]

BOX_MARGIN_MM = 25.0  # what a window sees around the mask: about the radius of a kidney


def window_starts(shape: Shape, window: Shape, stride: Shape) -> list[Shape]:
    """List the corners of the windows that cover a volume.

    Windows lie `stride` apart; the last one along an axis is moved back to end at the
    border, so no window reaches outside, and where `stride` is at most `window` no voxel is
    left out::

        size 10, window 4, stride 3     0 1 2 3 4 5 6 7 8 9
                                       [0 1 2 3]
                                             [3 4 5 6]
                                                   [6 7 8 9]

    Parameters
    ----------
    shape, window, stride
        In voxels, (z, y, x). A window larger than the volume starts at 0.

    Returns
    -------
    list of (z, y, x)
        In raster order. Source: Vu et al. 2019, 3.3: 25 for (128, 256, 256), 128³, 32.

    Examples
    --------
    >>> window_starts((1, 1, 10), (1, 1, 4), (1, 1, 3))
    [(0, 0, 0), (0, 0, 3), (0, 0, 6)]
    >>> len(window_starts((128, 256, 256), (128, 128, 128), (32, 32, 32)))
    25
    """
    axes = []
    for size, width, step in zip(shape, window, stride, strict=True):
        last = max(0, size - width)
        axes.append(sorted({*range(0, last, step), last}))
    return [(z, y, x) for z, y, x in product(*axes)]


def cut_patch(volume: np.ndarray, start: Shape, shape: Shape, *, margin: int = 0) -> np.ndarray:
    """Copy a patch, with `margin` voxels more on each side in plane; borders are repeated.

    Parameters
    ----------
    volume
        (z, y, x), any dtype.
    start, shape
        Corner and size in voxels. The patch may reach outside the volume.
    margin
        Added before and after along y and x only.
    """
    indices = [
        np.clip(np.arange(first - extra, first + width + extra), 0, size - 1)
        for first, width, size, extra in zip(
            start, shape, volume.shape, (0, margin, margin), strict=True
        )
    ]
    # Two steps: a slice reads a memory map in one go,
    # fancy indexing voxel by voxel.
    block = tuple(slice(index[0], index[-1] + 1) for index in indices)
    local = np.ix_(*(index - index[0] for index in indices))
    return np.asarray(volume[block])[local]


def block_mean(volume: np.ndarray, factor: Shape) -> np.ndarray:
    """Downsample by averaging blocks of `factor` voxels, (z, y, x); float32."""
    z, y, x = (size // step for size, step in zip(volume.shape, factor, strict=True))
    cut = volume[: z * factor[0], : y * factor[1], : x * factor[2]]
    blocks = cut.reshape(z, factor[0], y, factor[1], x, factor[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def predict_windows(
    predict: Predict,
    volume: np.ndarray,
    starts: Sequence[Shape],
    *,
    window: Shape,
    batch_size: int = 1,
    on_part: OnPart | None = None,
) -> np.ndarray:
    """Predict a volume window by window and average where windows overlap.

    Parameters
    ----------
    predict
        (batch, z, y, x, 1) float32 to (batch, z, y, x, channels).
    volume
        Normalized grid volume (z, y, x). Borders are repeated where a window exceeds it.
    starts
        The windows' corners, from `window_starts` or `starts_at`.
    window
        Their size in voxels, (z, y, x).
    batch_size
        Windows predicted at a time: more is faster and takes more memory.
    on_part
        Called after each batch with its share of all windows.

    Returns
    -------
    numpy.ndarray
        (z, y, x, channels) float32; 0 where no window lies. A constant prediction comes back
        as that constant, but for rounding.

    Raises
    ------
    DataError
        There is no window, or `batch_size` is below 1.

    Notes
    -----
    Source: Vu et al. 2019, 3.3. The paper does not say how overlapping answers become one; this
    is their plain mean.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}, must be at least 1")
    total: np.ndarray | None = None
    count = np.zeros(volume.shape, np.uint32)
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        batch = np.stack([cut_patch(volume, start, window) for start in chosen])
        maps = predict(batch[..., None].astype(np.float32))
        if total is None:
            total = np.zeros((*volume.shape, maps.shape[-1]), np.float32)
        for start, result in zip(chosen, maps, strict=True):
            place = window_slices(start, window)
            inside = total[place].shape[:3]
            total[place] += result[: inside[0], : inside[1], : inside[2]]
            count[place] += 1
        if on_part is not None:
            on_part(len(chosen) / len(starts))
    if total is None:
        raise DataError("no voxel is to be predicted: the mask is empty")
    total /= np.maximum(count, 1)[..., None]
    return total


def starts_at(where: np.ndarray, starts: Sequence[Shape], window: Shape) -> list[Shape]:
    """Leave out the windows that hold none of the voxels where a prediction is wanted.

    At these voxels the average over what is left is the same as over all; elsewhere it may be
    of fewer windows.

    Parameters
    ----------
    where
        bool (z, y, x).
    starts, window
        The windows' corners and their size.
    """
    return [start for start in starts if where[window_slices(start, window)].any()]


def box_around(where: np.ndarray, window: Shape, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Give the box around a mask, `BOX_MARGIN_MM` wider and at least as large as a window.

    Parameters
    ----------
    where
        bool (z, y, x), with a voxel set.
    window
        In voxels, (z, y, x).
    spacing_mm
        Voxel size (z, y, x).
    """
    box = []
    for part, size, width, mm in zip(box_of(where), where.shape, window, spacing_mm, strict=True):
        margin = math.ceil(BOX_MARGIN_MM / mm)
        first, last = max(0, part.start - margin), min(size, part.stop + margin)
        length = max(last - first, min(width, size))
        first = min(max(0, (first + last - length) // 2), size - length)
        box.append(slice(first, first + length))
    return tuple(box)


def window_slices(start: Shape, window: Shape) -> tuple[slice, slice, slice]:
    """Give the slices (z, y, x) of a volume that a window covers, from the voxel it starts at."""
    z, y, x = (slice(first, first + width) for first, width in zip(start, window, strict=True))
    return z, y, x
