"""How well a predicted mask agrees with the true one: by volume and by surface.

Chapter 04 (``notebooks/04_losses_metrics.ipynb``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.files import DataError


def dice(predicted: np.ndarray, truth: np.ndarray, *, empty: float = 1.0) -> float:
    """Dice similarity coefficient, ``2 |X ∩ Y| / (|X| + |Y|)``.

    Parameters
    ----------
    predicted, truth
        Bool masks of one shape.
    empty
        What to return if both masks are empty, where the formula is 0 / 0. If only one
        is empty the DSC is 0.

    Returns
    -------
    float
        0 (no voxel in common) to 1 (the same mask), or `empty`.

    Raises
    ------
    DataError
        The shapes differ, or a mask is not bool.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, False]))  # 2 * 1 / (2 + 1)
    0.6666666666666666

    Source
    ------
    Vu et al. 2019, Eq. 3.
    """
    check_masks(predicted, truth)
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(predicted & truth) / total) if total else empty


def kits19_score(
    predicted_label: np.ndarray, true_label: np.ndarray, *, empty: float = 1.0
) -> dict[str, float]:
    """Score of one case as the KiTS19 challenge counts it.

    Parameters
    ----------
    predicted_label, true_label
        Label maps of one shape: 0 background, 1 kidney, 2 tumor.
    empty
        The score of a region that is empty in both maps. The official script means to
        give 0 there, but divides NumPy integers, which give nan (and a warning) and
        never the ZeroDivisionError it waits for. No KiTS19 case lacks a tumor, so the
        challenge's own scores are the same either way.

    Returns
    -------
    dict
        ``whole``: DSC of label > 0 (kidney and tumor); ``tumor``: DSC of label > 1;
        ``mean``: the mean of both, by which the challenge ranked.

    Raises
    ------
    DataError
        The shapes differ.

    Source
    ------
    github.com/neheller/kits19, starter_code/evaluation.py.
    """
    whole = dice(predicted_label > 0, true_label > 0, empty=empty)
    tumor = dice(predicted_label > 1, true_label > 1, empty=empty)
    return {"whole": whole, "tumor": tumor, "mean": (whole + tumor) / 2}


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Give the volume of a bool mask (z, y, x) in milliliters; a voxel is `spacing_mm` large."""
    return float(np.count_nonzero(mask) * math.prod(spacing_mm) / 1000)


@dataclass(frozen=True)
class SurfaceDistances:
    """How far the surfaces of two masks lie apart.

    Attributes
    ----------
    hd95_mm
        95 % of either surface lies within this distance of the other, in mm.
    mean_mm
        Mean distance from one surface to the other, averaged over both directions, in mm.
    surface_dice
        Share of both surfaces, 0 to 1, that lies within the tolerance of the other.
    """

    hd95_mm: float
    mean_mm: float
    surface_dice: float


def surface_distances(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    tolerance_mm: float,
    empty: float = float("nan"),
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks, weighted by area.

    Parameters
    ----------
    predicted, truth
        Bool masks (z, y, x) of one shape.
    spacing_mm
        Size of a voxel, (z, y, x) in mm.
    tolerance_mm
        Distance up to which two surfaces count as one, for `surface_dice`.
    empty
        All three figures if both masks are empty. If only one is empty, the distances
        are infinite and the surface Dice is 0.

    Returns
    -------
    SurfaceDistances

    Raises
    ------
    DataError
        The shapes differ, or a mask is not bool.

    Source
    ------
    Nikolov et al. 2021, "Clinically Applicable Segmentation of Head and Neck Anatomy";
    the package surface-distance-based-measures.
    """
    check_masks(predicted, truth)
    if not predicted.any() and not truth.any():
        return SurfaceDistances(empty, empty, empty)
    if not predicted.any() or not truth.any():
        return SurfaceDistances(np.inf, np.inf, 0.0)

    # Imported here because it takes longer than all the rest.
    import surface_distance
    from scipy.spatial import KDTree

    table = surface_distance.lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    points, areas, distances = {}, {}, {}
    for name, mask in (("gt", truth), ("pred", predicted)):
        points[name], areas[name] = surface_points(mask, spacing_mm, table)
    for name, other in (("gt", "pred"), ("pred", "gt")):
        # A tree of the surface's points spares a distance map
        # of the whole volume.
        distance_mm, _ = KDTree(points[other]).query(points[name], workers=-1)
        order = np.argsort(distance_mm, kind="stable")
        distances[f"distances_{name}_to_{other}"] = distance_mm[order]
        distances[f"surfel_areas_{name}"] = areas[name][order]
    return SurfaceDistances(
        hd95_mm=float(surface_distance.compute_robust_hausdorff(distances, 95)),
        mean_mm=float(np.mean(surface_distance.compute_average_surface_distance(distances))),
        surface_dice=float(
            # A surface just as far is within, however it was rounded.
            surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm + 1e-6)
        ),
    )


def surface_points(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the points of a mask's surface, in mm, and the area in mm² that each stands for.

    A point lies where eight voxels meet that are not all alike; which of them are in the
    mask gives its area, by the table.

    Parameters
    ----------
    mask
        (z, y, x) bool.
    spacing_mm
        Voxel size (z, y, x).
    table
        (256,) areas in mm², by the eight voxels as bits.

    Returns
    -------
    points_mm, areas_mm2
        (n, 3) float64 and (n,).
    """
    inside = box_of(mask)
    box = np.pad(mask[inside], 1).view(np.uint8)
    z, y, x = (size - 1 for size in box.shape)
    code = np.zeros((z, y, x), np.uint8)
    for bit in range(8):
        dz, dy, dx = (1 - (bit >> shift & 1) for shift in (2, 1, 0))
        code |= box[dz : dz + z, dy : dy + y, dx : dx + x] << np.uint8(bit)
    places = np.nonzero((code != 0) & (code != 255))
    points = np.stack(
        [(p + part.start) * s for p, part, s in zip(places, inside, spacing_mm, strict=True)],
        axis=1,
    )
    return points, table[code[places]]


def check_masks(predicted: np.ndarray, truth: np.ndarray) -> None:
    """Check that two masks can be compared.

    Raises
    ------
    DataError
        Their shapes differ, or one of them is not bool.
    """
    if predicted.shape != truth.shape:
        raise DataError(
            f"predicted mask of shape {predicted.shape} and true mask of shape {truth.shape}: "
            "bring them to one grid before they are compared"
        )
    if predicted.dtype != bool or truth.dtype != bool:
        raise DataError(
            f"masks of dtype {predicted.dtype} and {truth.dtype}: pass bool masks, "
            "such as label > 0 or whole_prob >= 0.5"
        )
