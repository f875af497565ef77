"""The voxels of NRRD and MetaImage files, unpacked once to see that they are whole.

SimpleITK passes over damage: of a MetaImage whose bytes cannot be unpacked it gives what memory
happened to hold, and of an NRRD it compares no checksum.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

from tunet_lib.files import GET_AGAIN, DataError

LINES = 10_000  # of a header in text; some list tags of DICOM there
LINE_BYTES = 1 << 16
BLOCK_BYTES = 1 << 18
ANY_KIND = 47  # zlib's number for its own format and gzip's, whichever it is
PLAIN, PACKED = (b"raw", b"false"), (b"gzip", b"gz", b"true")
SKIPPING = {b"byte skip", b"line skip", b"headersize"}
SEVERAL = (b"list", b"%")  # in place of one file's name


def check_body(path: Path, count: int) -> None:
    """Make sure that a file, or the one beside it that has its voxels, holds them undamaged.

    Parameters
    ----------
    path
        NRRD or MetaImage, attached to its voxels or not. Others are passed over, and so are
        voxels in several files, or as text.
    count
        How many bytes the voxels have.

    Raises
    ------
    DataError
        They are cut short or damaged, or more than the header promises; or their file is missing.
    """
    try:
        fields, start = _header(path)
        names = (fields.get(key) for key in (b"data file", b"datafile", b"elementdatafile"))
        name = next(filter(None, names), b"LOCAL")
        kind = (fields.get(b"encoding") or fields.get(b"compresseddata") or b"false").lower()
        unknown = kind not in (*PLAIN, *PACKED) or any(word in name.lower() for word in SEVERAL)
        if unknown or SKIPPING & set(fields):
            return
        body = path
        if name.lower() != b"local":
            body, start = path.parent / name.decode(), 0
        if not body.is_file():
            raise DataError(f"{path}: its voxels lie in {body.name}, which is missing beside it")
        with body.open("rb") as stream:
            stream.seek(start)
            packed = kind in PACKED
            found = _unpacked(stream, count) if packed else body.stat().st_size - start
        if found < count:
            raise EOFError(f"{count - found} bytes are missing")
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise DataError(f"{path}: is cut short or damaged ({error}); {GET_AGAIN}") from error


def _header(path: Path) -> tuple[dict[bytes, bytes], int]:
    """Read the fields of a header in text, in small letters, and where it ends."""
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as stream:
        is_nrrd = stream.read(4) == b"NRRD"
        stream.seek(0)
        for _ in range(LINES):
            line = stream.readline(LINE_BYTES)
            if not line.strip():
                break
            name, _, value = line.partition(b":" if is_nrrd else b"=")
            fields[name.strip().lower()] = value.strip()
            if b"elementdatafile" in fields:
                break
        return fields, stream.tell()


def _unpacked(stream: IO[bytes], count: int) -> int:
    """Unpack to the end, and give the number of bytes; zlib compares the checksums."""
    found, member = 0, zlib.decompressobj(ANY_KIND)
    rest = stream.read(BLOCK_BYTES)
    while rest:
        found += len(member.decompress(rest, BLOCK_BYTES))
        if found > count:
            raise EOFError("it holds more than its header promises")
        if not member.eof:
            rest = member.unconsumed_tail or stream.read(BLOCK_BYTES)
        elif found < count:  # gzip may have several members
            rest = member.unused_data or stream.read(BLOCK_BYTES)
            member = zlib.decompressobj(ANY_KIND)
        else:
            return found
    found += len(member.flush())
    if not member.eof and found >= count:
        raise EOFError("it ends before its checksum")
    return found
