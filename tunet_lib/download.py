"""KiTS19 from its public places: files that arrive whole, verified, or not at all.

Label maps and ``kits.json`` come from the KiTS19 repository at one commit, and the package
carries the size and SHA-256 of every label map. CTs come from the challenge's dataset
repository, which tells size and SHA-256 of each. A file is written under another name and
renamed when both are right, so what has its final name is whole. What a cut connection leaves
is gone on with, by this call or the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from tunet_lib.files import DataError
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME

CASES = 300  # of which the first 210 have label maps
LABELED_CASES = 210
COMMIT = "456b293"  # the package carries the digests of its label maps
LABELS_URL = f"https://github.com/neheller/kits19/raw/{COMMIT}/data"
IMAGES_REPOSITORY = "neheller/KiTS-Challenge-Imaging"
LISTING_NAME = "kits.json"
HUB_URL: str | None = None  # huggingface_hub's own, which HF_ENDPOINT can change
PART_FOLDER = ".download"
WRONG_SIZE = "Consistency check failed"  # so huggingface_hub says
TRIES = 3  # for each file, each with the tries of huggingface_hub within it
WAIT_S = 1.0

OnBytes = Callable[[int], Any]


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
        Bytes; None if the server does not tell.
    sha256
        Hexadecimal; None if it is not known.
    """

    path: str
    url: str
    size: int | None
    sha256: str | None


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
        if not first <= last < CASES:
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


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download_kits19(
    folder: str | Path,
    cases: Iterable[int],
    *,
    labels_only: bool = False,
    workers: int = 4,
    on_size: OnBytes | None = None,
    on_bytes: OnBytes | None = None,
    labels_url: str | None = None,
    hub_url: str | None = None,
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
        Called with the number of bytes that are to come.
    on_bytes
        Called with the number of bytes that arrived; a negative number takes back what had
        to be thrown away.
    labels_url, hub_url
        Servers other than `LABELS_URL` and `HUB_URL`.

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
    folder = Path(folder)
    _be_quiet()
    labels, images = _remote_files(cases, labels_only, labels_url or LABELS_URL, hub_url or HUB_URL)
    failures: dict[str, str] = {}
    wanted: list[Remote] = []
    with _threads(workers) as pool:
        for remote in labels:
            try:
                wanted += [] if _is_there(folder, remote) else [remote]
            except DataError as error:
                failures[remote.path] = str(error)
        asked = {path: pool.submit(_ask, path, url) for path, url in images.items()}
        for path, answer in asked.items():
            try:
                remote = answer.result()
                wanted += [] if _is_there(folder, remote) else [remote]
            except Exception as error:  # of many kinds, and no other file shall suffer
                failures[path] = _reason(error)
        missing = sum(_missing_bytes(folder, remote) for remote in wanted)
        _check_space(folder, missing)
        if on_size is not None:
            on_size(missing)
        futures = {pool.submit(_fetch, folder, r, on_bytes or (lambda _: None)): r for r in wanted}
        for future in as_completed(futures):
            if (fault := future.exception()) is not None:
                failures[futures[future].path] = _reason(fault)
    with contextlib.suppress(OSError):  # it stays while it holds a part of a file
        (folder / PART_FOLDER).rmdir()
    return dict(sorted(failures.items()))


def _remote_files(
    cases: Iterable[int], labels_only: bool, labels_url: str, hub_url: str | None
) -> tuple[list[Remote], dict[str, str]]:
    """List the label maps, which are known, and the addresses of the CTs, to be asked about."""
    from huggingface_hub import hf_hub_url

    digests = label_digests()
    labels = [Remote(LISTING_NAME, f"{labels_url}/{LISTING_NAME}", None, None)]
    images = {}
    for number in cases:
        case_id = f"case_{number:05d}"
        if case_id in digests:
            path = f"{case_id}/{LABEL_NAME}"
            sha256, size = digests[case_id]
            labels.append(Remote(path, f"{labels_url}/{path}", size, sha256))
        if not labels_only:
            images[f"{case_id}/{IMAGE_NAME}"] = hf_hub_url(
                IMAGES_REPOSITORY, f"images/{case_id}.nii.gz", repo_type="dataset", endpoint=hub_url
            )
    return labels, images


@contextlib.contextmanager
def _threads(workers: int) -> Any:
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        yield pool
    except BaseException:  # Ctrl-C must not wait for files that have not begun
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _ask(path: str, url: str) -> Remote:
    """Ask the dataset repository for a file's size and SHA-256."""
    from huggingface_hub import get_hf_file_metadata

    for left in reversed(range(TRIES)):
        try:
            found = get_hf_file_metadata(url)
            break
        except Exception as error:
            if not left or _is_final(error):
                raise
            time.sleep(WAIT_S)
    sha256 = found.etag if found.etag and re.fullmatch("[0-9a-f]{64}", found.etag) else None
    return Remote(path, url, found.size, sha256)


def _is_there(folder: Path, remote: Remote) -> bool:
    """Tell whether a file has arrived; it was verified before it got its name.

    Raises
    ------
    DataError
        Something else is there under its name.
    """
    path = folder / remote.path
    if not path.is_file():
        return False
    if remote.size not in (None, path.stat().st_size):
        raise DataError("is there already, and is another file; move it away to download it")
    return True


def _part(folder: Path, remote: Remote) -> Path:
    # Of another version of the file, a part would not fit.
    version = (remote.sha256 or "unknown")[:12]
    return folder / PART_FOLDER / f"{remote.path.replace('/', '-')}.{version}"


def _missing_bytes(folder: Path, remote: Remote) -> int:
    part = _part(folder, remote)
    return max(0, (remote.size or 0) - (part.stat().st_size if part.exists() else 0))


def _check_space(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"{folder}: {needed / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free; "
            "free some space, choose fewer cases, or leave the CTs out"
        )


def _fetch(folder: Path, remote: Remote, on_bytes: OnBytes) -> None:
    """Download one file, go on where an earlier try ended, verify it, and give it its name."""
    from huggingface_hub.file_download import http_get

    part = _part(folder, remote)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        (folder / remote.path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot write here ({error.strerror})") from error
    for left in reversed(range(TRIES)):
        try:
            with part.open("ab") as stream:
                http_get(
                    remote.url,
                    _Counted(stream, on_bytes),  # type: ignore[arg-type]
                    resume_size=stream.tell(),
                    headers={"Accept-Encoding": "identity"},
                    expected_size=remote.size,
                )
            _verify(part, remote)
            break
        except Exception as error:
            # Of a wrong file nothing can be used; of a true one that was cut short, all.
            if _is_wrong(error) and part.exists():
                on_bytes(-part.stat().st_size)
                part.unlink()
            if not left or _is_final(error):
                raise
            time.sleep(WAIT_S)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, folder / remote.path)


def _verify(part: Path, remote: Remote) -> None:
    if remote.sha256 is not None and sha256_of(part) != remote.sha256:
        raise DataError("has the right size and wrong bytes (SHA-256)")
    if remote.path == LISTING_NAME:
        try:
            json.loads(part.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError("is not valid JSON") from error


class _Counted:
    """A file that tells how many bytes are written to it."""

    def __init__(self, stream: BinaryIO, on_bytes: OnBytes) -> None:
        self.stream = stream
        self.on_bytes = on_bytes

    def write(self, block: bytes) -> int:
        self.on_bytes(len(block))
        return self.stream.write(block)

    def truncate(self) -> int:
        # A server that cannot go on in mid-file sends all of it again.
        before = self.stream.seek(0, os.SEEK_END)
        self.on_bytes(-before)
        return self.stream.truncate(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _is_wrong(error: BaseException) -> bool:
    """Tell that what has arrived is not the file: by its bytes, its size, or its end (416)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, DataError) or status == 416 or WRONG_SIZE in str(error)


def _is_final(error: BaseException) -> bool:
    """Tell an answer that another try would not change."""
    response = getattr(error, "response", None)
    if response is None:
        return isinstance(error, OSError) and error.errno is not None  # of this machine's disk
    return 400 <= response.status_code < 500 and response.status_code not in (408, 416, 429)


def _reason(error: BaseException) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code} {response.reason_phrase}"
    text = str(error).partition("\n")[0] or type(error).__name__
    if WRONG_SIZE in text:
        return "came with another size than announced: a web page, or a file cut short"
    return text


def _be_quiet() -> None:
    """Keep the library's own bars and its notes on each retry off the screen."""
    from huggingface_hub import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars("huggingface_hub.http_get")
    logging.set_verbosity_error()
