"""A folder in KiTS19's layout: ``case_00000/imaging.nii.gz`` and ``segmentation.nii.gz``.

Chapter 01 (``notebooks/01_kits19.ipynb``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.files import DataError
from tunet_lib.nifti import check_array, nifti_of, write_nifti
from tunet_lib.scans import CYST, ipl_affine

IMAGE_NAME = "imaging.nii.gz"
LABEL_NAME = "segmentation.nii.gz"


@dataclass(frozen=True)
class Case:
    """Where the files of one patient are; either may be missing.

    Attributes
    ----------
    case_id
        Such as ``"case_00042"``.
    image_path, label_path
        CT and label map.
    cyst_as_kidney
        Whether the label map may hold 3, cyst, which counts as kidney.
    """

    case_id: str
    image_path: Path | None
    label_path: Path | None
    cyst_as_kidney: bool = False


def find_cases(folder: str | Path) -> list[Case]:
    """List the cases of a folder in KiTS19 layout, sorted by case_id.

    Raises
    ------
    DataError
        The folder is missing or unreadable, or holds no case.
    """
    folder = Path(folder)
    try:
        names = sorted(p.name for p in folder.iterdir() if re.fullmatch(r"case_\d{5}", p.name))
        cases = [case_in(folder / name) for name in names]
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise DataError(f"{folder}: {reason}; give the folder that holds case_00000") from error
    cases = [case for case in cases if case.image_path or case.label_path]
    if not cases:
        advice = "download KiTS19 or make phantoms first"
        raise DataError(f"{folder}: holds no case_00000/{IMAGE_NAME}; {advice}")
    return cases


def check_case_id(case_id: str) -> None:
    """Make sure that a case_id that was read from a file is the name of a file, and no path.

    Raises
    ------
    DataError
        It leads elsewhere, or no file can have that name.
    """
    if not case_id.isprintable() or "/" in case_id or case_id.startswith(".") or not case_id:
        raise DataError(f"{case_id!r} is no name of a case")


def require_image(case: Case) -> Path:
    """Give the path of the CT, or raise a `DataError` that says it is missing."""
    if case.image_path is None:
        raise DataError(f"{case.case_id}: has no {IMAGE_NAME}; download it or leave the case out")
    return case.image_path


def require_label(case: Case) -> Path:
    """Give the path of the label map, or raise a `DataError` that says it is missing."""
    if case.label_path is None:
        raise DataError(
            f"{case.case_id}: has no {LABEL_NAME}, and training needs it; "
            "add it or leave the case out"
        )
    return case.label_path


def save_case(
    folder: str | Path,
    volume_hu: np.ndarray | None = None,
    label: np.ndarray | None = None,
    *,
    spacing_mm: Sequence[float],
    compresslevel: int = 4,
) -> Case:
    """Write one case in KiTS19's layout, byte for byte the same each time.

    Parameters
    ----------
    folder
        The case's own, such as ``data/case_00042``.
    volume_hu
        (z, y, x) in HU, written as int16; None writes no CT.
    label
        (z, y, x) 0, 1 or 2, written as uint8; None writes no label map.
    spacing_mm
        Voxel size (z, y, x).
    compresslevel
        Of gzip: 1 is fast, 9 is small.

    Raises
    ------
    DataError
        The folder cannot be written, a value does not fit into its type, a label is above 3 (a
        cyst in KiTS21), there are not three axes, or the size is no voxel's.
    """
    folder = Path(folder)
    for name, array, dtype in ((IMAGE_NAME, volume_hu, np.int16), (LABEL_NAME, label, np.uint8)):
        if array is not None:
            check_array(array, spacing_mm)
            voxels = as_whole(folder / name, array, dtype)
            header = nifti_of(voxels, ipl_affine(spacing_mm)).header
            write_nifti(folder / name, voxels, header, compresslevel=compresslevel)
    return case_in(folder)


def as_whole(path: Path, array: np.ndarray, dtype: type[np.integer[Any]]) -> np.ndarray:
    """Round HU to whole ones; a label that is not whole, or no label of KiTS, is an error."""
    if dtype is np.uint8 and (array > CYST).any():
        raise DataError(f"{path}: has label values above {CYST}")
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        voxels = np.rint(array).astype(dtype)
    off = np.abs(voxels - array.astype(np.float64))
    if not (off <= (0.5 if dtype is np.int16 else 0)).all():  # nor is NaN
        raise DataError(f"{path}: has values that {np.dtype(dtype)} does not hold")
    return voxels


def case_in(folder: Path) -> Case:
    """Give the case of one folder, whose name is the case's; a file that is missing is None."""
    image, label = folder / IMAGE_NAME, folder / LABEL_NAME
    return Case(folder.name, image if image.is_file() else None, label if label.is_file() else None)
