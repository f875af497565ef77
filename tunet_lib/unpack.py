"""Files as they are read: plain, or unpacked from gzip by a thread that is ahead of the reader."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any

from isal import igzip_threaded, isal_zlib

from tunet_lib.files import GET_AGAIN, DataError

# What holds several files, or is packed in a way that nothing here unpacks.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 1 << 18


def is_gzip(path: Path) -> bool:
    """Tell by content, since browsers unpack .gz files and keep the name.

    Raises
    ------
    DataError
        The file is empty.
    """
    with path.open("rb") as stream:
        magic = stream.read(2)
    if not magic:
        raise DataError(f"{path}: is empty; {GET_AGAIN}")
    return magic == MAGIC


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading; one in gzip is unpacked on the way."""
    return io.BufferedReader(_Unpacked(path)) if is_gzip(path) else path.open("rb")


class _Unpacked(io.RawIOBase):
    """What gzip holds; bytes behind its last member, which some tools add, are left alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        self.stream: Any = igzip_threaded.open(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self.stream.readinto(buffer)
        except (gzip.BadGzipFile, EOFError) as error:
            # The thread had read too far when it met them, and what it had is lost. Fewer bytes
            # than a member's header are no end of the file to it.
            is_behind = isinstance(error, EOFError) or "Not a gzipped file" in str(error)
            if not is_behind or isinstance(self.stream, _Members):
                raise
            self.stream.close()
            if isinstance(error, EOFError):  # where it is cut short, this says so again
                with _Members(self.path) as members:
                    while members.read(BLOCK_BYTES):
                        pass
            self.stream = _Members(self.path)
            left = self.position
            while left:
                left -= len(self.stream.read(min(left, BLOCK_BYTES)))
            count = self.stream.readinto(buffer)
        self.position += count
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Members(io.RawIOBase):
    """The members of a gzip file, one after another, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.packed = path.open("rb")
        self.member = isal_zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self.member.eof:
                rest = self.member.unused_data or self.packed.read(BLOCK_BYTES)
                if not rest.startswith(MAGIC):
                    return 0
                self.member = isal_zlib.decompressobj(wbits=31)
            else:
                rest = self.member.unconsumed_tail or self.packed.read(BLOCK_BYTES)
                if not rest:
                    raise EOFError("gzip ended before its end-of-stream marker")
            if data := self.member.decompress(rest, len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self.packed.close()
        super().close()
