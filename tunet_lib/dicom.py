"""A folder of DICOM: its CT series, and one of them as an image (extra ``formats``).

Headers are read by pydicom, pixels by `dicom_pixels`; each slice has its own rescale slope and
intercept.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.dicom_pixels import Pixels, packed_frames
from tunet_lib.dicom_slice import (
    CT,
    MODALITY,
    Slice,
    modality_of,
    one_line,
    read_header,
    slices_of,
    why_no_slice,
)
from tunet_lib.dicom_stack import find_stack
from tunet_lib.extras import formats_library
from tunet_lib.files import GET_AGAIN, DataError, DataWarning
from tunet_lib.nifti import NiftiFile, check_finite, described
from tunet_lib.unpack import ARCHIVES

# How a file without the 128 bytes before "DICM" begins: with the length of a group, or with one
# of the first elements that there are.
BARE = tuple(
    group + element
    for group, elements in ((b"\2\0", (0, 1, 2)), (b"\x08\0", (0, 1, 5, 8, 0x12, 0x16)))
    for element in (bytes([number, 0]) for number in elements)
)
OTHERS = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
SEG = "modality SEG"  # as `why_no_slice` says it
PACKED = (*ARCHIVES, ".gz")


@dataclass(frozen=True)
class DicomFile(NiftiFile):
    """One series of DICOM, with a NIfTI header of the same geometry.

    Attributes
    ----------
    slices
        In the order of the last axis.
    """

    slices: tuple[Slice, ...]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Read the slices, and give them a few at a time, as `NiftiFile.blocks` does."""
        # Of a compressed file with many frames the next one is asked for at once.
        packed = functools.lru_cache(maxsize=1)(packed_frames)
        for part in self.parts():
            planes = np.stack([self._plane(each, packed) for each in self.slices[part]])
            check_finite(self.path, planes)
            yield part, planes.astype(self.dtype, copy=False).T

    def _plane(self, each: Slice, packed: Callable[[Pixels], list[bytes]]) -> np.ndarray:
        plane = _hu(each, packed)
        if self.dtype.kind == "i" and not _fit(plane.min(), plane.max()):
            # Of a JPEG that was made with more bits; as int16 bone would become air.
            raise DataError(
                f"{each.path}: has pixels of more than the {each.pixels.stored} bits that its "
                f"BitsStored says; {GET_AGAIN}"
            )
        return plane


@dataclass(frozen=True)
class Series:
    """The CT slices of one series, in any order.

    Attributes
    ----------
    uid
        SeriesInstanceUID.
    number
        Its place in the list, from 1.
    description
        In the words of whoever made it.
    slices
        At least one, unless there is a fault.
    fault
        Why it cannot be read; empty if it can.
    """

    uid: str
    number: int
    description: str
    slices: tuple[Slice, ...]
    fault: str = ""

    def __str__(self) -> str:
        """Describe the series in a line."""
        name = self.description or "no description"
        if self.fault:
            return f"--series {self.number}: {name}, which cannot be read: {self.fault}"
        first = self.slices[0]
        size = f"{len(self.slices)} slices of {first.columns}x{first.rows}"
        return f"--series {self.number}: {size}, {name}"


def open_dicom(folder: Path, series: str | None = None) -> DicomFile:
    """Read the headers of a folder of DICOM, searched in depth, and open one series of CT.

    Parameters
    ----------
    folder
        Holds the files, under any name; or one file with many frames (enhanced CT).
    series
        Which one: its number in the list, or its SeriesInstanceUID. Needed if there are several.

    Raises
    ------
    DataError
        There is no series of CT, or there are several and none was chosen; slices are missing,
        doubled, unevenly spaced or of different shape or orientation; or the extra is missing.

    Warns
    -----
    DataWarning
        Files were left out: localizers, reports, other modalities.
    """
    found, left_out = find_series(folder)
    if not found:
        if folder.is_file() and SEG in left_out:
            raise DataError(
                f"{folder}: is a DICOM SEG, which is written here and not read; name a label map "
                "in .nii.gz or .nrrd"
            )
        raise DataError(
            f"{folder}: holds no CT slices{_listed(left_out)}; name a folder of DICOM, or a file"
        )
    chosen = _choose(folder, found, series)
    if chosen.fault:
        raise DataError(chosen.fault)
    if folder.is_file() and chosen.slices[0].frame is None:
        raise DataError(f"{folder}: is one file of DICOM; name the folder that holds its series")
    if left_out:
        warnings.warn(f"{folder}: left out{_listed(left_out)}", DataWarning, stacklevel=2)
    slices, affine = find_stack(folder, chosen.slices)
    shape = slices[0].columns, slices[0].rows, len(slices)
    fields = described(folder, shape, affine, dtype=_type_of(slices))
    return DicomFile(**fields, slices=tuple(slices))


def find_series(folder: Path) -> tuple[list[Series], Counter[str]]:
    """Sort the DICOM files below a folder into series of CT slices.

    Returns
    -------
    series, left_out
        By series number; and how many files were left out for which reason.
    """
    grouped: dict[str, list[Slice]] = defaultdict(list)
    first: dict[str, Any] = {}
    faults: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    seen: dict[tuple[Any, ...], Slice] = {}
    packed = functools.lru_cache(maxsize=2)(packed_frames)  # of the two that are compared
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that are not asked for here
        for path, header, place in _headers(folder, left_out):
            if reason := why_no_slice(header):
                left_out[reason] += 1
                continue
            if not (uid := str(header.get("SeriesInstanceUID", ""))):
                raise DataError(f"{path}: its DICOM header lacks SeriesInstanceUID")
            first.setdefault(uid, header)
            try:
                for each in slices_of(path, header, place):
                    # Some tools that anonymize give one number to all instances: only one with
                    # the place and the pixels of another is its copy.
                    key = (uid, each.uid or str(path), each.frame, *each.position_mm.tolist())
                    twin = seen.setdefault(key, each)
                    if twin is not each and np.array_equal(_hu(each, packed), _hu(twin, packed)):
                        left_out["slice that another file holds as well"] += 1
                    else:
                        grouped[uid].append(each)
            except DataError as error:
                faults.setdefault(uid, str(error))  # and of no other series
        order = sorted(first, key=lambda uid: (_series_number(first[uid]), uid))
        if volumes := [uid for uid in order if uid in faults or len(grouped[uid]) > 1]:
            left_out["slice alone in its series"] += len(order) - len(volumes)
            order = volumes
        names = [one_line(first[uid].get("SeriesDescription")) for uid in order]
    series = [
        Series(uid, number, name, tuple(grouped[uid]), faults.get(uid, ""))
        for number, (uid, name) in enumerate(zip(order, names, strict=True), start=1)
    ]
    return series, +left_out


def holds_dicom(folder: Path) -> bool:
    """Say whether some file below a folder is DICOM, by its content."""
    return any(is_dicom(path) for path in _files(folder))


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM, by its content."""
    try:
        if not path.is_file():  # a pipe, say, which one would wait for
            return False
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start.startswith(BARE)


def is_slice(path: Path) -> bool:
    """Tell whether a file is a slice of a CT in DICOM, or several."""
    try:
        return is_dicom(path) and not why_no_slice(read_header(path)[0])
    except Exception:  # pydicom raises whatever a damaged header leads to
        return False


def _files(folder: Path, left_out: Counter[str] | None = None) -> Iterator[Path]:
    """Give the files below a folder, and count the folders that cannot be looked into."""

    def note(_: OSError) -> None:
        if left_out is not None:
            left_out["folder that may not be read"] += 1

    if folder.is_file():
        yield folder
        return
    for parent, folders, names in os.walk(folder, onerror=note):
        folders.sort()
        if left_out is not None and (links := [each for each in folders if _is_link(parent, each)]):
            left_out["folder that is a link, and is not followed"] += len(links)
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _is_link(parent: str, name: str) -> bool:
    return not name.startswith(".") and os.path.islink(os.path.join(parent, name))


def _headers(folder: Path, left_out: Counter[str]) -> Iterator[tuple[Path, Any, Any]]:
    for path in _files(folder, left_out):
        if path.name.upper() == "DICOMDIR" or not is_dicom(path):
            if reason := _why_unread(path):
                left_out[reason] += 1
            continue
        formats_library("pydicom", folder)  # before the rest: that it is missing is no damage
        try:
            yield path, *read_header(path)
        except OSError as error:
            what = error.strerror or error
            raise DataError(f"{path}: cannot be read ({what}); {GET_AGAIN}") from error
        except Exception as error:  # pydicom raises whatever a damaged header leads to
            if (modality := _modality_before_damage(path)) in ("", CT):
                raise DataError(f"{path}: its DICOM header is damaged ({error})") from error
            left_out[f"damaged file of modality {modality}"] += 1


def _why_unread(path: Path) -> str:
    """Say why a file that is no DICOM may have been a slice; empty if it is just another file."""
    name = path.name.lower()
    try:
        if path.is_symlink() and not path.exists():
            return "link that leads nowhere"
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return "file that cannot be read"
    if not any(start):
        return "file of zeros" if start else "empty file"
    if name.endswith(OTHERS):
        return "image of another format"
    return "packed file, which is to be unpacked first" if name.endswith(PACKED) else ""


def _modality_before_damage(path: Path) -> str:
    try:
        return one_line(modality_of(read_header(path, MODALITY + 1)[0]))
    except Exception:  # pydicom raises whatever a damaged header leads to
        return ""


def _series_number(header: Any) -> int:
    with contextlib.suppress(TypeError, ValueError):
        return int(header.get("SeriesNumber") or 0)
    return 0


def _type_of(slices: Iterable[Slice]) -> np.dtype:
    """Choose int16 if all values are sure to be whole and to fit, else float32."""
    return np.dtype(np.int16 if all(_fit(*each.range_hu) for each in slices) else np.float32)


def _fit(low: float, high: float) -> bool:
    """Tell whether all values from one to the other fit in int16."""
    info = np.iinfo(np.int16)
    return bool(info.min <= low and high <= info.max)


def _hu(each: Slice, packed: Callable[[Pixels], list[bytes]]) -> np.ndarray:
    return each.hu(each.pixels.plane(each.frame or 0, packed))


def _choose(folder: Path, found: list[Series], wanted: str | None) -> Series:
    if wanted is None and len(found) == 1:
        return found[0]
    for series in found:
        if wanted in (series.uid, str(series.number)):
            return series
    if len(found) > 1 and all(len(each.slices) == 1 and not each.fault for each in found):
        raise DataError(
            f"{folder}: each of its {len(found)} slices has a SeriesInstanceUID of its own, as "
            "some tools that anonymize leave it; export the series again, with one for all"
        )
    lines = "".join(f"\n  {series}" for series in found)
    problem = f"has no series {wanted}" if wanted else "holds several series"
    raise DataError(f"{folder}: {problem}; choose one of these with --series{lines}")


def _listed(left_out: Counter[str]) -> str:
    parts = [f"{count} of {reason}" for reason, count in left_out.items()]
    return f": {', '.join(parts)}" if parts else ""
