"""What the headers of DICOM say of slices, checked: each number is there, finite, and can be."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.dicom_pixels import AS_IT_IS, BIG_ENDIAN, IMPLICIT, Pixels, open_inflated
from tunet_lib.extras import formats_library
from tunet_lib.files import DataError

LOWEST_HU, HIGHEST_HU = -1024, 3071  # between which scanners write, unless metal is on their scale

CT = "CT"
SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # enhanced CT, legacy
DIRECTION = 0.01  # how far two directions may be off length 1 and right angles, by rounding
TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Modality", "ImageType", "Rows", "Columns", "PixelSpacing", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
    *("BitsStored", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "BitsAllocated"),
    *("HighBit", "PixelPaddingValue", "AcquisitionNumber", "ConvolutionKernel", "RescaleType"),
]
NO_HU = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")  # RescaleType of maps, as of iodine in mg/ml
MODALITY = 0x00080060
PIXELS = 0x7FE00010  # the pixel data; nothing that is read here comes after it
UNKNOWN = 0xFFFFFFFF  # in place of a length; of pixels that are compressed
MOST_ELEMENTS = 10_000  # of a header, without what lies within sequences; a CT has some hundred


@dataclass(frozen=True)
class Slice:
    """What one file of DICOM says of its slice.

    Attributes
    ----------
    path
        The file.
    uid
        SOPInstanceUID.
    pixels
        Where its pixels are.
    position_mm
        (3,), the center of the first pixel, in LPS.
    axes_mm
        (3, 2), the steps to the next column and to the next row, in LPS.
    slope, intercept
        Of pixels, to HU.
    frame
        Which one of a file with several, from 0; None if the file is this slice.
    padding
        What a pixel without a value holds, such as outside of a round field of view; None if
        the file names nothing.
    made_by
        Which acquisition and kernel, in words; empty if the file names neither.
    """

    path: Path
    uid: str
    pixels: Pixels
    position_mm: np.ndarray
    axes_mm: np.ndarray
    slope: float
    intercept: float
    frame: int | None = None
    padding: int | None = None
    made_by: str = ""

    def hu(self, stored: np.ndarray) -> np.ndarray:
        """Turn pixels as they are stored into HU; those without a value are air."""
        found = stored * self.slope + self.intercept
        if self.padding is not None:
            # Some write a number below 0 as if it had no sign, and some name one that tissue has.
            is_named = (stored.astype(np.int64) - self.padding) % 2**self.pixels.allocated == 0
            found[is_named & ((found < LOWEST_HU) | (found > HIGHEST_HU))] = LOWEST_HU
        return found

    @property
    def rows(self) -> int:
        """Pixels from top to bottom."""
        return self.pixels.rows

    @property
    def columns(self) -> int:
        """Pixels from left to right."""
        return self.pixels.columns

    @property
    def range_hu(self) -> tuple[float, float]:
        """Between which values its voxels must lie; infinite if they need not be whole."""
        if not (self.slope.is_integer() and self.intercept.is_integer()):
            return -np.inf, np.inf
        half = 2 ** (self.pixels.stored - 1)
        stored = (-half, half - 1) if self.pixels.is_signed else (0, 2 * half - 1)
        low, high = sorted(self.slope * each + self.intercept for each in stored)
        return low, high

    @property
    def name(self) -> str:
        """Name the slice by its file, and its frame there if need be."""
        name = self.path.name
        return name if self.frame is None else f"frame {self.frame + 1} of {name}"


def read_header(path: Path, until: int = PIXELS) -> tuple[Any, tuple[int, int | None] | None]:
    """Read what comes before the pixels, and where these lie, as `slices_of` wants it.

    Raises whatever a damaged header leads pydicom to.

    Parameters
    ----------
    path
        The file.
    until
        The tag at which to stop: what is damaged behind it does not matter.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    elements, place = itertools.count(1), None

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        nonlocal place
        # To pydicom a file of zeros is a header of elements without a value, eight bytes each.
        if next(elements) > MOST_ELEMENTS:
            raise ValueError(f"more than {MOST_ELEMENTS} elements")
        if tag == PIXELS:
            start = stream.tell()
            place = start, None if length == UNKNOWN else min(length, size - start)
        elif length not in (0, UNKNOWN) and stream.tell() + length > size:
            raise ValueError("a value is longer than the file")
        return tag >= until

    with open_inflated(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        # Forced: some programs leave out the bytes by which one knows DICOM.
        header = read_partial(
            stream, stop_when=stop, force=True, specific_tags=[Tag(name) for name in TAGS]
        )
    for _ in header:  # until it is asked for, an element is not parsed
        pass
    return header, place


def modality_of(header: Any) -> str:
    """Say what made an image; empty if its header does not tell."""
    is_ct = header.get("SOPClassUID") in (SINGLE_FRAME, *MULTI_FRAME)
    return str(header.get("Modality") or (CT if is_ct else ""))


def why_no_slice(header: Any) -> str:
    """Say why a file is no slice of a CT; empty if it is one."""
    if (modality := modality_of(header)) != CT:
        return f"modality {modality or 'unknown'}"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizer"
    is_palette = str(header.get("PhotometricInterpretation")).startswith("PALETTE")
    if is_palette or header.get("SamplesPerPixel", 1) != 1:
        return "color image"
    if kind := _map_of(header):
        return f"map in {kind}, not HU"
    if header.get("SOPClassUID") in MULTI_FRAME:
        return "" if header.get("PerFrameFunctionalGroupsSequence") else "file without frames"
    if not header.get("ImagePositionPatient") or not header.get("ImageOrientationPatient"):
        return "image without a position"
    return ""


def _map_of(header: Any) -> str:
    """Say in what a map of a material, from a CT of two energies, is; empty if it is none."""
    kind = str(header.get("RescaleType") or "").strip().upper()
    return kind if kind in NO_HU else ""


def one_line(text: Any) -> str:
    """Give a text in one line, without what would move a screen's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text or "")).split())


def slices_of(path: Path, header: Any, place: tuple[int, int | None] | None) -> list[Slice]:
    """Give the slice that a file is, or those that it holds.

    Parameters
    ----------
    path
        The file.
    header
        pydicom's.
    place
        At which byte its pixels begin, and how many bytes they are: None if they are compressed.

    Raises
    ------
    DataError
        The header lacks something, is damaged, or its values would be read wrong.
    """
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        raise DataError(f"{path}: its values are inverted (MONOCHROME1), and so no HU")
    try:
        if place is None:
            raise ValueError("it ends before its pixels")
        if header.get("SOPClassUID") not in MULTI_FRAME:
            return [_slice_of(path, header, _pixels(path, header, place, 1))]
        frames = [_frame(path, header, own) for own in header.PerFrameFunctionalGroupsSequence]
        pixels = _pixels(path, header, place, len(frames))
        return [_slice_of(path, one, pixels, k) for k, one in enumerate(frames)]
    except DataError:
        raise
    except AttributeError as error:
        raise DataError(f"{path}: its DICOM header lacks {error.name}") from error
    except Exception as error:  # pydicom raises whatever a damaged header leads to
        raise DataError(f"{path}: its DICOM header is damaged ({error})") from error


def _frame(path: Path, header: Any, own: Any) -> Any:
    """Write what a file says of one of its frames as the header of a slice of its own."""
    frame = formats_library("pydicom", path).Dataset()
    frame.update(header)
    for group in (*(header.get("SharedFunctionalGroupsSequence") or ()), own):
        for element in group:
            # A private one may have other values by the same names, as of a display.
            if element.VR == "SQ" and element.value and not element.tag.is_private:
                frame.update(element.value[0])
    return frame


def _pixels(path: Path, header: Any, place: tuple[int, int | None], places: int) -> Pixels:
    """Compare how pixels lie there with what the header promises."""
    start, size = place
    rows, columns = int(header.Rows), int(header.Columns)
    if (frames := int(header.get("NumberOfFrames") or places)) != places:
        what = "one slice" if places == 1 else f"what lies in {places} places"
        raise ValueError(f"{frames} frames, and it tells of {what}")
    kind, is_signed = header.get("PhotometricInterpretation"), header.get("PixelRepresentation", 0)
    if kind not in (None, "", "MONOCHROME2") or is_signed not in (0, 1):
        raise ValueError(f"its pixels are {kind}, and their PixelRepresentation {is_signed}")
    if min(rows, columns) < 1:
        raise ValueError(f"{rows} rows, {columns} columns")
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    high = int(header.get("HighBit") or bits - 1)
    # Of a higher HighBit programs disagree whether the values are to be shifted.
    if allocated not in (8, 16, 32) or not 1 <= bits == high + 1 <= allocated:
        raise ValueError(f"BitsAllocated is {allocated}, BitsStored {bits}, HighBit {high}")
    row_bytes = columns * allocated // 8
    promised = row_bytes * rows * frames
    if size is not None and not promised <= size < promised + row_bytes:  # some fill up a little
        raise ValueError(
            f"{frames} x {rows} x {columns} pixels take {promised} bytes, and it has {size}"
        )
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if not syntax:  # pydicom has found out in which order it is read
        syntax = BIG_ENDIAN if header.original_encoding[1] is False else IMPLICIT
    if size is not None and syntax not in AS_IT_IS:
        raise ValueError(f"TransferSyntaxUID is {syntax}, and its pixels are not compressed")
    return Pixels(
        *(path, syntax, start, size, frames, rows, columns, allocated, bits),
        is_signed=bool(is_signed),
    )


def _slice_of(path: Path, header: Any, pixels: Pixels, frame: int | None = None) -> Slice:
    if kind := _map_of(header):  # a file of several frames says it of each
        raise DataError(f"{path}: its values are {kind}, and so no HU")
    (slope,) = _numbers(header.get("RescaleSlope", 1) or 1, "RescaleSlope", 1)
    (intercept,) = _numbers(header.get("RescaleIntercept", 0) or 0, "RescaleIntercept", 1)
    spacing_mm = _numbers(header.PixelSpacing, "PixelSpacing", 2)
    if min(spacing_mm) <= 0:
        raise ValueError(f"PixelSpacing is {spacing_mm}")
    down_mm, right_mm = spacing_mm
    directions = np.reshape(
        _numbers(header.ImageOrientationPatient, "ImageOrientationPatient", 6), (2, 3)
    )
    if np.abs(directions @ directions.T - np.eye(2)).max() > 2 * DIRECTION:
        raise ValueError(f"ImageOrientationPatient is {directions.ravel().tolist()}")
    # Rounded ones would change the size of a voxel, by up to a hundredth.
    right = directions[0] / np.linalg.norm(directions[0])
    down = directions[1] - (directions[1] @ right) * right
    directions = np.stack([right, down / np.linalg.norm(down)])
    return Slice(
        path,
        str(header.get("SOPInstanceUID", "")),
        pixels,
        position_mm=np.array(_numbers(header.ImagePositionPatient, "ImagePositionPatient", 3)),
        axes_mm=directions.T * (right_mm, down_mm),
        slope=slope,
        intercept=intercept,
        frame=frame,
        padding=_padding(header),
        made_by=_made_by(header),
    )


def _made_by(header: Any) -> str:
    names = {"AcquisitionNumber": "acquisition", "ConvolutionKernel": "kernel"}
    parts = [f"{name} {value}" for key, name in names.items() if (value := header.get(key))]
    return one_line(", ".join(parts))


def _padding(header: Any) -> int | None:
    value = header.get("PixelPaddingValue")
    if isinstance(value, bytes):  # of a VR that pydicom could not tell
        value = int.from_bytes(value, "little")
    return value if isinstance(value, int) else None


def _numbers(value: Any, name: str, count: int) -> list[float]:
    values = [value] if count == 1 else list(value)
    numbers = [float(each) for each in values]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{name} is {value}")
    return numbers
