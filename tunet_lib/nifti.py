"""NIfTI files: read with every check, written byte for byte the same each time.

Chapter 01 (``notebooks/01_kits19.ipynb``) says what can be wrong with one.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from tunet_lib.files import GET_AGAIN, DataError, atomic_path
from tunet_lib.nifti_header import (
    HEADER_BYTES,
    VOXEL_MM,
    check_reach,
    find_affine,
    is_pair,
    is_usable,
    read_header,
    scaling,
)
from tunet_lib.unpack import is_gzip, open_unpacked

BLOCK_BYTES = 1 << 24
IN_MEMORY = Path("array")  # where an array is that lies in no file
GZIP_RATIO = 1032  # deflate packs at most so many bytes into one
LARGEST = float(np.finfo(np.float32).max)
READING_FAULTS = (OSError, MemoryError, ValueError, OverflowError, HeaderDataError)


@dataclass(frozen=True)
class NiftiFile:
    """One 3-D image on disk: its header is read and checked, its voxels are not.

    Attributes
    ----------
    path
        The file.
    header
        nibabel's.
    affine
        (4, 4) float64, voxels to RAS+ mm.
    shape
        In the file's own axis order.
    dtype
        Of the voxels as they are given: as stored if the header does not scale them, else
        float32.
    """

    path: Path
    header: nib.Nifti1Header
    affine: np.ndarray
    shape: tuple[int, int, int]
    dtype: np.dtype

    def parts(self) -> Iterator[slice]:
        """Cut the last axis, the slowest in the file, into parts of a few planes each."""
        plane_bytes = self.shape[0] * self.shape[1] * self.header.get_data_dtype().itemsize
        count = max(1, min(BLOCK_BYTES // plane_bytes, self.shape[2]))
        for first in range(0, self.shape[2], count):
            yield slice(first, min(first + count, self.shape[2]))

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the file once, to its last byte, a few planes at a time.

        Yields
        ------
        part, block
            The planes ``[..., part]`` of one of the `parts`: (rows, columns, planes) in Fortran
            order. The next one reuses its memory.

        Raises
        ------
        DataError
            The file is cut short or damaged, or has NaN or infinite voxels.
        """
        parts = list(self.parts())
        size = (parts[0].stop, self.shape[1], self.shape[0])
        with _faults_named(self.path):
            memory: np.ndarray = np.empty(size, self.header.get_data_dtype())
        slope, intercept = scaling(self.header)
        path = voxels_of(self.path, self.header)
        with _faults_named(path), open_unpacked(path) as stream:
            _skip(stream, offset_of(self.header))
            for part in parts:
                planes = memory[: part.stop - part.start]
                _fill(stream, planes)
                if (slope, intercept) != (1, 0):
                    with np.errstate(over="ignore", invalid="ignore"):  # found out below
                        planes = planes.astype(np.float32) * np.float32(slope)
                        planes += np.float32(intercept)
                check_finite(self.path, planes)
                yield part, planes.T
            _read_to_the_end(path, stream)

    def read(self) -> np.ndarray:
        """Read all voxels, (axis 0, 1, 2) of the file, in Fortran order."""
        with _faults_named(self.path):
            array: np.ndarray = np.empty(self.shape, self.dtype, order="F")
        for part, block in self.blocks():
            array[..., part] = block
        return array


def open_nifti(path: Path) -> NiftiFile:
    """Read and check the header of one 3-D image: .nii, .nii.gz, or a pair of .hdr and .img.

    Raises
    ------
    DataError
        The file is missing, empty, no NIfTI, not 3-D, has no usable voxel size and affine, or is
        longer than any scanner's table.

    Warns
    -----
    DataWarning
        The header contradicts itself.
    """
    with _faults_named(path):
        with open_unpacked(path) as stream:
            start = stream.read(HEADER_BYTES)
        header = read_header(path, start)
        affine = find_affine(path, header)
        dtype = header.get_data_dtype() if scaling(header) == (1, 0) else np.dtype(np.float32)
        x, y, z = header.get_data_shape()
        file = NiftiFile(path, header, affine, (x, y, z), dtype.newbyteorder("="))
        voxels = voxels_of(path, header)
        promised = offset_of(header) + x * y * z * header.get_data_dtype().itemsize
        if promised > voxels.stat().st_size * (GZIP_RATIO if is_gzip(voxels) else 1):
            raise EOFError(f"its header promises {promised} bytes")
        check_reach(path, (x, y, z), affine)
        return file


def check_finite(path: Path, voxels: np.ndarray) -> None:
    """Raise a `DataError` if some voxel is NaN or infinite, or would be as float32."""
    # The extremes need no second array, and are NaN if one voxel is.
    if voxels.dtype.kind == "f" and not (voxels.min() >= -LARGEST and voxels.max() <= LARGEST):
        raise DataError(f"{path}: has NaN or infinite voxels; replace them or leave the case out")


def offset_of(header: nib.Nifti1Header) -> int:
    """Say where in their file the voxels begin: in a single one behind its header, at least."""
    offset = int(header.get_data_offset())
    return offset if is_pair(header) else max(offset, header.single_vox_offset)


def voxels_of(path: Path, header: nib.Nifti1Header) -> Path:
    """Say which file holds the voxels: the .img beside a .hdr, else the file itself."""
    if not is_pair(header):
        return path
    stem = path.name.removesuffix(".gz")[: -len(".hdr")]
    for suffix in (".img", ".img.gz", ".IMG"):
        if (path.with_name(stem + suffix)).exists():
            return path.with_name(stem + suffix)
    raise DataError(f"{path}: is one of a pair, and {stem}.img is missing; put it beside this one")


def check_array(array: np.ndarray, spacing_mm: Sequence[float]) -> None:
    """Make sure that an array has three axes, and three sizes of a voxel that a CT may have.

    Raises
    ------
    DataError
        It has not.
    """
    low, high = VOXEL_MM
    if array.ndim != 3 or len(spacing_mm) != 3:
        raise DataError(
            f"an array of {array.ndim} axes, {len(spacing_mm)} sizes: expected 3 of each"
        )
    if not all(low <= mm <= high for mm in spacing_mm):
        sizes = ", ".join(f"{mm:g}" for mm in spacing_mm)
        raise DataError(f"voxels of {sizes} mm: expected {low} to {high:g} mm along each axis")


def nifti_of(array: np.ndarray, affine: np.ndarray) -> NiftiFile:
    """Describe an array of three axes as if it lay in a file with this affine, (4, 4)."""
    x, y, z = array.shape
    header = nib.Nifti1Image(array, affine, dtype=array.dtype).header
    return NiftiFile(IN_MEMORY, header, affine, (x, y, z), array.dtype)


def described(
    path: Path, shape: tuple[int, int, int], affine: np.ndarray, *, dtype: np.dtype
) -> dict[str, Any]:
    """Give the fields of a `NiftiFile` for an image of another format.

    Raises
    ------
    DataError
        Voxels of this size are no CT's, or the affine, (4, 4) voxels to RAS+ mm, is singular.
    """
    sizes = nib.affines.voxel_sizes(affine)
    low, high = VOXEL_MM
    if not is_usable(affine) or (sizes < low).any() or (sizes > high).any():
        raise DataError(f"{path}: its voxels measure {sizes.tolist()} mm; correct its header")
    check_reach(path, shape, affine)
    array = np.broadcast_to(np.zeros((), dtype), shape)  # takes no memory
    header = nib.Nifti1Image(array, affine, dtype=dtype).header
    header.set_qform(_without_shear(affine), 1)  # for programs that read no sform
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    return {"path": path, "header": header, "affine": affine, "shape": shape, "dtype": dtype}


def _without_shear(affine: np.ndarray) -> np.ndarray:
    """Turn the last axis to the normal of the first two, as ITK does with tilted DICOM."""
    turned = affine.copy()
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal *= np.sign(normal @ affine[:3, 2]) / np.linalg.norm(normal)
    turned[:3, 2] = normal * np.linalg.norm(affine[:3, 2])
    return turned


def write_nifti(
    path: str | Path,
    array: np.ndarray,
    header: nib.Nifti1Header,
    *,
    compresslevel: int | None = 4,
) -> None:
    """Write one image as .nii.gz (or .nii), atomically.

    Parameters
    ----------
    path
        The file to write.
    array
        Three axes, of the header's type.
    header
        Its geometry is kept; `nifti_of` makes one.
    compresslevel
        Of zlib: 1 is fast, 9 is small, and the same array gives the same bytes. None is
        many times as fast; its bytes may depend on the processor.

    Raises
    ------
    DataError
        The disk is full, or the folder cannot be written.
    """
    two = isinstance(header, nib.Nifti2Header)
    image = (nib.Nifti2Image if two else nib.Nifti1Image)(array, None, header)
    image.update_header()
    image.header.set_slope_inter(1, 0)
    if array.dtype != image.get_data_dtype():
        raise ValueError(f"{path}: {array.dtype} voxels, and a header for another type")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if Path(path).suffix.lower() != ".gz":
            _write(stream, image)
            return
        # No name and no time in the header, so that the same array gives the same bytes.
        if compresslevel is None:
            zipped = igzip.IGzipFile("", "wb", 1, stream, mtime=0)
        else:
            zipped = gzip.GzipFile("", "wb", compresslevel, stream, mtime=0)
        with zipped:
            _write(zipped, image)


def _write(stream: IO[bytes], image: nib.Nifti1Image) -> None:
    """Write header and voxels, in the file's order: the last axis slowest."""
    array = np.asanyarray(image.dataobj)
    image.header["vox_offset"] = image.header.single_vox_offset
    stream.write(image.header.binaryblock.ljust(image.header.single_vox_offset, b"\0"))
    count = max(1, BLOCK_BYTES // max(1, array[..., 0].nbytes))
    for first in range(0, array.shape[2], count):
        part = array[..., first : first + count]
        planes: np.ndarray = np.empty(part.T.shape, array.dtype)
        # Row by row is several times as fast as all at once.
        for row in range(part.shape[1]):
            planes[:, row] = part[:, row].T
        stream.write(planes.data)


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what reading may raise into a `DataError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; check the path") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error) as error:  # type: ignore[misc]
        raise DataError(f"{path}: is cut short or damaged ({error}); {GET_AGAIN}") from error
    except DataError:
        raise
    except READING_FAULTS as error:
        raise DataError(f"{path}: cannot be read ({error}); {_advice(error)}") from error


def _advice(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return "allow reading it"
    if number == errno.EISDIR:
        return "name a file in it"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return "check the file" if isinstance(error, OSError) else GET_AGAIN


def _read_to_the_end(path: Path, stream: IO[bytes]) -> None:
    """Read on after the last voxel: gzip compares its checksum only there."""
    left = BLOCK_BYTES
    while block := stream.read(1 << 20):
        left -= len(block)
        if left < 0:
            raise DataError(f"{path}: holds more than its header promises; {GET_AGAIN}")


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0:
        if not (block := stream.read(min(size, 1 << 20))):
            raise EOFError("it ends before its voxels")
        size -= len(block)


def _fill(stream: IO[bytes], planes: np.ndarray) -> None:
    """Read exactly as many bytes as the array has."""
    left = planes.data.cast("B")
    while left:
        count = stream.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{len(left)} bytes of these planes and all after are missing")
        left = left[count:]
