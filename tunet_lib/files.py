"""The rules for files: one exception for bad data, and no half-written file ever."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import re
import tempfile
import time
import unicodedata
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunet_lib.process import Process, this_process

if TYPE_CHECKING:  # half of what `import tunet_lib` would take
    import numpy as np

_NO_ACCESS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
_TEMPORARY = re.compile(r"\.tmp-(\d{1,10})-(\d{1,12})-([\w.-]+)~(\w+)~.*", re.ASCII | re.DOTALL)
_GUARDED = "guarded"  # in the name of a temporary file that waits for what is called before
_FORGOTTEN_S = 7 * 86400  # no process, suspended or not, is so long about one file

GET_AGAIN = "get it again from where it came from"
DIGEST_MARK = b"\nsha256 "
DIGEST_BYTES = len(DIGEST_MARK) + 64


class DataError(ValueError):
    """Bad data from outside: names the file, what is wrong with it, and what to do."""


class DataWarning(UserWarning):
    """Data from outside that is taken with a doubt, or mended: names the file and says how."""


@contextlib.contextmanager
def notes_taken() -> Iterator[list[str]]:
    """Take down what is warned of, a sentence each, in place of showing it at once.

    Yields
    ------
    list of str
        Filled when the block ends, also by an error. Each sentence is there once.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield notes
        finally:
            ours = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
            notes += dict.fromkeys(ours)


@contextlib.contextmanager
def atomic_path(path: str | Path, *, before: Callable[[], object] | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` if the block succeeds.

    A reader sees the old file or the whole new one, never a part of it. The temporary
    name keeps the target's suffixes, since many writers choose a format by them, and says which
    process it is of: what a dead one has left there is removed.

    Parameters
    ----------
    path
        The file to write. Missing parent folders are made.
    before
        Called when all is written and only the new name is missing; if it raises, nothing
        changes. Whoever removes the temporary file after that (`guarded_files`) keeps it from
        getting its name as well.

    Yields
    ------
    pathlib.Path
        Where to write. It is removed if the block raises.

    Raises
    ------
    DataError
        The disk is full, or the folder cannot be written.
    """
    path = _target(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = path.with_name(_temporary_name(path, "" if before is None else _GUARDED))
        # Opened like this, and not by `tempfile`, it gets the mode that the user's umask says.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        _flush_to_disk(temporary)
        if before is not None:
            before()
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE) and before is not None:
            before()  # the temporary file was taken away, and this says by whom
        # NumPy reports a write that was cut short by an OSError without a number.
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):
            raise DataError(f"{path}: the disk is full; free some space and run again") from error
        if error.errno in _NO_ACCESS:
            raise DataError(f"{path}: cannot write here ({error.strerror})") from error
        raise
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that are gone; those of living ones stay.

    Of another machine's processes nothing is known, so theirs go after a week without a change.
    """
    for path, process, _ in _temporaries(folder):
        with contextlib.suppress(OSError):
            if process.is_dead() or time.time() - path.stat().st_mtime > _FORGOTTEN_S:
                path.unlink()


def guarded_files(folder: Path) -> list[Path]:
    """List the temporary files whose writers call something before they rename them.

    Without its temporary file a writer cannot finish, on whichever machine it is.
    """
    return [path for path, _, mark in _temporaries(folder) if mark.startswith(_GUARDED)]


def _target(path: str | Path) -> Path:
    """Give the path of a file to write; a folder that is called ~ is nobody's wish."""
    path = Path(path)
    if path.parts[:1] == ("~",):
        raise DataError(f"{path}: begins with ~, which only a shell replaces; write it out")
    return path


def check_writable(path: str | Path) -> None:
    """Raise a `DataError` if no file can be written there, before anything is computed for it."""
    path = _target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_folder = path.is_dir()  # a name that is too long is told here
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot write here ({reason})") from error
    if is_folder:
        raise DataError(f"{path}: is a folder; name a file")


def check_table_name(path: Path | None) -> None:
    """Raise a `DataError` if a table, if any, cannot be written there, or would replace a CT."""
    if path is None:
        return
    if not str(path).lower().endswith(".csv"):
        raise DataError(f"{path}: is to be a table; name a .csv")
    check_writable(path)


@contextlib.contextmanager
def noting(failures: dict[Any, str], name: Any) -> Iterator[None]:
    """Note what goes wrong with one of many, under its name, so that the others go on."""
    try:
        yield
    except (DataError, OSError, MemoryError) as error:
        failures[name] = str(error) or type(error).__name__


def save_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DataError
        The file is missing, unreadable, or not JSON, or names something twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors put a mark before it
        return json.loads(text, object_pairs_hook=_named_once)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error}); write it again") from error


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return values


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Give the first few of some names, and how many more there are."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def readable(cell: object) -> str:
    """Give a text in which a file's name, which may be any bytes, is one."""
    return str(cell).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_list_of(kind: type, value: Any) -> bool:
    """Tell whether what came of a file is a list with nothing but values of one type in it."""
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def files_below(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Give the files in a folder and in all below it, also where a folder is a link.

    Parameters
    ----------
    folder
        One that does not exist holds nothing.
    above
        The real paths of the folders that led here: a link back to one of them is not followed.

    Raises
    ------
    DataError
        A folder cannot be read.
    """
    folder, real = Path(folder), os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    for path in inside:
        if path.is_file():
            yield path
        else:
            yield from files_below(path, (*above, real))


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def with_digest(content: bytes) -> bytes:
    """Put a digest behind what a file will hold, so that no flipped bit goes unseen.

    For formats whose readers take lengths from the head of a file and do not look at what follows.
    """
    return content + DIGEST_MARK + hashlib.sha256(content).hexdigest().encode()


def check_digest(content: bytes) -> None:
    """Compare what a file holds with the digest behind it; one that has none is taken as well.

    Raises
    ------
    ValueError
        They differ.
    """
    mark = content[-DIGEST_BYTES:]
    if not mark.startswith(DIGEST_MARK):
        return
    if hashlib.sha256(content[:-DIGEST_BYTES]).hexdigest().encode() != mark[len(DIGEST_MARK) :]:
        raise ValueError("its digest is not that of its content")


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write one array as .npy with a digest behind it, atomically."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(with_digest(buffer.getvalue()))


def load_array(path: str | Path) -> np.ndarray:
    """Open one .npy array, memory-mapped and read-only.

    Raises
    ------
    DataError
        The file is missing, cut short, damaged, or not an array of numbers.
    """
    import numpy as np

    try:
        status = os.stat(path)
        _check_file(os.path.abspath(path), status.st_size, status.st_mtime_ns)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError("it holds no numbers")
        return array
    except Exception as error:  # whatever NumPy makes of a damaged header
        raise DataError(f"{path}: is not a whole .npy array ({error}); prepare it again") from error


@functools.lru_cache(maxsize=4096)  # a training opens the same files thousands of times
def _check_file(path: str, size: int, changed_ns: int) -> None:
    check_digest(Path(path).read_bytes())


def folded(name: str) -> str:
    """Give what a name is to a file system that ignores case and how an accent is written."""
    return unicodedata.normalize("NFC", name).casefold()


def flush_to_disk(descriptor: int) -> None:
    """Wait until what was written is on the disk; else a power cut can leave an empty file."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, vars(fcntl)["F_FULLFSYNC"])  # macOS' fsync lets the disk reorder
    except (ImportError, KeyError, OSError):
        os.fsync(descriptor)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _temporaries(folder: Path) -> Iterator[tuple[Path, Process, str]]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (match := _TEMPORARY.fullmatch(name)) is not None:
                pid, start_s, host, mark = match.groups()
                yield folder / name, Process(host, int(pid), int(start_s)), mark


def _temporary_name(path: Path, mark: str) -> str:
    own = this_process()
    # Of a long name only the end, which has the suffixes: a name has 255 bytes at most. What is no
    # ASCII may be no text at all, as on a disk that was written with another set of letters.
    tail = os.fsencode(path.name)[-60:].decode("ascii", errors="ignore")
    return f".tmp-{own.pid}-{own.start_s}-{own.host}~{mark}{uuid.uuid4().hex[:12]}~{tail}"
