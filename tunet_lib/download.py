"""KiTS19 from its public places: files that arrive whole, verified, or not at all.

Label maps and ``kits.json`` come from the KiTS19 repository at one commit, and the package
carries the size and SHA-256 of every label map. CTs come from the challenge's dataset
repository, which lists size and SHA-256 of each. A file is written under another name and
renamed when both are right, so what has its final name is whole. What a cut connection leaves
is gone on with, by this call or the next: by hand, on top of requests, since pooch begins such
a file anew, and so does huggingface_hub from its version 1.18 on.

Chapter 01 (``notebooks/01_kits19.ipynb``).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError, atomic_path, flush_to_disk, sha256_of
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME

CASES = 300  # of which the first 210 have label maps
COMMIT = "456b293"  # the package carries the digests of its label maps
LABELS_URL = f"https://github.com/neheller/kits19/raw/{COMMIT}/data"
HUB_URL = os.environ.get("HF_ENDPOINT", "https://huggingface.co")  # or a mirror of it
IMAGES_REPOSITORY = "neheller/KiTS-Challenge-Imaging"
LISTING_NAME = "kits.json"
PART_FOLDER = ".download"
TIMEOUT_S = 10  # without a byte
WAITS_S = (1, 2, 4, 8, 16, 32)  # between tries
BLOCK = 1 << 18

OnBytes = Callable[[int], Any]


class Unreachable(DataError):
    """Nobody answered, however often it was tried."""


@dataclass(frozen=True)
class Remote:
    """One file to download.

    Attributes
    ----------
    path
        Where it goes, below the data folder.
    url
        Where it comes from.
    size
        Bytes.
    sha256
        Hexadecimal.
    """

    path: str
    url: str
    size: int
    sha256: str


def parse_cases(text: str) -> list[int]:
    """Read a choice of cases: ``"0-20"``, ``"3"``, ``"0-4,160"``.

    Raises
    ------
    DataError
        It cannot be read so, or KiTS19 has no such case.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
            raise DataError(f"cases {text!r}: write them as 0-20 or 3,7,160")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise DataError(f"cases {text!r}: {part} runs backwards; write {last}-{first}")
        if last >= CASES:
            raise DataError(f"cases {text!r}: KiTS19 has the cases 0 to {CASES - 1}")
        numbers |= set(range(first, last + 1))
    return sorted(numbers)


def label_digests() -> dict[str, tuple[str, int]]:
    """Give case_id → (SHA-256, size in bytes) of the 210 published label maps."""
    listing = resources.files("tunet_lib") / "data" / "kits19_labels_sha256.txt"
    digests = {}
    for line in listing.read_text(encoding="ascii").splitlines():
        sha256, path, size = line.split()
        digests[path.partition("/")[0]] = (sha256, int(size))
    return digests


def download_kits19(
    folder: str | Path,
    cases: Iterable[int],
    *,
    labels_only: bool = False,
    workers: int = 4,
    on_size: OnBytes | None = None,
    on_bytes: OnBytes | None = None,
) -> dict[str, str]:
    """Download cases of KiTS19 into a folder; what is there already is never overwritten.

    Parameters
    ----------
    folder
        Gets ``kits.json`` and ``case_00000/…``.
    cases
        Case numbers, 0 to 299; from 210 on a case has no label map.
    labels_only
        Leave the CTs out.
    workers
        Files at a time.
    on_size
        Called with the number of bytes of CTs and label maps that are to come.
    on_bytes
        Called with the number of their bytes that arrived; a negative number takes back what
        had to be thrown away.

    Returns
    -------
    dict
        Path below the folder → reason, for the files that could not be had. All others
        are there, and whole.

    Raises
    ------
    DataError
        The folder cannot be written, or the disk has too little space for all.
    """
    folder, stop = Path(folder), threading.Event()
    case_ids = [f"case_{number:05d}" for number in sorted(set(cases))]
    images, failures = ([], {}) if labels_only else _find_images(case_ids, stop)
    wanted = []
    for remote in [*_find_labels(case_ids), *images]:
        try:
            if not _is_there(folder, remote):
                wanted.append(remote)
        except DataError as error:
            failures[remote.path] = str(error)
    missing = sum(remote.size - _size(_part(folder, remote)) for remote in wanted)
    if wanted:
        _make_room(folder, missing)
    if on_size is not None:
        on_size(missing)
    failures |= _fetch_all(folder, wanted, on_bytes or (lambda _: None), stop, workers)
    with contextlib.suppress(OSError):  # it stays while it holds a part of a file
        (folder / PART_FOLDER).rmdir()
    return dict(sorted(failures.items()))


def _fetch_all(
    folder: Path, wanted: list[Remote], on_bytes: OnBytes, stop: threading.Event, workers: int
) -> dict[str, str]:
    """Download the listing and files, some at a time; give path → reason of what failed."""
    pool, answered = ThreadPoolExecutor(workers), threading.Event()
    failures = {}

    def on_answer(count: int) -> None:
        answered.set()
        on_bytes(count)

    try:
        futures = {pool.submit(_fetch_listing, folder, stop): LISTING_NAME}
        for remote in wanted:
            futures[pool.submit(_fetch, folder, remote, on_answer, stop)] = remote.path
        for future in as_completed(futures):
            if (fault := future.exception()) is not None:
                failures[futures[future]] = str(fault)
                # Where one file has waited in vain, and none ever came, the others need not.
                if isinstance(fault, Unreachable) and not answered.is_set():
                    stop.set()
    finally:  # Ctrl-C waits for no file
        stop.set()
        pool.shutdown(cancel_futures=True)
    return failures


def _find_labels(case_ids: list[str]) -> list[Remote]:
    """List the label maps that these cases have."""
    digests = label_digests()
    remotes = []
    for case_id in case_ids:
        if case_id in digests:
            path = f"{case_id}/{LABEL_NAME}"
            sha256, size = digests[case_id]
            remotes.append(Remote(path, f"{LABELS_URL}/{path}", size, sha256))
    return remotes


def _find_images(case_ids: list[str], stop: threading.Event) -> tuple[list[Remote], dict[str, str]]:
    """Ask the dataset repository for these CTs; give also why others could not be found."""
    paths = {f"images/{case_id}.nii.gz": f"{case_id}/{IMAGE_NAME}" for case_id in case_ids}
    remotes, reason = [], "is not in the dataset repository"
    try:
        answer = _ask(f"{HUB_URL}/api/datasets/{IMAGES_REPOSITORY}/tree/main/images", stop)
        for file in answer.json():
            if file["path"] in paths:
                url = f"{HUB_URL}/datasets/{IMAGES_REPOSITORY}/resolve/main/{file['path']}"
                size, sha256 = int(file["lfs"]["size"]), str(file["lfs"]["oid"])
                remotes.append(Remote(paths.pop(file["path"]), url, size, sha256))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"the dataset repository cannot be read: {error}"
    return remotes, dict.fromkeys(paths.values(), reason)


def _is_there(folder: Path, remote: Remote) -> bool:
    """Tell whether a file has arrived; it was verified before it got its name.

    Raises
    ------
    DataError
        Something else is there under its name, or a link that leads out of the folder.
    """
    path = folder / remote.path
    if path.is_file():
        if path.stat().st_size == remote.size:
            return True
        raise DataError("is there already, and is another file; move it away to download it")
    for place in map(os.path.realpath, (path, _part(folder, remote))):
        if not Path(place).is_relative_to(os.path.realpath(folder)):
            raise DataError(f"leads out of the folder, to {place}; remove the link")
    return False


def _part(folder: Path, remote: Remote) -> Path:
    # Of another version of the file, a part would not fit.
    return folder / PART_FOLDER / f"{remote.path.replace('/', '-')}.{remote.sha256[:12]}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _make_room(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"{folder}: {needed / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free; "
            "free some space, choose fewer cases, or leave the CTs out"
        )
    try:
        (folder / PART_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot write here ({error.strerror})") from error


def _fetch_listing(folder: Path, stop: threading.Event) -> None:
    if not (folder / LISTING_NAME).exists():
        answer = _ask(f"{LABELS_URL}/{LISTING_NAME}", stop)
        with atomic_path(folder / LISTING_NAME) as temporary:
            temporary.write_bytes(answer.content)


def _fetch(folder: Path, remote: Remote, on_bytes: OnBytes, stop: threading.Event) -> None:
    """Download one file, go on where an earlier try ended, and give it its name."""
    if stop.is_set():
        raise DataError("was not tried: nobody answered for the others")
    path, part = folder / remote.path, _part(folder, remote)
    path.parent.mkdir(exist_ok=True)
    _try_again(lambda: _receive(remote, part, on_bytes, stop), stop)
    os.replace(part, path)


def _receive(remote: Remote, part: Path, on_bytes: OnBytes, stop: threading.Event) -> None:
    """Append to a part what is missing of its file, and verify the whole."""
    import requests

    with part.open("ab") as stream:
        if (done := stream.tell()) < remote.size:
            headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
            with requests.get(
                remote.url, headers=headers, stream=True, timeout=TIMEOUT_S
            ) as answer:
                answer.raise_for_status()
                # A server that cannot go on in mid-file sends all of it again.
                start = done if answer.status_code == 206 else 0
                length = str(remote.size - start)
                is_page = "text/html" in answer.headers.get("Content-Type", "")
                if is_page or answer.headers.get("Content-Length", length) != length:
                    raise DataError("comes with another size than announced: is it a web page?")
                on_bytes(start - done)
                stream.truncate(start)
                for block in answer.iter_content(BLOCK):
                    if stop.is_set() or stream.tell() > remote.size:
                        break
                    stream.write(block)
                    on_bytes(len(block))
        stream.flush()
        flush_to_disk(stream.fileno())
    if (size := _size(part)) < remote.size:
        raise DataError("was cut short")
    if size > remote.size or sha256_of(part) != remote.sha256:
        part.unlink()
        on_bytes(-size)
        raise DataError("has wrong bytes (SHA-256)")


def _ask(url: str, stop: threading.Event) -> Any:
    """Get a JSON file."""
    import requests

    def get() -> Any:
        answer = requests.get(url, timeout=TIMEOUT_S)
        answer.raise_for_status()
        answer.json()  # a web page is none
        return answer

    return _try_again(get, stop)


def _try_again(action: Callable[[], Any], stop: threading.Event) -> Any:
    """Do what a busy server or a bad line can spoil until it succeeds; say at last why not."""
    import requests

    for wait in (*WAITS_S, None):
        final, kind = False, DataError
        try:
            return action()
        except requests.HTTPError as error:
            status = error.response.status_code
            reason = f"the server answered {status} {error.response.reason}"
            final = status < 500 and status not in (408, 429)
        except requests.RequestException as error:
            kind = Unreachable
            reason = f"there is no connection, or a bad one ({type(error).__name__})"
        except DataError as error:
            reason = str(error)
        if final or wait is None or stop.wait(wait):
            break
    raise kind(reason)
