"""Slices of DICOM put in order: one stack, of which nothing is missing, doubled or out of place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tunet_lib.dicom_slice import Slice
from tunet_lib.files import DataError
from tunet_lib.itk import lps_affine

SAME_MM = 0.01  # slices nearer to each other than this lie in one place
OUT_OF_PLACE = 0.1  # of the distance between slices; rounded positions stay far below
SHOWN = 3


def find_stack(folder: Path, slices: Sequence[Slice]) -> tuple[list[Slice], np.ndarray]:
    """Put slices in order, and find where they lie in the patient.

    Returns
    -------
    slices, affine
        From the first to the last along their normal; and (4, 4) float64, voxels (column, row,
        slice) to RAS+ mm. With a tilted gantry the slices are shifted against each other, and
        the affine is a shear.

    Raises
    ------
    DataError
        Slices are missing, doubled, unevenly spaced, or do not belong together.
    """
    if len(slices) < 2:
        raise DataError(f"{folder}: is a single slice, which says nothing of a volume")
    _check_alike(folder, slices)
    right, down = slices[0].axes_mm.T
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal)
    heights = np.array([each.position_mm @ normal for each in slices])
    order = np.argsort(heights, kind="stable")
    slices, heights = [slices[k] for k in order], heights[order]
    _check_heights(folder, slices, heights)
    _check_unmixed(folder, slices)
    first, last = slices[0].position_mm, slices[-1].position_mm
    step = (last - first) / (len(slices) - 1)
    for index, each in enumerate(slices):
        off_mm = np.linalg.norm(each.position_mm - first - index * step)
        if off_mm > OUT_OF_PLACE * np.linalg.norm(step):
            raise DataError(
                f"{folder}: its slices are unevenly spaced: {each.name} lies {off_mm:.2f} mm "
                "off its place; export the series again, or resample it evenly"
            )
    return slices, lps_affine(np.column_stack([right, down, step]), first)


def _check_alike(folder: Path, slices: Sequence[Slice]) -> None:
    first = slices[0]
    for each in slices:
        if (each.rows, each.columns) != (first.rows, first.columns):
            what = "size"
        elif not np.allclose(each.axes_mm, first.axes_mm, rtol=0, atol=1e-3):
            what = "orientation or pixel spacing"
        else:
            continue
        raise DataError(
            f"{folder}: {each.name} and {first.name} are of one series and differ in "
            f"{what}; remove what does not belong there"
        )


def _check_heights(folder: Path, slices: Sequence[Slice], heights_mm: np.ndarray) -> None:
    gaps_mm = np.diff(heights_mm)
    doubled = np.flatnonzero(gaps_mm < SAME_MM).tolist()
    if doubled:
        pairs = [f"{slices[k].name} and {slices[k + 1].name}" for k in doubled]
        raise DataError(
            f"{folder}: slices are doubled: {_some(pairs)} lie in one place; keep one of each, or "
            "of several acquisitions one"
        )
    usual_mm = float(np.median(gaps_mm))
    missing = np.flatnonzero(gaps_mm > 1.5 * usual_mm).tolist()
    if missing:
        gaps = [
            f"{round(gaps_mm[k] / usual_mm) - 1 or 1} between {slices[k].name} and "
            f"{slices[k + 1].name} ({heights_mm[k]:.1f} to {heights_mm[k + 1]:.1f} mm)"
            for k in missing
        ]
        raise DataError(f"{folder}: slices are missing: {_some(gaps)}; export the series again")


def _check_unmixed(folder: Path, slices: Sequence[Slice]) -> None:
    """Make sure that what was acquired or computed in several goes lies one behind the other."""
    made_by = {each.made_by for each in slices}
    turns = [pair for pair in itertools.pairwise(slices) if pair[0].made_by != pair[1].made_by]
    if len(turns) >= len(made_by):
        one, other = turns[0]
        raise DataError(
            f"{folder}: mixes {len(made_by)} acquisitions or kernels in one series: {one.name} is "
            f"of {one.made_by or 'none'}, and {other.name} of {other.made_by or 'none'}; keep the "
            "files of one"
        )


def _some(items: Sequence[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
