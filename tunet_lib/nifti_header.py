"""The header of a NIfTI file: what it promises, and where it says that the patient lies.

A header is believed as far as it agrees with itself. What can be mended without doubt is mended,
and a `DataWarning` says so; what cannot is a `DataError`.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from tunet_lib.files import GET_AGAIN, DataError, DataWarning

# nibabel would print what it mends to the standard error; what matters is told below, as a warning.
SILENT = logging.Logger("tunet_lib.nibabel", logging.CRITICAL + 1)
HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by their size, which comes first
# How files begin that are no NIfTI, whatever their names say: what they are, and what to do.
OTHERS = {
    b"<": ("a web page", GET_AGAIN),
    b"version https://": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    b"NRRD": ("NRRD", "name it .nrrd"),
    b"ObjectType": ("MetaImage", "name it .mha, or .mhd if its voxels lie in another file"),
    b"NDims": ("MetaImage", "name it .mha, or .mhd if its voxels lie in another file"),
    b"PK\3\4": ("an archive", "unpack it, and name what it holds"),
    b"BZh": ("packed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("packed by xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it"),
    b"\x1f\x8b": ("packed twice", "unpack it"),
    b"\x89PNG": ("a picture", "export the CT itself"),
    b"\xff\xd8\xff": ("a picture", "export the CT itself"),
    b"\x93NUMPY": ("an array without geometry", "save it as NIfTI with its affine"),
}
HEADER_BYTES = max(HEADERS)
MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # xyzt_units; all others are taken for mm
VOXEL_MM = (0.05, 50.0)  # what a voxel of a CT can measure
MOST_IN_SLICE = 1 << 24  # voxels; slices are read whole
MOST_MM = 4000.0  # no scanner's table moves so far
OFFSET_BYTES = 1 << 28  # more than any extension before the voxels takes
ROUNDING = 1e-3  # of a quaternion's length
FREE_TEXT = ("descrip", "db_name", "data_type", "aux_file", "intent_name")


def read_header(path: Path, start: bytes) -> nib.Nifti1Header:
    """Read the header of one 3-D image from the first bytes of its file.

    Parameters
    ----------
    path
        The file, for messages.
    start
        Its first `HEADER_BYTES`, or all that it has.

    Returns
    -------
    nibabel.Nifti1Header
        Or `nibabel.Nifti2Header`, with three axes and a voxel size above 0.

    Raises
    ------
    DataError
        It is no NIfTI header, or not of one 3-D image of numbers.
    EOFError
        It is cut short.
    """
    if (kind := _kind(start)) is None:
        known = (OTHERS[mark] for mark in OTHERS if start.lstrip().startswith(mark))
        what, advice = next(known, (f"it begins with {start[:16]!r}", GET_AGAIN))
        raise DataError(f"{path}: is not a NIfTI image ({what}); {advice}")
    if len(start) < kind.sizeof_hdr:
        raise EOFError("the header is incomplete")
    block = start[: kind.sizeof_hdr]
    # nibabel sets a voxel size of 0 to 1 silently, so look at it before that.
    raw = kind(block, check=False)
    pixdim = np.array(raw["pixdim"][1:4], np.float64)
    if not is_pair(raw) and 0 <= raw["vox_offset"] < kind.single_vox_offset:
        raw["vox_offset"] = kind.single_vox_offset  # behind the header is where they begin
    header = kind(raw.binaryblock, check=False)
    header.check_fix(logger=SILENT)
    shape = header.get_data_shape()
    if len(shape) < 3 or min(shape) < 1 or max(shape[3:], default=1) > 1:
        raise DataError(
            f"{path}: has shape {shape}, expected three axes; save one 3-D volume of it"
        )
    header.set_data_shape(shape[:3])
    if header.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"{path}: holds {header.get_data_dtype()}, expected numbers; save it as int16 HU"
        )
    if not 0 <= header["vox_offset"] <= OFFSET_BYTES:
        raise DataError(f"{path}: has a vox_offset of {header['vox_offset']}; correct its header")
    header["pixdim"][1:4] = np.where(np.isfinite(pixdim) & (pixdim > 0), pixdim, np.nan)
    return header


def looks_like_nifti(path: Path) -> bool:
    """Say whether a file is NIfTI, by its first bytes; so is one in gzip, as far as these say."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except (OSError, ValueError):
        return False
    return _kind(start) is not None or start.startswith(b"\x1f\x8b")


def is_pair(header: nib.Nifti1Header) -> bool:
    """Say whether the voxels lie in a second file, .img beside .hdr."""
    return bytes(header["magic"].item())[:2] == b"ni"


def scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """Give slope and intercept; 1 and 0 if the header names none."""
    slope, intercept = header.get_slope_inter()
    return (1.0, 0.0) if slope is None else (slope, intercept)


def find_affine(path: Path, header: nib.Nifti1Header) -> np.ndarray:
    """Find out where the voxels lie in the patient; a voxel size that is missing is filled in.

    Of sform and qform the first one that is usable counts.

    Returns
    -------
    numpy.ndarray
        (4, 4) float64, voxels to RAS+ mm.

    Raises
    ------
    DataError
        There is no usable voxel size, or no usable affine.

    Warns
    -----
    DataWarning
        Parts of the header contradict each other, or another unit than mm was meant.
    """
    pixdim = np.array(header["pixdim"][1:4], np.float64)
    affines = _affines(path, header, pixdim)
    usable = {name: affine for name, affine in affines.items() if is_usable(affine)}
    if not usable:
        wrong = next(iter(affines.values())).tolist()
        raise DataError(
            f"{path}: its affine {wrong} is singular or not finite; "
            "correct sform or qform in its header"
        )
    name, affine = next(iter(usable.items()))
    for other in list(affines)[: list(affines).index(name)]:
        _warn(path, f"its {other} is not usable, so {name} is taken")
    sizes = nib.affines.voxel_sizes(affine)
    if np.isnan(pixdim).any():
        _warn(path, f"has no usable voxel size in pixdim, so that of its {name} is taken")
        header["pixdim"][1:4] = sizes
    elif np.abs(sizes / pixdim - 1).max() > 0.01:
        _warn(
            path,
            f"its {name} says that a voxel measures {_listed(sizes)} mm, its pixdim "
            f"{_listed(pixdim)} mm; {name} is taken, so compare a length with the scanner's",
        )
    if len({nib.aff2axcodes(each) for each in usable.values()}) > 1:
        _warn(path, f"sform and qform disagree on how the patient lies; {name} is taken")
    return _in_mm(path, affine, int(header["xyzt_units"]) & 7)


def check_reach(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Raise a `DataError` if an image is longer than a scanner's table, or a slice is no CT's."""
    if shape[0] * shape[1] > MOST_IN_SLICE:
        raise DataError(f"{path}: has slices of {shape[0]} x {shape[1]} voxels; correct its header")
    reach_mm = nib.affines.voxel_sizes(affine) * shape[:3]
    if reach_mm.max() > MOST_MM:
        raise DataError(f"{path}: measures {_listed(reach_mm)} mm; correct its voxel size")


def is_usable(affine: np.ndarray) -> bool:
    """Say whether an affine, (4, 4), is finite and none of its axes lies in the plane of others."""
    if not np.isfinite(affine).all():
        return False
    volume = abs(np.linalg.det(affine[:3, :3]))
    return bool(volume > 1e-3 * np.prod(nib.affines.voxel_sizes(affine)))


def blank(header: nib.Nifti1Header) -> None:
    """Remove from a header what is no geometry: free text and extensions may name the patient."""
    header.extensions.clear()
    for name in set(FREE_TEXT) & set(header.keys()):
        header[name] = b""
    header.set_intent("none")
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = header["vox_offset"] = 0


def _kind(start: bytes) -> type[nib.Nifti1Header] | None:
    size = start[:4]
    return HEADERS.get(int.from_bytes(size, "little")) or HEADERS.get(int.from_bytes(size, "big"))


def _affines(path: Path, header: nib.Nifti1Header, pixdim: np.ndarray) -> dict[str, np.ndarray]:
    affines = {"sform": header.get_sform()} if header["sform_code"] else {}
    if not np.isnan(pixdim).any():
        if header["qform_code"]:
            affines["qform"] = _qform(header)
        elif not affines:
            _warn(path, "does not say how the patient lies; LAS is assumed")
            affines["pixdim"] = header.get_base_affine()
    if not affines:
        raise DataError(f"{path}: has no usable voxel size; correct pixdim in its header")
    return affines


def _qform(header: nib.Nifti1Header) -> np.ndarray:
    quaternion = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    length = np.linalg.norm(quaternion)
    if 1 < length < 1 + ROUNDING:  # in float32 a half turn is rarely exactly one
        for axis, value in zip("bcd", quaternion / (length * (1 + 1e-7)), strict=True):
            header[f"quatern_{axis}"] = value
    try:
        return header.get_qform()
    except (ValueError, HeaderDataError):
        return np.full((4, 4), np.nan)


def _in_mm(path: Path, affine: np.ndarray, unit: int) -> np.ndarray:
    """Bring an affine to mm: in the unit that the header names, unless that is absurd."""
    low, high = VOXEL_MM
    sizes = nib.affines.voxel_sizes(affine)
    named = MM_PER_UNIT.get(unit, 1.0)
    for factor in (named, 1.0, *MM_PER_UNIT.values()):
        if (low <= sizes * factor).all() and (sizes * factor <= high).all():
            if factor != 1 or named != 1:
                _warn(path, f"its voxels are taken to measure {_listed(sizes * factor)} mm")
            return np.diag([factor, factor, factor, 1]) @ affine
    raise DataError(
        f"{path}: its voxels would measure {_listed(sizes * named)} mm, and no unit makes them "
        "those of a CT; correct pixdim, sform and xyzt_units in its header"
    )


def _listed(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what}", DataWarning, stacklevel=2)
