"""How a predicted tumor is wrong: by what it misses, or by what it makes up, and where.

Chapter 14 (``notebooks/14_results.ipynb``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cc3d
import numpy as np

from tunet_lib.files import DataError

APART_MM = 50.0  # two kidneys lie farther apart than this, from left to right
KIDNEY_ML = 15.0  # even a shrunken one has more, and what a network makes up seldom has


def tumor_figures(
    predicted_label: np.ndarray, true_label: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float | None]:
    """Say how a predicted tumor is wrong: by what it misses, or by what it makes up.

    Parameters
    ----------
    predicted_label, true_label
        Label maps of one shape: 0 background, 1 kidney, 2 tumor.
    spacing_mm
        Size of a voxel along z, y and x.

    Returns
    -------
    dict
        ``tumor_ml``, the true volume; ``tumor_sensitivity``, the share of the true tumor that was
        found, None without one; ``tumor_precision``, the share of the predicted one that is true,
        where nothing was predicted 0, or None if there is no tumor; ``false_tumor_ml``, what was
        predicted in kidneys without a tumor, None where there is no such kidney.

    Raises
    ------
    DataError
        The shapes differ.
    """
    predicted, truth = predicted_label == 2, true_label == 2
    if predicted.shape != truth.shape:
        raise DataError(f"shapes differ: {predicted.shape} predicted, {truth.shape} true")
    found, made, there = (np.count_nonzero(m) for m in (predicted & truth, predicted, truth))
    healthy, voxel_ml = tumor_free_kidneys(true_label, spacing_mm), math.prod(spacing_mm) / 1000
    false_ml = np.count_nonzero(predicted & healthy) * voxel_ml if healthy.any() else None
    return {
        "tumor_ml": there * voxel_ml,
        "tumor_sensitivity": found / there if there else None,
        "tumor_precision": found / made if made else (0.0 if there else None),
        "false_tumor_ml": false_ml,
    }


def tumor_free_kidneys(label: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Find the kidneys that hold no tumor.

    Parameters
    ----------
    label
        uint8 (z, y, x): 0 background, 1 kidney, 2 tumor; x is left and right.
    spacing_mm
        Size of a voxel along z, y and x.

    Returns
    -------
    numpy.ndarray
        bool (z, y, x). A label map that is no CT's own may hold kidneys in many pieces, so
        each piece is given to the side of the body that its middle is on. The sides meet half
        way between the middles of the largest piece and of the largest one that is `APART_MM`
        away from it, to the left or right, and has `KIDNEY_ML`. Where there is none, all is one
        kidney.
    """
    whole = label > 0
    pieces, _ = connected_parts(whole)
    found = cc3d.statistics(pieces)
    sizes, middles = found["voxel_counts"][1:], found["centroids"][1:, 2]
    is_left = np.zeros(len(sizes) + 1, bool)
    if len(sizes):
        middle = middles[np.argmax(sizes)]
        is_other = np.abs(middles - middle) * spacing_mm[2] > APART_MM
        is_other &= sizes * math.prod(spacing_mm) / 1000 > KIDNEY_ML
        if is_other.any():
            other = middles[np.argmax(sizes * is_other)]
            is_left[1:] = middles < (middle + other) / 2
    left = is_left[pieces]
    healthy = np.zeros_like(whole)
    for side in (left, ~left):
        kidney = whole & side
        if not (kidney & (label == 2)).any():
            healthy |= kidney
    return healthy


def connected_parts(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Find what hangs together in a mask, bool (z, y, x), by faces, edges or corners; number it.

    Returns
    -------
    parts, count
        Integers in the mask's shape, 0 where nothing is set; and how many parts there are.
    """
    padded = np.pad(mask, [(0, 1)] * 3)  # in a thin box cc3d expects too few components
    parts, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    return np.ascontiguousarray(parts[:-1, :-1, :-1]), count
