"""What the headers of DICOM say of slices, checked: each number is there, finite, and can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.extras import formats_library
from tunet_lib.files import DataError

MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # enhanced CT, legacy
DIRECTION = 0.01  # how far two directions may be off length 1 and right angles, by rounding


@dataclass(frozen=True)
class Slice:
    """What one file of DICOM says of its slice.

    Attributes
    ----------
    path
        The file.
    uid
        SOPInstanceUID.
    rows, columns
        Pixels.
    position_mm
        (3,), the center of the first pixel, in LPS.
    axes_mm
        (3, 2), the steps to the next column and to the next row, in LPS.
    range_hu
        Between which values its voxels must lie; infinite if they need not be whole.
    frame
        Which one of a file with several, from 0; None if the file is this slice.
    """

    path: Path
    uid: str
    rows: int
    columns: int
    position_mm: np.ndarray
    axes_mm: np.ndarray
    range_hu: tuple[float, float]
    frame: int | None = None

    @property
    def name(self) -> str:
        """Name the slice by its file, and its frame there if need be."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1}"


def slices_of(path: Path, header: Any, pixel_bytes: int | None) -> list[Slice]:
    """Give the slice that a file is, or those that it holds.

    Parameters
    ----------
    path
        The file.
    header
        pydicom's.
    pixel_bytes
        How many it has of pixels; None if they are compressed.

    Raises
    ------
    DataError
        The header lacks something, is damaged, or its values would be read wrong.
    """
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        raise DataError(f"{path}: its values are inverted (MONOCHROME1), and so no HU")
    try:
        if header.get("SOPClassUID") in MULTI_FRAME:
            slices = _slices_of_frames(path, header)
        else:
            slices = [_slice_of(path, header)]
        _check_pixels(header, slices, pixel_bytes)
    except DataError:
        raise
    except AttributeError as error:
        raise DataError(f"{path}: its DICOM header lacks {error.name}") from error
    except Exception as error:  # pydicom raises whatever a damaged header leads to
        raise DataError(f"{path}: its DICOM header is damaged ({error})") from error
    return slices


def _slices_of_frames(path: Path, header: Any) -> list[Slice]:
    frames = [_frame(path, header, own) for own in header.PerFrameFunctionalGroupsSequence]
    if len({(one.get("RescaleSlope"), one.get("RescaleIntercept")) for one in frames}) > 1:
        # They are read at once, by the numbers of the first.
        raise DataError(
            f"{path}: its frames have rescale slopes or intercepts of their own; write it as "
            "single slices or NIfTI, with dcm2niix say"
        )
    return [replace(_slice_of(path, one), frame=k) for k, one in enumerate(frames)]


def _frame(path: Path, header: Any, own: Any) -> Any:
    """Write what a file says of one of its frames as the header of a slice of its own."""
    frame = formats_library("pydicom", path).Dataset()
    frame.update(header)
    for group in (*(header.get("SharedFunctionalGroupsSequence") or ()), own):
        for element in group:
            if element.VR == "SQ" and element.value:
                frame.update(element.value[0])
    return frame


def _slice_of(path: Path, header: Any) -> Slice:
    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation", 0))
    if not 1 <= bits <= int(header.get("BitsAllocated") or bits) <= 64:
        raise ValueError(f"BitsStored is {bits}")
    rows, columns = int(header.Rows), int(header.Columns)
    if min(rows, columns) < 1:
        raise ValueError(f"{rows} rows, {columns} columns")
    (slope,) = _numbers(header.get("RescaleSlope", 1) or 1, "RescaleSlope", 1)
    (intercept,) = _numbers(header.get("RescaleIntercept", 0) or 0, "RescaleIntercept", 1)
    stored = np.array(
        [-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if signed else [0, 2.0**bits - 1]
    )
    low, high = sorted((slope * stored + intercept).tolist())
    whole = slope.is_integer() and intercept.is_integer()
    spacing_mm = _numbers(header.PixelSpacing, "PixelSpacing", 2)
    if min(spacing_mm) <= 0:
        raise ValueError(f"PixelSpacing is {spacing_mm}")
    down_mm, right_mm = spacing_mm
    directions = np.reshape(
        _numbers(header.ImageOrientationPatient, "ImageOrientationPatient", 6), (2, 3)
    )
    if np.abs(directions @ directions.T - np.eye(2)).max() > 2 * DIRECTION:
        raise ValueError(f"ImageOrientationPatient is {directions.ravel().tolist()}")
    return Slice(
        path,
        str(header.get("SOPInstanceUID", "")),
        rows=rows,
        columns=columns,
        position_mm=np.array(_numbers(header.ImagePositionPatient, "ImagePositionPatient", 3)),
        axes_mm=directions.T * (right_mm, down_mm),
        range_hu=(low, high) if whole else (-np.inf, np.inf),
    )


def _numbers(value: Any, name: str, count: int) -> list[float]:
    values = [value] if count == 1 else list(value)
    numbers = [float(each) for each in values]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{name} is {value}")
    return numbers


def _check_pixels(header: Any, slices: list[Slice], pixel_bytes: int | None) -> None:
    """Compare pixels with what the header promises: SimpleITK would read on in any memory."""
    is_one = slices[0].frame is None
    if (frames := int(header.get("NumberOfFrames") or len(slices))) != len(slices):
        what = "one slice" if is_one else f"what lies in {len(slices)} places"
        raise ValueError(f"{frames} frames, and it tells of {what}")
    if pixel_bytes is None:
        return
    row_bytes = slices[0].columns * int(header.BitsAllocated) / 8
    promised = row_bytes * slices[0].rows * len(slices)
    if not promised <= pixel_bytes < promised + row_bytes:  # some fill up a little
        raise ValueError(
            f"{len(slices)} x {slices[0].rows} x {slices[0].columns} pixels take {promised:.0f} "
            f"bytes, and it has {pixel_bytes}"
        )
