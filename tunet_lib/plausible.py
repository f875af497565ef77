"""A CT is checked before it is believed: its extent, its values, and what was found in it.

What can be mended without doubt is mended, and a `DataWarning` says so in a sentence; what cannot
is a `DataError`. Of an array that lies in no file only padding is mended: what is below -1024 HU.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from tunet_lib.files import DataError, DataWarning
from tunet_lib.nifti import IN_MEMORY
from tunet_lib.scans import ScanFile

PADDING_HU = -1024  # scanners write nothing below, but padding
FAR_BELOW_HU = -1500
SHIFT_HU = 1024
MOST_HU = 1e5  # 16 bits hold 65,535, and metal on the scale of some scanners 30,000
FEW_SLICES, SHORT_MM = 20, 80.0  # kidneys are about 110 mm long
WIDE_MM = (150.0, 800.0)  # of a body, from side to side
TALL_MM = 2200.0
TISSUE_HU = (-120.0, 150.0)  # where the typical voxel of a body lies
NO_AIR_HU = -200.0
BODY_HU = -300.0
SURE_PROB = 0.6  # chosen for the networks for CTs from anywhere (chapter 15)


def check_shape(array: np.ndarray, expected: tuple[int, ...]) -> None:
    """Raise a `DataError` where an array is of another scan or grid."""
    if array.shape != expected:
        raise DataError(f"an array of {array.shape} voxels, where {expected} are expected")


def check_extent(scan: ScanFile) -> None:
    """Warn of a CT that is too short, too narrow or too large to be one of an abdomen.

    Warns
    -----
    DataWarning
        With a sentence for each doubt.
    """
    if scan.file.path == IN_MEMORY:
        return
    tall_mm, *across_mm = extent_mm = _extent_mm(scan)
    if scan.shape[0] < FEW_SLICES or tall_mm < SHORT_MM:
        _warn(
            scan.file.path,
            f"has only {scan.shape[0]} slices, {tall_mm:.0f} mm in all; a kidney is about 110 mm "
            "long, so volumes may be of parts",
        )
    low_mm, high_mm = WIDE_MM
    if tall_mm > TALL_MM or min(across_mm) < low_mm or max(across_mm) > high_mm:
        shown = " x ".join(f"{mm:.0f}" for mm in extent_mm)
        _warn(
            scan.file.path,
            f"measures {shown} mm (head to feet, front to back, side to side), which is no "
            "abdomen's size; check its voxel size",
        )


def without_padding(block: np.ndarray, path: Path) -> np.ndarray:
    """Take what lies below `PADDING_HU` for air, padding outside a round field of view.

    Parameters
    ----------
    block
        float32, in HU. It is changed in place.
    path
        The CT.

    Raises
    ------
    DataError
        A value lies above `MOST_HU`: a single one would drown all others.

    Warns
    -----
    DataWarning
        There is padding far below air; noise that is not much below needs no word.
    """
    if not block.size or path == IN_MEMORY:
        return np.maximum(block, np.float32(PADDING_HU), out=block)
    if (high := float(block.max())) > MOST_HU:
        raise DataError(f"{path}: has a value of {high:g}, which is no HU; correct its voxels")
    if block.min() < FAR_BELOW_HU:
        _warn(path, f"has padding below {PADDING_HU} HU, which is taken for air")
    return np.maximum(block, np.float32(PADDING_HU), out=block)


def believed_hu(grid_hu: np.ndarray, coverage: np.ndarray, scan: ScanFile) -> np.ndarray:
    """Check that values are HU, and mend them if they are HU + 1024.

    Parameters
    ----------
    grid_hu
        (z, y, x) float32, a CT on the grid, without padding below −1024.
    coverage
        (z, y, x), the share of each grid voxel that the CT covers, 0 to 1.
    scan
        The CT.

    Returns
    -------
    numpy.ndarray
        `grid_hu`, mended in place if need be.

    Raises
    ------
    DataError
        The values of a CT of an abdomen's size are scaled to a few units, or to 0–255, or their
        sign is turned.

    Warns
    -----
    DataWarning
        They were mended, or are strange for a CT.
    """
    path, own = scan.file.path, grid_hu[coverage > 0.999]
    if path == IN_MEMORY or not own.size:
        return grid_hu
    low, high = float(own.min()), float(own.max())
    shown = f"values from {round(low, 2) + 0.0:g} to {round(high, 2) + 0.0:g}"
    if high - low < 1e-3:
        _warn(path, f"has one value everywhere, {low:.4g}; there is nothing to be found")
    elif high - low < 20 or (low > -0.5 and high < 255.5):
        what = f"holds no HU: {shown}, as pictures and normalized volumes have; export it in HU"
        if min(_extent_mm(scan)) > SHORT_MM:
            raise DataError(f"{path}: {what}")
        _warn(path, what)  # of a small piece it may be right
    elif _is_negative(own):
        raise DataError(f"{path}: has {shown}: HU with their sign turned; multiply them by -1")
    elif _is_shifted(own):
        _warn(path, f"has {shown}: HU + {SHIFT_HU}; {SHIFT_HU} is subtracted")
        grid_hu -= np.float32(SHIFT_HU) * coverage.astype(np.float32)
        np.maximum(grid_hu, np.float32(PADDING_HU), out=grid_hu)  # its padding was air already
    elif low > NO_AIR_HU:
        _warn(path, f"has {shown}, and so no air; make sure that they are HU")
    else:
        typical_hu = float(np.median(own[own > BODY_HU])) if (own > BODY_HU).any() else low
        if not TISSUE_HU[0] <= typical_hu <= TISSUE_HU[1]:
            _warn(
                path,
                f"has {shown}, and a body of typically {typical_hu:.0f}, expected about 40; make "
                "sure that they are HU",
            )
    return grid_hu


def check_is_scan(scan: object) -> None:
    """Raise a `DataError` if it is a path or an array, which has no place in space."""
    if not hasattr(scan, "spacing_mm"):
        raise DataError(
            f"a scan is needed, not {type(scan).__name__}: load_scan(path) gives one, and so does "
            "scans.scan_of(array, spacing_mm)"
        )


def check_label(label: np.ndarray, path: Path) -> None:
    """Warn of a label map that is empty, or that ends where its CT ends.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, in IPL.
    path
        The CT.

    Warns
    -----
    DataWarning
        With a sentence for each doubt.
    """
    if not label.any():
        _warn(path, "no kidney was found; does it show the abdomen?")
        return
    borders = {"first slice (head)": label[0], "last slice (feet)": label[-1]}
    borders |= {"front": label[:, 0], "back": label[:, -1]}
    borders |= {"right side": label[..., 0], "left side": label[..., -1]}
    if cut := [name for name, plane in borders.items() if plane.any()]:
        _warn(
            path,
            f"kidney or tumor reach the border of the CT ({', '.join(cut)}); the field of view "
            "cuts them, and volumes are of what it shows",
        )


def check_tumor(
    label: np.ndarray, tumor_prob: np.ndarray, path: Path, *, by_rule: bool = False
) -> None:
    """Warn of a tumor that the networks did not find, or are not sure of.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, on the grid.
    tumor_prob
        float (z, y, x), 0 to 1, the map that it was made of.
    path
        The CT.
    by_rule
        Whether all of the tumor is there by line 14 of Algorithm 1.

    Warns
    -----
    DataWarning
        It is; or the mean probability of its voxels is below `SURE_PROB`.
    """
    tumor = label == 2
    if by_rule:
        _warn(
            path,
            "no tumor was found, and all of the region was called tumor by a rule that holds for "
            "KiTS19's patients (Algorithm 1, line 14); --no-tumor-rule leaves it out",
        )
    elif tumor.any() and (mean_prob := tumor_prob[tumor].mean()) < SURE_PROB:
        _warn(
            path,
            f"not sure of the tumor: its mean probability is {mean_prob:.2f}, below {SURE_PROB}; "
            "look at it (chapter 15)",
        )


def _extent_mm(scan: ScanFile) -> list[float]:
    return [count * mm for count, mm in zip(scan.shape, scan.spacing_mm, strict=True)]


def _is_shifted(own: np.ndarray) -> bool:
    """Say whether values are HU + 1024: nothing where air would be, and tissue about 1024."""
    if (own < BODY_HU).mean() > 0.5 or ((own > -900) & (own < BODY_HU)).mean() > 0.05:
        return False
    body = own[own > SHIFT_HU + BODY_HU]
    enough = body.size > 0.05 * own.size
    low, high = TISSUE_HU
    return enough and low <= float(np.median(body)) - SHIFT_HU <= high


def _is_negative(own: np.ndarray) -> bool:
    """Say whether values are −HU: air far above everything, none below, and most tissue below 0.

    Of HU + 1024 the first two are true as well, with tissue for air, and air for tissue: but that
    air lies at 24.
    """
    if (own > 900).mean() < 0.05 or (own < -900).mean() > 0.01:
        return False
    tissue = -own[own < -BODY_HU]
    low, high = TISSUE_HU
    return tissue.size > 0.05 * own.size and (
        (tissue > 25).mean() > 0.2 and low <= float(np.median(tissue)) <= high
    )


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what}", DataWarning, stacklevel=3)
