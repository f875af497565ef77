"""NRRD and MetaImage files, as far as SimpleITK believes them too easily.

A voxel size that is missing is 1 mm to it, and a name in a header any file of the machine. It
passes over damage: of a MetaImage whose bytes cannot be unpacked it gives what memory happened to
hold, and of an NRRD it compares no checksum. So the voxels are unpacked once to see that they are
whole.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from tunet_lib.files import GET_AGAIN, DataError

LINES = 10_000  # of a header in text; some list tags of DICOM there
LINE_BYTES = 1 << 16
BLOCK_BYTES = 1 << 18
ANY_KIND = 47  # zlib's number for its own format and gzip's, whichever it is
PLAIN, PACKED = (b"raw", b"false"), (b"gzip", b"gz", b"true")
SKIPPING = {b"byte skip", b"line skip", b"headersize"}
SEVERAL = (b"list", b"%")  # in place of one file's name
LISTED = b""  # no field has this name
DATA_FILES = (b"data file", b"datafile", b"elementdatafile")
SIZES = (b"spacings", b"space directions", b"elementspacing", b"elementsize")
DIRECTIONS = (b"transformmatrix", b"rotation", b"orientation")
# Of an NRRD only these say where the patient's right, front and head are; "scanner-xyz" does not.
SPACES = re.compile(
    rb"(right-anterior|left-anterior|left-posterior)-superior(-time)?|(ras|las|lps)t?"
)


def check_head(path: Path) -> bool:
    """Look at the header of an NRRD or MetaImage, and say whether it tells how the patient lies.

    Raises
    ------
    DataError
        It gives no voxel size, or its voxels lie in a file that is not beside or below it.
    """
    try:
        fields, _ = _header(path)
        names = [fields.get(key, b"") for key in (*DATA_FILES, LISTED)]
        parts = [
            PurePosixPath(n.decode().replace("\\", "/")) for n in b"\n".join(names).split(b"\n")
        ]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {GET_AGAIN}") from error
    if outside := [str(part) for part in parts if part.is_absolute() or ".." in part.parts]:
        raise DataError(
            f"{path}: names {outside[0]} for its voxels, which is elsewhere; put it beside this "
            "file, and correct its header"
        )
    # NRRD writes "nan" for what is not known, which SimpleITK takes for 1 mm.
    sizes = [fields[key].lower().split() for key in SIZES if fields.get(key)]
    known = [word for size in sizes for word in size if b"nan" not in word]
    if fields and (not sizes or len(known) < min(3, sum(map(len, sizes)))):
        raise DataError(f"{path}: does not say how large a voxel is; correct its header")
    space = fields.get(b"space", b"").lower()
    return any(key in fields for key in DIRECTIONS) or SPACES.fullmatch(space) is not None


def check_body(path: Path, count: int) -> int | None:
    """Make sure that a file, or the one beside it that has its voxels, holds them undamaged.

    Parameters
    ----------
    path
        NRRD or MetaImage, attached to its voxels or not. Others are passed over, and so are
        voxels in several files, or as text.
    count
        How many bytes the voxels have.

    Returns
    -------
    int
        CRC-32 of the voxels, in the byte order of the file; None if they are not compressed.

    Raises
    ------
    DataError
        They are cut short or damaged, or more than the header promises; or their file is missing.
    """
    try:
        fields, start = _header(path)
        names = (fields.get(key) for key in DATA_FILES)
        name = next(filter(None, names), b"LOCAL")
        kind = (fields.get(b"encoding") or fields.get(b"compresseddata") or b"false").lower()
        is_text = not fields.get(b"binarydata", b"t").lower().startswith((b"t", b"1"))
        unknown = kind not in (*PLAIN, *PACKED) or any(word in name.lower() for word in SEVERAL)
        if is_text or unknown or SKIPPING & set(fields):
            return None
        body = path
        if name.lower() != b"local":
            body, start = path.parent / name.decode(), 0
        if not body.is_file():
            raise DataError(f"{path}: its voxels lie in {body.name}, which is missing beside it")
        with body.open("rb") as stream:
            stream.seek(start)
            if kind in PACKED:
                found, checksum = _unpacked(stream, count)
            else:
                found, checksum = body.stat().st_size - start, None
        if found < count:
            raise EOFError(f"{count - found} bytes are missing")
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise DataError(f"{path}: is cut short or damaged ({error}); {GET_AGAIN}") from error
    return checksum


def _header(path: Path) -> tuple[dict[bytes, bytes], int]:
    """Read the fields of a header in text, in small letters, and where it ends."""
    fields: dict[bytes, bytes] = {}
    listed: list[bytes] = []
    is_list = False
    with path.open("rb") as stream:
        is_nrrd = stream.read(4) == b"NRRD"
        stream.seek(0)
        for _ in range(LINES):
            line = stream.readline(LINE_BYTES)
            if not line.strip():
                break
            if is_list:
                listed.append(line.strip())
                continue
            name, _, value = line.partition(b":" if is_nrrd else b"=")
            key, value = name.strip().lower(), value.strip()
            fields[key] = value
            is_list = key in DATA_FILES and value[:4].lower() == b"list"
            if key == b"elementdatafile" and not is_list:
                break
        return fields | {LISTED: b"\n".join(listed)} if is_list else fields, stream.tell()


def _unpacked(stream: IO[bytes], count: int) -> tuple[int, int]:
    """Unpack to the end, and give the number of bytes and their CRC-32; zlib compares its own."""
    found, checksum, member = 0, 0, zlib.decompressobj(ANY_KIND)
    rest = stream.read(BLOCK_BYTES)
    while rest:
        block = member.decompress(rest, BLOCK_BYTES)
        found, checksum = found + len(block), zlib.crc32(block, checksum)
        if found > count:
            raise EOFError("it holds more than its header promises")
        if not member.eof:
            rest = member.unconsumed_tail or stream.read(BLOCK_BYTES)
        elif found < count:  # gzip may have several members
            rest = member.unused_data or stream.read(BLOCK_BYTES)
            member = zlib.decompressobj(ANY_KIND)
        else:
            return found, checksum
    block = member.flush()
    found, checksum = found + len(block), zlib.crc32(block, checksum)
    if not member.eof and found >= count:
        raise EOFError("it ends before its checksum")
    return found, checksum
