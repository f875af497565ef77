"""How large kidneys and tumors are, and on which side of the patient."""

from __future__ import annotations

import cc3d
import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.mistakes import APART_MM, KIDNEY_ML, connected_parts
from tunet_lib.plausible import check_shape
from tunet_lib.scans import ScanFile

ONE_KIDNEY_MM = 150.0  # no single one is as wide; two that have grown together are
NAMES = {1: "kidney", 2: "tumor"}
SIDES = ("left", "right")


def volumes_ml(label: np.ndarray, scan: ScanFile) -> dict[str, float]:
    """Measure kidney and tumor on each side of the patient.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, in the voxels of the scan turned to IPL.
    scan
        Says how large a voxel is, and which side is which.

    Returns
    -------
    dict
        ``kidney_left``, ``kidney_right``, ``tumor_left``, ``tumor_right`` → ml. "kidney" is
        what is no tumor of it.

    Raises
    ------
    DataError
        The label map is of another shape than the scan.

    Notes
    -----
    What hangs together is on one side. The sides meet in the middle between the largest part with
    enough kidney in it and the largest such one as far away as another kidney, else in the middle
    of the scan; there a part that is wider than any kidney (a horseshoe) is cut in two.
    """
    check_shape(label, scan.shape)
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    box = box_of(label > 0)
    part = np.ascontiguousarray(label[box])
    is_left = _left(part, scan, voxel_ml, first_column=box[2].start)
    counts = {
        f"{name}_{side}": np.count_nonzero((part == value) & (is_left == (side == "left")))
        for value, name in NAMES.items()
        for side in SIDES
    }
    return {name: float(count * voxel_ml) for name, count in counts.items()}


def _left(label: np.ndarray, scan: ScanFile, voxel_ml: float, *, first_column: int) -> np.ndarray:
    """Say of each voxel whether it is on the patient's left: columns run from right to left."""
    columns = np.arange(label.shape[2]) + first_column
    middle = (scan.shape[2] - 1) / 2
    if not label.any():
        return np.zeros(label.shape, bool)
    x_mm = scan.spacing_mm[2]
    components, count = connected_parts(label > 0)
    found = cc3d.statistics(components)
    centers = found["centroids"][1:, 2] + first_column
    kidney_ml = np.bincount(components[label == 1], minlength=count + 1)[1:] * voxel_ml
    by_size = np.argsort(found["voxel_counts"][1:])[::-1]
    kidneys = centers[by_size[kidney_ml[by_size] > KIDNEY_ML]]
    others = kidneys[np.abs(kidneys - kidneys[:1]) * x_mm > APART_MM]
    are_two = len(others) > 0
    if are_two:
        middle = (kidneys[0] + others[0]) / 2
    is_left = np.concatenate([[False], centers > middle])[components]
    for number, part in enumerate(found["bounding_boxes"][1:], start=1):
        # Beside another kidney it is one with a large tumor.
        if not are_two and (part[2].stop - part[2].start) * x_mm > ONE_KIDNEY_MM:
            inside = components[part] == number
            is_left[part][inside] = np.broadcast_to(columns[part[2]] > middle, inside.shape)[inside]
    return is_left
