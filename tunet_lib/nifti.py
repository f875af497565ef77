"""NIfTI files: read with every check, written byte for byte the same each time."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tunet_lib.files import DataError, atomic_path

DOWNLOAD_AGAIN = "delete it and download it again"


def read_nifti(path: Path) -> tuple[np.ndarray, nib.Nifti1Header, np.ndarray]:
    """Read one 3-D image, to the last byte.

    Returns
    -------
    array
        In the file's own axis order. Integers stay as stored if the header does not scale
        them, else float32 (or float64 if the file holds that).
    header
        nibabel's.
    affine
        (4, 4) float64, voxels to RAS+ mm.

    Raises
    ------
    DataError
        The file is missing, empty, cut short, no NIfTI, not 3-D, has NaN or infinite
        voxels, or no usable voxel size and affine.
    """
    try:
        with _open(path) as stream:
            array, header, pixdim_mm = _read_stream(path, stream)
            while stream.read(1 << 20):  # gzip compares its checksum only at the end
                pass
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; check the path") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is cut short or damaged ({error}); {DOWNLOAD_AGAIN}") from error
    except (OSError, MemoryError, OverflowError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {DOWNLOAD_AGAIN}") from error
    affine = header.get_best_affine()
    _check_geometry(path, affine, pixdim_mm)
    # A sum needs no second array, and one bad voxel spoils it.
    if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
        raise DataError(f"{path}: has NaN or infinite voxels; replace them or leave the case out")
    if not (header["qform_code"] or header["sform_code"]):
        warnings.warn(f"{path}: does not say how the patient lies; LAS is assumed", stacklevel=4)
    return array, header, affine


def write_nifti(
    path: str | Path,
    array: np.ndarray,
    affine: np.ndarray | None,
    header: nib.Nifti1Header | None,
    compresslevel: int = 4,
) -> None:
    """Write one image as .nii.gz (or .nii), atomically.

    Parameters
    ----------
    path
        The file to write.
    array
        Three axes; written in the header's dtype, or its own if there is no header.
    affine
        (4, 4), or None to keep that of `header`.
    header
        Geometry to keep, or None to make one from `affine`.
    compresslevel
        Of gzip: 1 is fast, 9 is small.

    Raises
    ------
    DataError
        The disk is full, or the folder cannot be written.
    """
    two = isinstance(header, nib.Nifti2Header)
    image = (nib.Nifti2Image if two else nib.Nifti1Image)(array, affine, header)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if Path(path).suffix != ".gz":
            image.to_stream(stream)
            return
        # No name and no time in the header, so that the same array gives the same bytes.
        with gzip.GzipFile("", "wb", compresslevel, stream, mtime=0) as zipped:
            image.to_stream(zipped)


def _open(path: Path) -> io.BufferedIOBase:
    """Open by content, since browsers unpack .gz files and keep the name."""
    with path.open("rb") as stream:
        magic = stream.read(2)
    if not magic:
        raise DataError(f"{path}: is empty; {DOWNLOAD_AGAIN}")
    return gzip.open(path) if magic == b"\x1f\x8b" else path.open("rb")


def _read_stream(
    path: Path, stream: io.BufferedIOBase
) -> tuple[np.ndarray, nib.Nifti1Header, np.ndarray]:
    start = stream.read(540)
    kind = {
        (348).to_bytes(4, "little"): nib.Nifti1Image,
        (348).to_bytes(4, "big"): nib.Nifti1Image,
        (540).to_bytes(4, "little"): nib.Nifti2Image,
        (540).to_bytes(4, "big"): nib.Nifti2Image,
    }.get(start[:4])
    if kind is None:
        what = "a web page" if start.lstrip().startswith(b"<") else f"it begins with {start[:16]!r}"
        raise DataError(f"{path}: is not a NIfTI image ({what}); {DOWNLOAD_AGAIN}")
    if len(start) < kind.header_class.sizeof_hdr:
        raise EOFError("the header is incomplete")
    stream.seek(0)
    # nibabel sets a voxel size of 0 to 1 silently, so look at it before that.
    raw = kind.header_class.from_fileobj(stream, check=False)
    stream.seek(0)
    image = kind.from_stream(stream)
    if len(image.shape) != 3 or 0 in image.shape:
        raise DataError(
            f"{path}: has shape {image.shape}, expected three axes; save one 3-D volume of it"
        )
    if image.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"{path}: holds {image.get_data_dtype()}, expected numbers; save it as int16 HU"
        )
    if image.header.get_slope_inter() in ((None, None), (1.0, 0.0)):
        array = np.asanyarray(image.dataobj)
    else:
        proxy: Any = image.dataobj
        array = proxy.get_scaled(np.float32)
    return array, image.header, np.array(raw["pixdim"][1:4])


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
