"""Any CT: its voxels, where they lie in the patient, and the label map that goes back to it.

Arrays are (z, y, x) in orientation IPL, as KiTS19 stores them: the slices run from head to feet,
the rows from front to back, the columns from right to left. Files of any other orientation are
turned to it on loading, and label maps are turned back on saving.

Chapters 01 (``notebooks/01_kits19.ipynb``) and 15 (``notebooks/15_beyond.ipynb``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from tunet_lib.files import DataError
from tunet_lib.formats import open_image, write_label
from tunet_lib.nifti import NiftiFile, nifti_of

IPL = ("I", "P", "L")
AFFINE_TOLERANCE = 1e-2  # the nine label maps of KiTS19 with only a qform differ by rounding

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
    return _placed(open_image(Path(path), series))


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
        (z, y, x) in HU, any number type.
    spacing_mm
        Voxel size (z, y, x).
    """
    voxels = np.asfortranarray(volume_hu, _type_in_memory(volume_hu))
    return Scan(**vars(_placed(nifti_of(voxels, ipl_affine(spacing_mm)))), volume_hu=voxels)


def ipl_affine(spacing_mm: Sequence[float]) -> np.ndarray:
    """Give the affine of KiTS19's layout, (4, 4): voxels (z, y, x) in IPL to RAS+ mm."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[[2, 1, 0], [0, 1, 2]] = [-size for size in spacing_mm]
    return affine


def load_label_map(path: str | Path, scan: ScanFile | None = None) -> LabelMap:
    """Load a label map with its geometry, turned to IPL.

    Parameters
    ----------
    path
        The label map.
    scan
        The CT that it belongs to, if any: shape and affine must match.

    Raises
    ------
    DataError
        As `load_scan`; a value is not 0, 1 or 2; or the label map does not match `scan`.
    """
    opened = open_scan(path)
    label = np.empty(opened.shape, np.uint8)
    for axis, part, block in opened.blocks():
        with np.errstate(invalid="ignore"):  # found out below
            values = block.astype(np.uint8)
        if (values != block).any() or values.max() > 2:
            wrong = ", ".join(f"{value:g}" for value in np.setdiff1d(block, (0, 1, 2))[:5])
            raise DataError(
                f"{path}: has label values {wrong}, expected only 0 (background), 1 (kidney) "
                "and 2 (tumor); recode it or leave the case out"
            )
        label[(slice(None),) * axis + (part,)] = values
    if scan is not None:
        _check_match(opened, scan)
    return LabelMap(**vars(opened), label=label)


def load_label(path: str | Path, scan: ScanFile | None = None) -> np.ndarray:
    """Load the voxels of a label map, (z, y, x) uint8; all else is as in `load_label_map`."""
    return load_label_map(path, scan).label


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
        `label` has another shape than the scan, or `path` cannot be written.
    """
    if label.shape != scan.shape:
        raise DataError(f"{path}: label {label.shape} does not match scan {scan.shape}")
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


def _check_match(label: ScanFile, scan: ScanFile) -> None:
    if label.shape != scan.shape:
        raise DataError(
            f"{label.file.path}: has shape {label.shape}, its CT {scan.file.path} "
            f"{scan.shape} (z, y, x); find the pair that belongs together"
        )
    if not np.allclose(label.affine, scan.affine, rtol=0, atol=AFFINE_TOLERANCE):
        raise DataError(
            f"{label.file.path}: its affine differs from that of {scan.file.path} by up to "
            f"{np.abs(label.affine - scan.affine).max():.3g}; find the pair that belongs "
            "together, or resample the label map to the CT"
        )
