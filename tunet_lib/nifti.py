"""NIfTI files: read with every check, written byte for byte the same each time.

Chapter 01 (``notebooks/01_kits19.ipynb``) says what can be wrong with one.
"""

from __future__ import annotations

import contextlib
import gzip
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from isal import igzip, igzip_threaded, isal_zlib
from nibabel.spatialimages import HeaderDataError

from tunet_lib.files import DataError, atomic_path

DOWNLOAD_AGAIN = "delete it and download it again"
BLOCK_BYTES = 1 << 24
HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by their size, which comes first
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
        slope, intercept = _scaling(self.header)
        with _faults_named(self.path), _open(self.path) as stream:
            _skip(stream, self.header.get_data_offset())
            for part in parts:
                planes = memory[: part.stop - part.start]
                _fill(stream, planes)
                if (slope, intercept) != (1, 0):
                    with np.errstate(over="ignore", invalid="ignore"):  # found out below
                        planes = planes.astype(np.float32) * np.float32(slope)
                        planes += np.float32(intercept)
                # A sum needs no second array, and one bad voxel spoils it.
                if planes.dtype.kind == "f" and not np.isfinite(planes.sum(dtype=np.float64)):
                    raise DataError(
                        f"{self.path}: has NaN or infinite voxels; replace them or leave the "
                        "case out"
                    )
                yield part, planes.T
            while stream.read(1 << 20):  # gzip compares its checksum only at the end
                pass

    def read(self) -> np.ndarray:
        """Read all voxels, (axis 0, 1, 2) of the file, in Fortran order."""
        with _faults_named(self.path):
            array: np.ndarray = np.empty(self.shape, self.dtype, order="F")
        for part, block in self.blocks():
            array[..., part] = block
        return array


def open_nifti(path: Path) -> NiftiFile:
    """Read and check the header of one 3-D image.

    Raises
    ------
    DataError
        The file is missing, empty, no NIfTI, not 3-D, or has no usable voxel size and affine.
    """
    with _faults_named(path):
        with _open(path) as stream:
            start = stream.read(540)
        header, pixdim_mm = _header(path, start)
        _check_kind(path, header)
        affine = header.get_best_affine()
        _check_geometry(path, affine, pixdim_mm)
        if not (header["qform_code"] or header["sform_code"]):
            warnings.warn(
                f"{path}: does not say how the patient lies; LAS is assumed", stacklevel=4
            )
        dtype = header.get_data_dtype() if _scaling(header) == (1, 0) else np.dtype(np.float32)
        z, y, x = header.get_data_shape()
        return NiftiFile(path, header, affine, (z, y, x), dtype.newbyteorder("="))


def nifti_of(array: np.ndarray, affine: np.ndarray) -> NiftiFile:
    """Describe an array of three axes as if it lay in a file with this affine, (4, 4)."""
    x, y, z = array.shape
    header = nib.Nifti1Image(array, affine, dtype=array.dtype).header
    return NiftiFile(Path("array"), header, affine, (x, y, z), array.dtype)


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
        if Path(path).suffix != ".gz":
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


def _open(path: Path) -> IO[bytes]:
    """Open by content, since browsers unpack .gz files and keep the name."""
    with path.open("rb") as stream:
        magic = stream.read(2)
    if not magic:
        raise DataError(f"{path}: is empty; {DOWNLOAD_AGAIN}")
    # A thread of its own unpacks ahead of what is being computed.
    return igzip_threaded.open(path, "rb") if magic == b"\x1f\x8b" else path.open("rb")


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what reading may raise into a `DataError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; check the path") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error) as error:  # type: ignore[misc]
        raise DataError(f"{path}: is cut short or damaged ({error}); {DOWNLOAD_AGAIN}") from error
    except DataError:
        raise
    except READING_FAULTS as error:
        raise DataError(f"{path}: cannot be read ({error}); {DOWNLOAD_AGAIN}") from error


def _header(path: Path, start: bytes) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Give the header, and the voxel size as it is written there."""
    size = start[:4]
    kind = HEADERS.get(int.from_bytes(size, "little")) or HEADERS.get(int.from_bytes(size, "big"))
    if kind is None:
        what = "a web page" if start.lstrip().startswith(b"<") else f"it begins with {start[:16]!r}"
        raise DataError(f"{path}: is not a NIfTI image ({what}); {DOWNLOAD_AGAIN}")
    if len(start) < kind.sizeof_hdr:
        raise EOFError("the header is incomplete")
    block = start[: kind.sizeof_hdr]
    # nibabel sets a voxel size of 0 to 1 silently, so look at it before that.
    raw = kind(block, check=False)
    if bytes(raw["magic"].item())[:2] == b"ni":
        raise DataError(f"{path}: is one of a pair of .hdr and .img; save both as one .nii.gz")
    return kind(block), np.array(raw["pixdim"][1:4])


def _check_kind(path: Path, header: nib.Nifti1Header) -> None:
    shape = header.get_data_shape()
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(
            f"{path}: has shape {shape}, expected three axes; save one 3-D volume of it"
        )
    if header.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"{path}: holds {header.get_data_dtype()}, expected numbers; save it as int16 HU"
        )


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    slope, intercept = header.get_slope_inter()
    return (1.0, 0.0) if slope is None else (slope, intercept)


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


def _check_geometry(path: Path, affine: np.ndarray, pixdim_mm: np.ndarray) -> None:
    if not (np.isfinite(pixdim_mm).all() and (pixdim_mm > 0).all()):
        raise DataError(
            f"{path}: has voxel size {pixdim_mm.tolist()} mm; correct pixdim in its header"
        )
    sizes_mm = nib.affines.voxel_sizes(affine)
    volume_mm3 = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else np.nan
    if not volume_mm3 > 1e-3 * np.prod(sizes_mm):
        raise DataError(
            f"{path}: its affine {affine.tolist()} is singular or not finite; "
            "correct sform or qform in its header"
        )
