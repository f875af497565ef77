"""NRRD, MetaImage and Analyze files, read through SimpleITK (extra ``formats``)."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tunet_lib.extras import formats_library
from tunet_lib.files import GET_AGAIN, DataError, DataWarning, atomic_path
from tunet_lib.itk_body import check_body, check_head
from tunet_lib.nifti import NiftiFile, check_finite, described

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
OR_NIFTI = f"{GET_AGAIN}, or save it as NIfTI"
TEXT_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class ItkFile(NiftiFile):
    """One 3-D image that SimpleITK reads; it has a NIfTI header of the same geometry."""

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the file, and give it a few planes at a time, as `NiftiFile.blocks` does."""
        sitk = simple_itk(self.path)
        checksum = None
        if self.path.suffix.lower() in TEXT_SUFFIXES:
            checksum = check_body(self.path, math.prod(self.shape) * self.dtype.itemsize)
        image = told(self.path, lambda: sitk.ReadImage(str(self.path)))
        voxels = sitk.GetArrayViewFromImage(image).reshape(self.shape[::-1])
        if checksum is not None and not _is_of(checksum, voxels):
            raise DataError(f"{self.path}: its voxels would be unpacked wrong; save it as NIfTI")
        check_finite(self.path, voxels)
        for part in self.parts():
            yield part, voxels[part].T


def open_itk(path: Path, analyze: bytes = b"") -> ItkFile:
    """Read and check the header of one 3-D image of any format that SimpleITK knows.

    Parameters
    ----------
    path
        The file.
    analyze
        The header of an Analyze, which does not say where the patient's right is: it is taken as
        by nibabel and SPM, whose voxels run from right to left, from back to front and upwards.

    Raises
    ------
    DataError
        SimpleITK is missing or cannot read the file, or it is no 3-D image of numbers.
    """
    sitk = simple_itk(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; check the path")
    if not path.stat().st_size:
        raise DataError(f"{path}: is empty; {GET_AGAIN}")
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    says_how = check_head(path) if is_text else False
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    told(path, reader.ReadImageInformation)
    count, size = reader.GetDimension(), reader.GetSize()
    if count < 3 or max(size[3:], default=1) > 1:
        raise DataError(f"{path}: has shape {size}, expected three axes; save one 3-D volume of it")
    if reader.GetNumberOfComponents() != 1:
        raise DataError(f"{path}: has several values a voxel, expected one; save it as HU")
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID())).dtype
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {dtype}, expected numbers; save it as int16 HU")
    direction = np.array(reader.GetDirection()).reshape(count, count)[:3, :3]
    affine = lps_affine(direction * reader.GetSpacing()[:3], reader.GetOrigin()[:3])
    said = f"{path}: does not say how the patient lies"
    if analyze:
        affine, said = _analyze_affine(path, analyze), said + "; LAS is assumed"
    if not says_how:
        warnings.warn(said, DataWarning, stacklevel=2)
    return ItkFile(**described(path, (size[0], size[1], size[2]), affine, dtype=dtype))


def _analyze_affine(path: Path, start: bytes) -> np.ndarray:
    header = nib.spm2analyze.Spm2AnalyzeHeader(start, check=False)
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    # ITK passes over SPM's scale; 0 and what is no number stand for none.
    if math.isfinite(slope) and slope and (slope != 1 or intercept):
        raise DataError(
            f"{path}: scales its voxels by {slope:g}, as SPM does, which is not read; save it as "
            "NIfTI"
        )
    return header.get_origin_affine()


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write one label map as compressed NRRD, atomically.

    Not by SimpleITK, which says nothing when the last bytes do not fit on the disk.

    Parameters
    ----------
    path
        The .nrrd to write.
    array
        uint8, in the order of the axes of `affine`.
    affine
        (4, 4), voxels to RAS+ mm.

    Raises
    ------
    DataError
        The disk is full, or the folder cannot be written.
    """
    lps = LPS_TO_RAS @ affine
    vectors = ["(" + ",".join(repr(float(mm)) for mm in column[:3]) + ")" for column in lps.T]
    header = {
        "type": "uint8",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(vectors[:3]),
        "kinds": "domain domain domain",
        "encoding": "gzip",
        "space origin": vectors[3],
    }
    lines = ["NRRD0004", *(f"{name}: {value}" for name, value in header.items()), "", ""]
    with atomic_path(path) as temporary:
        voxels = gzip.compress(array.astype(np.uint8, copy=False).tobytes("F"), 4, mtime=0)
        temporary.write_bytes("\n".join(lines).encode() + voxels)


def _is_of(checksum: int, voxels: np.ndarray) -> bool:
    # What the file has may be big-endian.
    return checksum in (zlib.crc32(voxels.data), zlib.crc32(voxels.byteswap().data))


def lps_affine(axes_mm: np.ndarray, origin_mm: Any) -> np.ndarray:
    """Make an affine, (4, 4) voxels to RAS+ mm, of axes (3, 3) in columns and an origin in LPS."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes_mm, origin_mm
    return LPS_TO_RAS @ affine


def simple_itk(path: Path) -> Any:
    """Load SimpleITK, without its warnings on stderr, to read a file.

    Raises
    ------
    DataError
        It is missing; or the file's name is no text, on which it would end the whole process.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: has a name that is no UTF-8; rename it") from error
    sitk = formats_library("SimpleITK", path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def told(path: Path, call: Callable[[], Any]) -> Any:
    """Call SimpleITK, and turn what it raises into a `DataError` of one line."""
    try:
        return call()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = lines[-1].partition("): ")[2] or lines[-1]
        raise DataError(f"{path}: SimpleITK cannot read it ({what}); {OR_NIFTI}") from error
    except MemoryError as error:
        raise DataError(f"{path}: takes more memory than there is") from error
