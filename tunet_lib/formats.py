"""Images of any format that people have: opened by what they are, written by their name.

NIfTI is read by `nifti`; DICOM by `dicom`; NRRD, MetaImage and Analyze by `itk`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunet_lib.dicom import DicomFile, is_dicom, open_dicom
from tunet_lib.files import DataError
from tunet_lib.itk import open_itk, write_nrrd
from tunet_lib.nifti import NiftiFile, open_nifti, write_nifti
from tunet_lib.nifti_header import blank, looks_like_nifti
from tunet_lib.unpack import ARCHIVES
from tunet_lib.upright import UprightFile, original

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
PAIR_SUFFIXES = (".hdr", ".img")
SECOND_OF_PAIR = (".img", ".img.gz")  # the .hdr stands for both
IMAGE_SUFFIXES = (".nii", ".nii.gz", *PAIR_SUFFIXES, *ITK_SUFFIXES)
LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".dcm")


def open_image(path: Path, series: str | None = None) -> NiftiFile:
    """Open one 3-D image; only its header is read.

    Parameters
    ----------
    path
        A file, or a folder of DICOM; of DICOM one file only if it holds many frames.
    series
        Of a folder of DICOM: which one, by number or SeriesInstanceUID.

    Raises
    ------
    DataError
        It is missing, empty, of no known format, not 3-D, or has no usable geometry; or the
        extra ``formats`` is needed and missing.
    """
    try:
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    except OSError as error:  # as of a name that no file can have
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if is_folder:
        return open_dicom(path, series)
    if is_other:
        raise DataError(f"{path}: is no file, but a pipe or a device; name a file")
    name = path.name.lower()
    if name.endswith(ITK_SUFFIXES) and not looks_like_nifti(path):
        return open_itk(path)
    if name.removesuffix(".gz").endswith(PAIR_SUFFIXES):
        header = _header_of(path)
        return open_itk(path, head) if (head := _analyze_head(header)) else open_nifti(header)
    if name.endswith(tuple(f"{suffix}.gz" for suffix in ITK_SUFFIXES)):
        raise DataError(f"{path}: is packed; unpack it by gunzip, and name the {path.suffixes[-2]}")
    if name.endswith(ARCHIVES):
        raise DataError(f"{path}: is an archive; unpack it, and name what it holds")
    return open_dicom(path, series) if is_dicom(path) else open_nifti(path)


def suffix_of(path: Path) -> str:
    """Give the suffix by which an image is known, such as ``".nii.gz"``; empty if it has none."""
    name = path.name.lower()
    known = {*IMAGE_SUFFIXES, *LABEL_SUFFIXES, ".hdr.gz", ".img.gz"}
    return max((s for s in known if name.endswith(s)), key=len, default="")


def check_label_name(path: Path, file: NiftiFile | None = None) -> None:
    """Raise a `DataError` if no label map can be written under a name, before there is one.

    Parameters
    ----------
    path
        The name.
    file
        The CT that it is for, if it is open: only a series of DICOM can have a DICOM SEG.
    """
    _check_format(path, file)
    if file is not None and isinstance(source := original(file), DicomFile) and _is_seg(path):
        from tunet_lib.dicom_seg import check_source

        check_source(path, source)


def write_label(path: Path, array: np.ndarray, file: NiftiFile) -> None:
    """Write a label map in the geometry of the image that it is for, by its name's format.

    Parameters
    ----------
    path
        .nii.gz, .nii or .nrrd; or .dcm for a DICOM SEG, which goes with a series of DICOM only.
    array
        uint8, in the order of the file's own axes.
    file
        The image, brought upright or not. Of its header only the geometry is kept.

    Raises
    ------
    DataError
        The name is of no such format, the disk is full, or the folder cannot be written.
    """
    _check_format(path, file)
    if isinstance(file, UprightFile):
        array, file = file.back(array), file.source
    if isinstance(file, DicomFile) and _is_seg(path):
        from tunet_lib.dicom_seg import write_seg

        return write_seg(path, array, file)
    if suffix_of(path) == ".nrrd":
        return write_nrrd(path, array, file.affine)
    header = file.header.copy()
    blank(header)
    header.set_data_dtype(np.uint8)
    write_nifti(path, array, header, compresslevel=None)


def _is_seg(path: Path) -> bool:
    return suffix_of(path) == ".dcm"


def _check_format(path: Path, file: NiftiFile | None) -> None:
    if not path.name.lower().endswith(LABEL_SUFFIXES):
        raise DataError(f"{path}: must end in .nii.gz or .nii, .nrrd, or .dcm over DICOM")
    if file is not None and _is_seg(path) and not isinstance(original(file), DicomFile):
        raise DataError(
            f"{path}: DICOM SEG refers to slices of DICOM, and {file.path} is none; "
            "name a .nii.gz or .nrrd"
        )


def _header_of(path: Path) -> Path:
    """Give the .hdr of a pair, whichever of the two was named."""
    packed = ".gz" if path.name.endswith(".gz") else ""
    stem = path.name.removesuffix(".gz")
    wanted = ".HDR" if stem.endswith(".IMG") else ".hdr"
    plain = path.with_name(stem[:-4] + (wanted if stem.lower().endswith(".img") else stem[-4:]))
    return plain if plain.exists() or not packed else plain.with_name(plain.name + packed)


def _analyze_head(header: Path) -> bytes:
    """Read an Analyze header; empty if it is a NIfTI one, since only that has a magic word."""
    try:
        start = header.read_bytes()[:348]
    except (OSError, ValueError):
        return b""  # `open_nifti` says what is wrong
    # Both begin with the header's length, a NIfTI-2 with another one.
    lengths = (int.from_bytes(start[:4], order) for order in ("little", "big"))
    return start if len(start) == 348 in lengths and start[344:346] != b"ni" else b""
