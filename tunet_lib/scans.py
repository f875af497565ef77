"""Any CT: its voxels, where they lie in the patient, and the label map that goes back to it.

Arrays are (z, y, x) in orientation IPL, as KiTS19 stores them: the slices run from head to feet,
the rows from front to back, the columns from right to left. Files of any other orientation are
turned to it on loading, and label maps are turned back on saving.

Chapters 01 (``notebooks/01_kits19.ipynb``) and 15 (``notebooks/15_beyond.ipynb``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from tunet_lib.files import DataError
from tunet_lib.formats import open_image, write_label
from tunet_lib.nifti import NiftiFile, check_array, check_finite, nifti_of
from tunet_lib.upright import UprightFile, original, upright

IPL = ("I", "P", "L")
CYST = 3  # in label maps of KiTS21 and KiTS23
OFF_VOXELS = 0.25  # how far a label map may lie off its CT; of rounding much less is left
OFF_VALUE = 0.02  # how far a label may be off a whole number, after a slope

Block = tuple[int, slice, np.ndarray]  # axis, part along it, the voxels there


@dataclass(frozen=True)
class ScanFile:
    """A scan on disk, read block by block: a full-size CT need not be in memory.

    Attributes
    ----------
    shape
        Voxels (z, y, x), turned to IPL.
    affine
        (4, 4) float64, from these voxels to RAS+ mm.
    spacing_mm
        Voxel size (z, y, x), rounded to 1e-6 mm.
    file
        The file itself, with its own shape and affine.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    file: NiftiFile

    def blocks(self) -> Iterator[Block]:
        """Give the scan block by block, each turned to IPL.

        Yields
        ------
        axis, part, block
            The voxels whose index along `axis` (0, 1, 2 for z, y, x) lies in the slice `part`,
            and which are all there along the others. The next block reuses the memory of
            this one.

        Raises
        ------
        DataError
            The file is cut short or damaged, or has NaN or infinite voxels.
        """
        for part, block in self.file.blocks():
            yield *self._turned(part), reorient(block, self.file.affine)

    def load(self) -> Scan:
        """Read all voxels: integers of at most int16's range as int16, all others as float32."""
        voxels = reorient(self.file.read(), self.file.affine)
        volume_hu = voxels.astype(_type_in_memory(voxels), copy=False)
        return Scan(self.shape, self.affine, self.spacing_mm, self.file, volume_hu)

    def _turned(self, part: slice) -> tuple[int, slice]:
        """Say which axis the file's last one is here, and what a part along it becomes."""
        axis, direction = ipl_orientation(self.file.affine)[2]
        size = self.shape[int(axis)]
        return int(axis), part if direction > 0 else slice(size - part.stop, size - part.start)


@dataclass(frozen=True)
class Scan(ScanFile):
    """One CT in memory.

    Attributes
    ----------
    volume_hu
        (z, y, x) int16 or float32, in HU. It keeps the file's own order in memory, so that its
        blocks are those of the file and are resampled to the same bits.
    """

    volume_hu: np.ndarray

    def load(self) -> Scan:
        """Give the scan itself: it is in memory."""
        return self

    def blocks(self) -> Iterator[Block]:
        """Give the scan block by block, as `ScanFile.blocks` reads it."""
        for part in self.file.parts():
            axis, part = self._turned(part)
            yield axis, part, self.volume_hu[(slice(None),) * axis + (part,)]


@dataclass(frozen=True)
class LabelMap(ScanFile):
    """One label map in memory.

    Attributes
    ----------
    label
        (z, y, x) uint8: 0 background, 1 kidney, 2 tumor.
    """

    label: np.ndarray


def ipl_orientation(affine: np.ndarray) -> np.ndarray:
    """Say for each axis of a file which axis it becomes in IPL, and whether it is flipped.

    Parameters
    ----------
    affine
        (4, 4), from the file's voxels to RAS+ mm.

    Returns
    -------
    numpy.ndarray
        (3, 2): the axis 0, 1 or 2, and 1 or -1, as in `nibabel.orientations`.
    """
    return orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(IPL)
    )


def reorient(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn voxels as they lie in a file to IPL: a view of the same memory.

    Parameters
    ----------
    voxels
        Three axes in the file's own order.
    affine
        The file's.
    """
    return orientations.apply_orientation(voxels, ipl_orientation(affine))


def open_scan(path: str | Path, series: str | None = None) -> ScanFile:
    """Open a scan of any orientation; only its header is read.

    Parameters
    ----------
    path
        NIfTI, NRRD, MetaImage, Analyze, or a folder of DICOM.
    series
        Of a folder of DICOM with several: its number in the list, or its SeriesInstanceUID.

    Raises
    ------
    DataError
        The file is missing, empty, of no such format, not 3-D, or has no usable geometry.
    """
    return _placed(upright(open_image(Path(path), series)))


def load_scan(path: str | Path, series: str | None = None) -> Scan:
    """Load a CT of any orientation, turned to IPL.

    Parameters
    ----------
    path, series
        As in `open_scan`.

    Raises
    ------
    DataError
        As in `open_scan`; or the file is cut short, or has NaN or infinite voxels.
    """
    return open_scan(path, series).load()


def scan_of(volume_hu: np.ndarray, spacing_mm: Sequence[float]) -> Scan:
    """Make a scan of an array, as if it had been read from a file in KiTS19's layout.

    Parameters
    ----------
    volume_hu
        (z, y, x) in HU, any number type. That these are HU is believed: what is looked at in a
        CT that comes from a file is not looked at here.
    spacing_mm
        Voxel size (z, y, x).

    Raises
    ------
    DataError
        Some voxel is NaN or infinite, there are not three axes, or the size is no voxel's.
    """
    check_array(volume_hu, spacing_mm)
    voxels = np.asfortranarray(volume_hu, _type_in_memory(volume_hu))
    placed = _placed(nifti_of(voxels, ipl_affine(spacing_mm)))
    check_finite(Path("the array"), voxels)
    return Scan(**vars(placed), volume_hu=voxels)


def ipl_affine(spacing_mm: Sequence[float]) -> np.ndarray:
    """Give the affine of KiTS19's layout, (4, 4): voxels (z, y, x) in IPL to RAS+ mm."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[[2, 1, 0], [0, 1, 2]] = [-size for size in spacing_mm]
    return affine


def load_label_map(
    path: str | Path, scan: ScanFile | None = None, *, cyst_as_kidney: bool = False
) -> LabelMap:
    """Load a label map with its geometry, turned to IPL.

    Parameters
    ----------
    path
        The label map.
    scan
        The CT that it belongs to, if any: shape and affine must match.
    cyst_as_kidney
        Whether 3, a cyst in KiTS21 and KiTS23, is taken for kidney, as KiTS19 counts it.

    Raises
    ------
    DataError
        As `load_scan`; a value is not 0, 1 or 2; or the label map does not match `scan`.
    """
    opened = _open_label(Path(path), scan)
    label = np.empty(opened.shape, np.uint8)
    for axis, part, block in opened.blocks():
        values = _whole_numbers(block)
        if cyst_as_kidney:
            values[values == CYST] = 1
        if (is_wrong := values > 2).any():
            wrong = ", ".join(f"{value:g}" for value in np.unique(block[is_wrong])[:5])
            advice = "recode it or leave the case out"
            if (values[is_wrong] == CYST).all():
                advice = "3 is a cyst in KiTS21 and KiTS23: give --cyst-as kidney"
            raise DataError(
                f"{path}: has label values {wrong}, expected only 0 (background), 1 (kidney) "
                f"and 2 (tumor); {advice}"
            )
        label[(slice(None),) * axis + (part,)] = values
    return LabelMap(**vars(opened), label=label)


def load_label(
    path: str | Path, scan: ScanFile | None = None, *, cyst_as_kidney: bool = False
) -> np.ndarray:
    """Load the voxels of a label map, (z, y, x) uint8; all else is as in `load_label_map`."""
    return load_label_map(path, scan, cyst_as_kidney=cyst_as_kidney).label


def save_label(label: np.ndarray, scan: ScanFile, path: str | Path) -> None:
    """Write a label map with the shape, orientation and affine of the scan's own file.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, in the voxels of the scan turned to IPL.
    scan
        The scan that it was made for.
    path
        The .nii.gz, .nii or .nrrd to write, as uint8, atomically; over DICOM also .dcm, a
        DICOM SEG.

    Raises
    ------
    DataError
        `label` has another shape than the scan or other values, or `path` cannot be written.
    """
    if label.shape != scan.shape or ((label != 0) & (label != 1) & (label != 2)).any():
        raise DataError(f"{path}: takes 0, 1 and 2 only, {scan.shape} of them")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(IPL), orientations.io_orientation(scan.file.affine)
    )
    array = orientations.apply_orientation(label.astype(np.uint8, copy=False), back)
    write_label(Path(path), array, scan.file)


def _type_in_memory(voxels: np.ndarray) -> type[np.int16] | type[np.float32]:
    return np.int16 if np.can_cast(voxels.dtype, np.int16) else np.float32


def _placed(file: NiftiFile) -> ScanFile:
    turn = ipl_orientation(file.affine)
    affine = file.affine @ orientations.inv_ornt_aff(turn, file.shape)
    # The nudge keeps off a tie: 0.5859375 (300 mm / 512) lies between two multiples of 1e-6.
    z_mm, y_mm, x_mm = (round(float(mm) + 1e-7, 6) for mm in nib.affines.voxel_sizes(affine))
    z, y, x = (file.shape[int(axis)] for axis in np.argsort(turn[:, 0]))
    return ScanFile((z, y, x), affine, (z_mm, y_mm, x_mm), file)


def _open_label(path: Path, scan: ScanFile | None) -> ScanFile:
    """Open a label map in the voxels of its CT, if there is one that it must match."""
    file = open_image(path)
    if scan is None:
        return _placed(upright(file, is_label=True))
    ct = original(scan.file)
    one, other = _placed(file), _placed(ct)
    if one.shape != other.shape:
        raise DataError(
            f"{path}: has shape {one.shape}, its CT {ct.path} {other.shape} (z, y, x); find the "
            "pair that belongs together"
        )
    away_mm = _corners_mm(file)[:, None] - _corners_mm(ct)
    off_mm = float(np.linalg.norm(away_mm, axis=-1).min(axis=1).max())
    if off_mm > OFF_VOXELS * min(other.spacing_mm):
        raise DataError(
            f"{path}: lies up to {off_mm:.3g} mm off its CT {ct.path}; find the pair that belongs "
            "together, or resample the label map to the CT"
        )
    return _placed(scan.file.of_label(file)) if isinstance(scan.file, UprightFile) else one


def _whole_numbers(block: np.ndarray) -> np.ndarray:
    """Give labels as uint8; 255 where a value is no whole number, or none of uint8."""
    exact = block if block.dtype.kind in "iu" else np.rint(block)
    with np.errstate(invalid="ignore"):
        values = exact.astype(np.uint8)
    is_same = values == block
    if not is_same.all():
        is_same |= np.abs(block - values.astype(np.float64)) <= OFF_VALUE
    return np.where(is_same, values, np.uint8(255))


def _corners_mm(file: NiftiFile) -> np.ndarray:
    """Give the centers of the eight outermost voxels, in RAS+ mm."""
    ends = [(0, count - 1) for count in file.shape]
    return nib.affines.apply_affine(file.affine, list(itertools.product(*ends)))
