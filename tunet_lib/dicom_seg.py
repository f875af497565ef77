"""A label map as DICOM SEG, which refers to the slices that it was made for (extra ``formats``)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.dicom import DicomFile
from tunet_lib.dicom_slice import CT
from tunet_lib.environment import versions
from tunet_lib.extras import formats_library
from tunet_lib.files import DataError, atomic_path

# SNOMED CT, as in CID 7151 and CID 7159 of the standard: category, type, display color in RGB.
ANATOMY = ("123037004", "SCT", "Anatomical Structure")
ALTERED = ("49755003", "SCT", "Morphologically Altered Structure")
KIDNEY = ("64033007", "SCT", "Kidney")
NEOPLASM = ("108369006", "SCT", "Neoplasm")
SEGMENTS = (
    ("Kidney", ANATOMY, KIDNEY, (0, 158, 115)),
    ("Kidney tumor", ALTERED, NEOPLASM, (213, 94, 0)),
)
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName", "SeriesNumber"),
)


def write_seg(path: Path, array: np.ndarray, file: DicomFile) -> None:
    """Write a label map as DICOM SEG, one binary segment a label, atomically.

    Parameters
    ----------
    path
        The .dcm to write.
    array
        (columns, rows, slices) 0, 1 or 2, in the voxels of the series.
    file
        The series. Patient, study and frame of reference are copied from it.

    Raises
    ------
    DataError
        The extra is missing, the disk is full, or the folder cannot be written.
    """
    seg = _segmentation(path, np.ascontiguousarray(array.T), file)
    with atomic_path(path) as temporary, _in_silence():
        seg.save_as(temporary)


def check_source(path: Path, file: DicomFile) -> None:
    """Raise a `DataError` if no DICOM SEG can refer to a series, before there is a label map."""
    _segmentation(path, np.ones((len(file.slices), 1, 1), np.uint8), file)


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Leave out what pydicom and highdicom warn of: it may hold the patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_in_silence()
def _segmentation(path: Path, planes: np.ndarray, file: DicomFile) -> Any:
    """Make a DICOM SEG of planes, (slices, rows, columns), which may be smaller than the series."""
    highdicom = formats_library("highdicom", path)
    pydicom = formats_library("pydicom", path)
    version = str(versions()["tunet-book"])
    descriptions = _descriptions(highdicom, version)
    try:
        headers, planes = _sources(pydicom, file, planes)
        return highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=planes,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(headers[0].SeriesNumber or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="TuNet Book",
            manufacturer_model_name="tunet_lib",
            software_versions=version,
            device_serial_number="0",
            content_description="Kidney and tumor, not for clinical use",
            series_description="Kidney and tumor",
        )
    except Exception as error:  # highdicom raises whatever a damaged header leads to
        raise DataError(
            f"{path}: cannot refer to its series ({error}); write .nii.gz instead"
        ) from error


def _sources(pydicom: Any, file: DicomFile, planes: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Read the headers of a series, and put its planes in the order of their frames."""
    right, down, step = file.affine[:3, :3].T
    normal = np.cross(right, down)
    # Rounded, since in DICOM a number has at most 16 letters.
    step_mm = round(float(abs(step @ normal) / np.linalg.norm(normal)), 6)
    paths = list(dict.fromkeys(each.path for each in file.slices))
    headers = [pydicom.dcmread(each, stop_before_pixels=True, force=True) for each in paths]
    for header in headers:
        header.decode()  # a segmentation is written in UTF-8, whatever its series is
        header.SpecificCharacterSet = "ISO_IR 192"
        _fill_in(header, step_mm)
        header.Rows, header.Columns = planes.shape[1:]
    if file.slices[0].frame is not None:
        if len(paths) > 1:
            raise ValueError("its frames lie in several files")
        planes = planes[np.argsort([each.frame or 0 for each in file.slices])]
    return headers, planes


def _descriptions(highdicom: Any, version: str) -> list[Any]:
    concept = highdicom.sr.CodedConcept
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="TuNet", version=version, family=concept("123109", "DCM", "Artificial Intelligence")
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=concept(*category),
            segmented_property_type=concept(*kind),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=highdicom.UID(),
            tracking_id=label,
            anatomic_regions=[concept(*KIDNEY)] if kind != KIDNEY else None,
            display_color=highdicom.color.CIELabColor.from_rgb(*color),
        )
        for number, (label, category, kind, color) in enumerate(SEGMENTS, start=1)
    ]


def _fill_in(header: Any, step_mm: float) -> None:
    """Mend what is missing or wrong: what may be empty is left so, and a viewer needs the steps.

    Tools that anonymize remove values, or put in their place what the standard does not allow.
    """
    for name in MAY_BE_EMPTY:
        if not _is_valid(header, name):
            setattr(header, name, None)
    header.Modality = CT  # by which it was read, if only by its SOPClassUID
    # Some scanners write the thickness here, or a number below 0; viewers believe it.
    header.SpacingBetweenSlices = step_mm
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in header.get(name) or ():
            for measures in group.get("PixelMeasuresSequence") or ():
                measures.SpacingBetweenSlices = step_mm
    if not header.get("SliceThickness"):
        header.SliceThickness = step_mm  # a viewer wants some, and the file has none


def _is_valid(header: Any, name: str) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        element = header[name]
        value = str(element.value) if element.VR == "PN" else element.value
        validate_value(element.VR, value, RAISE)
    except Exception:  # it may be missing, or whatever a damaged one leads to
        return False
    return name != "PatientSex" or element.value in ("M", "F", "O", "", None)
