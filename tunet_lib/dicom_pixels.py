"""The pixels of a DICOM file, plane by plane, in no more memory than its header promises.

What lies there as it is, and RLE, is read by pydicom. JPEG of all kinds is decoded by SimpleITK,
from a file of our own that holds nothing but that plane: of any other it believes each length, and
claims gigabytes for random bytes behind the pixels.
"""

from __future__ import annotations

import errno
import io
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tunet_lib.extras import formats_library
from tunet_lib.files import GET_AGAIN, DataError
from tunet_lib.itk import simple_itk, told

AS_IT_IS = IMPLICIT, EXPLICIT, BIG_ENDIAN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the whole file behind its first group is packed
META_BYTES = 4096  # more than that group takes
MOST_INFLATED = 1 << 28
RLE, RLE_HEADER = "1.2.840.10008.1.2.5", 64
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # of which SimpleITK expects the least
# What begins the part of a JPEG that says how large it is: all are alike but 2000's.
FRAME_MARKS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Pixels:
    """How a file holds its pixels.

    Attributes
    ----------
    path
        The file.
    syntax
        TransferSyntaxUID.
    start, size
        Where they lie, in bytes; the size is None if they are compressed.
    frames, rows, columns
        Pixels.
    allocated, stored
        Bits a pixel takes, and how many of these, the lowest, count.
    is_signed
        Whether they may be below 0.
    """

    path: Path
    syntax: str
    start: int
    size: int | None
    frames: int
    rows: int
    columns: int
    allocated: int
    stored: int
    is_signed: bool

    def plane(self, frame: int, packed: Callable[[Pixels], list[bytes]]) -> np.ndarray:
        """Read one plane as it is stored, (rows, columns) of integers.

        Parameters
        ----------
        frame
            Which one, from 0.
        packed
            `packed_frames`, or what remembers what that gave.

        Raises
        ------
        DataError
            It is cut short or damaged, or no decoder knows it; or the file is gone, or the disk
            is full.
        """
        try:
            if self.size is not None:
                return self._plain(self._read(frame))
            coded = packed(self)
            if len(coded) != self.frames:
                raise ValueError(f"it has {len(coded)} frames of pixels, expected {self.frames}")
            if self.syntax == RLE:
                promised = self.rows * self.columns * self.allocated // 8
                # No RLE takes more than two bytes for each; pydicom unpacks all that there is.
                if len(coded[frame]) > RLE_HEADER + 2 * promised:
                    raise ValueError(f"its RLE is of more than {promised} bytes")
                encaps = formats_library("pydicom.encaps", self.path)
                return self._plain(encaps.encapsulate([coded[frame]]))
            return self._decoded(coded[frame])
        except DataError:
            raise
        except (OSError, MemoryError) as error:
            raise DataError(
                f"{self.path}: its pixels cannot be read ({_fault(self.path, error)}"
            ) from error
        except Exception as error:  # pydicom raises whatever damaged pixels lead to
            raise DataError(
                f"{self.path}: its pixels are damaged ({error}); {GET_AGAIN}"
            ) from error

    def _read(self, frame: int) -> bytes:
        size = self.rows * self.columns * self.allocated // 8
        with open_inflated(self.path) as stream:
            stream.seek(self.start + frame * size)
            return stream.read(size)

    def _plain(self, content: bytes) -> np.ndarray:
        """Leave one plane that needs no decoder of JPEG to pydicom."""
        decoder = formats_library("pydicom.pixels", self.path).get_decoder(self.syntax)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of more pixels than there should be it only warns
            values, _ = decoder.as_array(
                content,
                raw=True,
                number_of_frames=1,
                rows=self.rows,
                columns=self.columns,
                samples_per_pixel=1,
                photometric_interpretation="MONOCHROME2",
                bits_allocated=self.allocated,
                bits_stored=self.stored,
                pixel_representation=int(self.is_signed),
                pixel_keyword="PixelData",
                pixel_vr="OW",
            )
        return values

    def _decoded(self, coded: bytes) -> np.ndarray:
        expected = self.rows, self.columns, 1
        if (size := _coded_size(coded)) != expected:
            raise ValueError(f"rows, columns and values are {size}, by its header {expected}")
        sitk = simple_itk(self.path)
        with tempfile.TemporaryDirectory() as folder:
            alone = Path(folder) / "plane.dcm"
            self._alone(coded).save_as(alone, enforce_file_format=True)
            image = told(self.path, lambda: sitk.ReadImage(str(alone), imageIO="GDCMImageIO"))
        return sitk.GetArrayFromImage(image).reshape(self.rows, self.columns)

    def _alone(self, coded: bytes) -> Any:
        """Make a DICOM file of one coded plane."""
        pydicom = formats_library("pydicom", self.path)
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = self.syntax
        data.SOPClassUID, data.SOPInstanceUID = SECONDARY_CAPTURE, "1.2.3"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = self.rows, self.columns
        data.BitsAllocated, data.BitsStored = self.allocated, self.stored
        data.HighBit = self.stored - 1
        data.PixelRepresentation = int(self.is_signed)
        data.PixelData = formats_library("pydicom.encaps", self.path).encapsulate([coded])
        data["PixelData"].VR = "OB"
        return data


def packed_frames(pixels: Pixels) -> list[bytes]:
    """Read the coded frames of a file with compressed pixels."""
    encaps = formats_library("pydicom.encaps", pixels.path)
    with open_inflated(pixels.path) as stream:
        stream.seek(pixels.start)
        # Read at once: of a length beyond the end of the file nothing is claimed.
        content = stream.read()
    return list(encaps.generate_frames(content, number_of_frames=pixels.frames))


def open_inflated(path: Path) -> BinaryIO:
    """Open a DICOM file; of one that is deflated, inflated, with the syntax that is then right."""
    with path.open("rb") as stream:
        is_deflated = DEFLATED in stream.read(META_BYTES)
        if is_deflated:
            stream.seek(0)
            content = stream.read()
    if not is_deflated:
        return path.open("rb")
    read_partial = formats_library("pydicom.filereader", path).read_partial
    whole = io.BytesIO(content.replace(DEFLATED, EXPLICIT.encode().ljust(len(DEFLATED), b"\0"), 1))
    read_partial(whole, stop_when=lambda *_: True, force=True)
    start, packer = whole.tell(), zlib.decompressobj(-zlib.MAX_WBITS)
    body = packer.decompress(content[start:], MOST_INFLATED)
    if not packer.eof:
        raise EOFError("its deflated part is cut short, or much too large")
    return io.BytesIO(whole.getvalue()[:start] + body)


def _fault(path: Path, error: OSError | MemoryError) -> str:
    """Say what keeps pixels that may be whole from being read, and what to do."""
    if isinstance(error, MemoryError):
        return "they take more memory than there is); close other programs"
    what = error.strerror or str(error)
    is_own = error.filename is None or Path(error.filename) == path
    # Python says of temporary folders that are all full that there is none.
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or not is_own or "temporary" in what:
        return f"{what}); free space in the temporary folder, or name another by TMPDIR"
    return f"{what}); make sure that the file is still there, and its disk sound"


def _coded_size(coded: bytes) -> tuple[int, int, int]:
    """Say what a JPEG promises: rows, columns, and values a pixel."""
    if (at := coded.find(JPEG_2000, 0, META_BYTES)) >= 0:
        right, below, left, above = struct.unpack_from(">4I", coded, at + 8)
        (values,) = struct.unpack_from(">H", coded, at + 40)
        return below - above, right - left, values
    if coded.startswith(JPEG):
        at = len(JPEG)
        while coded[at] == 0xFF:
            if coded[at + 1] in FRAME_MARKS:
                return struct.unpack_from(">HHB", coded, at + 5)
            (size,) = struct.unpack_from(">H", coded, at + 2)
            at += 2 + size
    raise ValueError("they are no JPEG")
