"""Cases in the layout of KiTS19: find, check, load, and write label maps back.

A KiTS19 folder holds ``case_00000/imaging.nii.gz`` and ``case_00000/segmentation.nii.gz``.
Arrays are (z, y, x) in orientation IPL, as KiTS19 itself stores them: the slices run from
head to feet, the rows from front to back, the columns from right to left. Files of any
other orientation are turned to it on loading, and label maps are turned back on saving.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
from nibabel import orientations

from tunet_lib.files import DataError
from tunet_lib.nifti import NiftiFile, open_nifti, write_nifti

KITS19_AXES = ("I", "P", "L")
IMAGE_NAME = "imaging.nii.gz"
LABEL_NAME = "segmentation.nii.gz"
Block: TypeAlias = tuple[int, slice, np.ndarray]  # axis, part along it, the voxels there
BLOCK_VOXELS = 1 << 23
AFFINE_TOLERANCE = 1e-2  # the nine label maps with only a qform differ by rounding


@dataclass(frozen=True)
class Case:
    """Where the files of one patient are; either may be missing."""

    case_id: str
    image_path: Path | None
    label_path: Path | None


@dataclass(frozen=True)
class Scan:
    """One CT, turned to IPL, with what is needed to go back to its own file.

    Attributes
    ----------
    volume_hu
        (z, y, x) C-ordered, in HU: int16 if the file holds integers of at most that
        range, else float32. From `load_label_scan`: the label map, uint8.
    affine
        (4, 4) float64, from voxels of `volume_hu` to RAS+ mm.
    spacing_mm
        Voxel size (z, y, x), rounded to 1e-6 mm.
    source_path, source_affine, source_shape, source_header
        Of the file, before turning.
    """

    volume_hu: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    source_path: Path
    source_affine: np.ndarray
    source_shape: tuple[int, int, int]
    source_header: nib.Nifti1Header

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        z, y, x = self.volume_hu.shape
        return z, y, x

    def blocks(self) -> Iterator[Block]:
        """Give it a few slices at a time, as `ScanFile` does."""
        count = max(1, BLOCK_VOXELS // (self.shape[1] * self.shape[2]))
        for first in range(0, self.shape[0], count):
            part = slice(first, min(first + count, self.shape[0]))
            yield 0, part, self.volume_hu[part]


@dataclass(frozen=True)
class ScanFile:
    """A scan on disk, read block by block: a full-size CT need not be in memory.

    Attributes
    ----------
    shape, affine, spacing_mm
        As of `Scan`, turned to IPL.
    source_path, source_affine, source_shape, source_header
        Of the file, before turning.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    file: NiftiFile

    @property
    def source_path(self) -> Path:
        """The file's path."""
        return self.file.path

    @property
    def source_affine(self) -> np.ndarray:
        """The file's affine, (4, 4)."""
        return self.file.affine

    @property
    def source_shape(self) -> tuple[int, int, int]:
        """The file's shape, before turning."""
        return self.file.shape

    @property
    def source_header(self) -> nib.Nifti1Header:
        """The file's header."""
        return self.file.header

    def blocks(self) -> Iterator[Block]:
        """Read the file once, block by block, each turned to IPL.

        Yields
        ------
        axis, part, block
            The voxels whose index along `axis` (0, 1, 2 for z, y, x) lies in the slice
            `part`, and which are all there along the others. The next block reuses the
            memory of this one.

        Raises
        ------
        DataError
            The file is cut short or damaged, or has NaN or infinite voxels.
        """
        turn = _turn(self.file.affine)
        axis, flip = int(turn[2, 0]), turn[2, 1] < 0
        size = self.shape[axis]
        for part, block in self.file.blocks():
            if flip:
                part = slice(size - part.stop, size - part.start)
            yield axis, part, orientations.apply_orientation(block, turn)

    def load(self) -> Scan:
        """Read all voxels, as they are stored, turned to IPL."""
        return self.with_voxels(
            orientations.apply_orientation(self.file.read(), _turn(self.file.affine))
        )

    def with_voxels(self, volume: np.ndarray) -> Scan:
        """Give a `Scan` with this geometry and these voxels, (z, y, x)."""
        return Scan(
            volume,
            self.affine,
            self.spacing_mm,
            self.file.path,
            self.file.affine,
            self.file.shape,
            self.file.header,
        )


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
        cases = [_case_in(folder / name) for name in names]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror}); give the folder that holds case_00000"
        ) from error
    cases = [case for case in cases if case.image_path or case.label_path]
    if not cases:
        raise DataError(
            f"{folder}: holds no case_00000/{IMAGE_NAME}; download KiTS19 or make phantoms first"
        )
    return cases


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


def open_scan(path: str | Path) -> ScanFile:
    """Open a scan of any orientation; only its header is read.

    Raises
    ------
    DataError
        The file is missing, empty, no NIfTI, not 3-D, or has no usable voxel size and affine.
    """
    file = open_nifti(Path(path))
    turn = _turn(file.affine)
    affine = file.affine @ orientations.inv_ornt_aff(turn, file.shape)
    # The nudge keeps off a tie: 0.5859375 (300 mm / 512) lies between two multiples of 1e-6.
    z_mm, y_mm, x_mm = (round(float(mm) + 1e-7, 6) for mm in nib.affines.voxel_sizes(affine))
    z, y, x = (file.shape[int(k)] for k in np.argsort(turn[:, 0]))
    return ScanFile((z, y, x), affine, (z_mm, y_mm, x_mm), file)


def load_scan(path: str | Path) -> Scan:
    """Load a CT of any orientation, turned to IPL.

    Raises
    ------
    DataError
        The file is missing, empty, cut short, no NIfTI, not 3-D, has NaN or infinite
        voxels, or no usable voxel size and affine.
    """
    scan = open_scan(path).load()
    dtype = np.int16 if np.can_cast(scan.volume_hu.dtype, np.int16) else np.float32
    return replace(scan, volume_hu=_contiguous(scan.volume_hu, dtype))


def load_label_scan(path: str | Path) -> Scan:
    """Load a label map with its geometry, for cases that have no CT.

    Returns
    -------
    Scan
        Its `volume_hu` is the label map: (z, y, x) uint8, 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    DataError
        As `load_scan`, or a value is not 0, 1 or 2.
    """
    scan = open_scan(path)
    label = np.empty(scan.shape, np.uint8)
    for axis, part, block in scan.blocks():
        values = block.astype(np.uint8)
        if (values != block).any() or values.max() > 2:
            wrong = ", ".join(f"{value:g}" for value in np.setdiff1d(block, (0, 1, 2))[:5])
            raise DataError(
                f"{path}: has label values {wrong}, expected only 0 (background), 1 (kidney) "
                "and 2 (tumor); recode it or leave the case out"
            )
        target = np.moveaxis(label, axis, 0)[part]
        target[...] = np.moveaxis(values, axis, 0)
    return scan.with_voxels(label)


def load_label(path: str | Path, scan: Scan | ScanFile | None = None) -> np.ndarray:
    """Load a label map, turned to IPL.

    Parameters
    ----------
    path
        The label map.
    scan
        The CT that it belongs to: shape and affine must match.

    Returns
    -------
    numpy.ndarray
        (z, y, x) uint8: 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    DataError
        As `load_label_scan`, or the label map does not match `scan`.
    """
    label = load_label_scan(path)
    if scan is not None:
        if label.shape != scan.shape:
            raise DataError(
                f"{path}: has shape {label.volume_hu.shape}, its CT {scan.source_path} "
                f"{scan.shape} (z, y, x); find the pair that belongs together"
            )
        if not np.allclose(label.affine, scan.affine, rtol=0, atol=AFFINE_TOLERANCE):
            raise DataError(
                f"{path}: its affine differs from that of {scan.source_path} by up to "
                f"{np.abs(label.affine - scan.affine).max():.3g}; find the pair that belongs "
                "together, or resample the label map to the CT"
            )
    return label.volume_hu


def save_label(label: np.ndarray, scan: Scan | ScanFile, path: str | Path) -> None:
    """Write a label map with the shape, orientation and affine of the scan's own file.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, in the voxels of the scan turned to IPL.
    scan
        The scan that it was made for.
    path
        The .nii.gz (or .nii) to write, as uint8, atomically.

    Raises
    ------
    DataError
        `label` has another shape than the scan, or `path` cannot be written.
    """
    if label.shape != scan.shape:
        raise DataError(f"{path}: label {label.shape} does not match scan {scan.shape}")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(KITS19_AXES), orientations.io_orientation(scan.source_affine)
    )
    header = scan.source_header.copy()
    header.extensions.clear()  # they may name the patient
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    array = orientations.apply_orientation(label.astype(np.uint8, copy=False), back)
    write_nifti(path, array, None, header, compresslevel=None)


def save_case(
    folder: str | Path,
    case_id: str,
    volume_hu: np.ndarray | None,
    label: np.ndarray | None,
    spacing_mm: Sequence[float],
    *,
    compresslevel: int = 4,
) -> Case:
    """Write one case in KiTS19's layout, byte for byte the same each time.

    Parameters
    ----------
    folder
        The folder that holds the cases.
    case_id
        Such as ``"case_00042"``.
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
        The folder cannot be written.
    """
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[[2, 1, 0], [0, 1, 2]] = [-size for size in spacing_mm]
    folder = Path(folder) / case_id
    for name, array, dtype in ((IMAGE_NAME, volume_hu, np.int16), (LABEL_NAME, label, np.uint8)):
        if array is not None:
            values = array.astype(dtype, copy=False)
            write_nifti(folder / name, values, affine, None, compresslevel)
    return _case_in(folder)


def _case_in(folder: Path) -> Case:
    image, label = folder / IMAGE_NAME, folder / LABEL_NAME
    return Case(folder.name, image if image.is_file() else None, label if label.is_file() else None)


def _turn(affine: np.ndarray) -> np.ndarray:
    """Give the orientation that turns a file with this affine to IPL."""
    return orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(KITS19_AXES)
    )


def _contiguous(array: np.ndarray, dtype: type) -> np.ndarray:
    # NIfTI stores the first axis fastest. Row by row is ten times as fast as all at once.
    turned: np.ndarray = np.empty(array.shape, dtype)
    for row in range(array.shape[1]):
        turned[:, row] = array[:, row]
    return turned
