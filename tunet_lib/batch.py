"""Many CTs at once: what is asked for, where each label map goes, and what came of it."""

from __future__ import annotations

import contextlib
import csv
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunet_lib.dicom import holds_dicom, is_slice
from tunet_lib.files import (
    DataError,
    DataWarning,
    atomic_path,
    check_writable,
    folded,
    notes_taken,
    noting,
    readable,
)
from tunet_lib.formats import IMAGE_SUFFIXES, SECOND_OF_PAIR, check_label_name, suffix_of
from tunet_lib.kits19 import IMAGE_NAME
from tunet_lib.layouts import Data, find_data
from tunet_lib.plausible import check_label
from tunet_lib.predict import Networks, predict_scan
from tunet_lib.scans import open_scan, save_label
from tunet_lib.volumes import NAMES, SIDES, volumes_ml


@dataclass(frozen=True)
class Job:
    """One CT, a file or a folder of DICOM, and the label map to write."""

    ct: Path
    output: Path


@dataclass
class Outcome:
    """What came of one CT.

    Attributes
    ----------
    job
        The CT and its label map.
    volumes_ml
        As `volumes.volumes_ml` gives them; empty if it failed.
    notes
        What is to be said of the CT, a sentence each.
    time_s
        From opening the CT to its label map.
    failure
        Why there is no label map; empty if there is one.
    """

    job: Job
    volumes_ml: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    time_s: float = 0.0
    failure: str = ""

    def total_ml(self, name: str) -> float:
        """Sum up both sides of the ``kidney`` or of the ``tumor``."""
        return sum(self.volumes_ml[f"{name}_{side}"] for side in SIDES)

    def __str__(self) -> str:
        """Say in a line what was found."""
        found = ", ".join(f"{name} {self.total_ml(name):.0f} ml" for name in NAMES.values())
        return f"{self.job.output}: {found}"


def plan(cts: Iterable[Path], output: Path | None = None, *, suffix: str = ".nii.gz") -> list[Job]:
    """Find the CTs that are meant, and say where their label maps go; nothing is computed.

    Parameters
    ----------
    cts
        Files; folders of DICOM; and folders that hold several files, or cases in KiTS19's layout.
    output
        One label map for one CT; else a folder, which is made if it is missing. By default
        label maps go into the working folder, and replace nothing there.
    suffix
        Of label maps that are named after their CT.

    Raises
    ------
    DataError
        There is no CT; two would have one label map; a label map would replace a CT, or cannot
        be written where it should.

    Warns
    -----
    DataWarning
        A data set holds images that are not predicted: which, and why.
    """
    # A CT that is named twice, or by its folder as well, is segmented once.
    found = list({_absolute(ct): ct for path in cts for ct in _cts_in(path)}.values())
    if output is not None and _names_a_file(output, len(found)):
        if len(found) > 1:
            raise DataError(f"{output}: is one file, for {len(found)} CTs; name a folder")
        jobs = [Job(found[0], output)]
    else:
        folder, names = output or Path(), _names(found, suffix)
        jobs = [Job(ct, folder / name) for ct, name in zip(found, names, strict=True)]
    for job in jobs:
        check_label_name(job.output)
        check_writable(job.output)
        if output is None and job.output.exists():
            raise DataError(f"{job.output}: is there already; name another file with --output")
        if _is_of(job.output, found):
            raise DataError(f"{job.output}: is the CT itself; name another file with --output")
    return jobs


def predict_each(
    jobs: Iterable[Job],
    networks: Networks,
    *,
    series: str | None = None,
    on_part: Callable[[float], Any] | None = None,
    **options: Any,
) -> Iterator[Outcome]:
    """Segment one CT after another; a bad one does not stop the rest.

    Parameters
    ----------
    jobs
        As `plan` gives them.
    networks
        Built once, for all of them.
    series
        Of folders of DICOM: which one.
    on_part
        Called with the share of one network's work on one CT, done since. What a CT that failed
        has left undone is told in one call.
    options
        Of `predict_scan`: `windows`, `tumor_rule`, `batch_size`.

    Yields
    ------
    Outcome
        As each is finished.
    """
    for job in jobs:
        done = [0.0]

        def advance(part: float, done: list[float] = done) -> None:
            done[0] += part
            if on_part is not None:
                on_part(part)

        outcome, failures = Outcome(job), dict[str, str]()
        started_s = time.monotonic()
        with noting(failures, ""), notes_taken() as outcome.notes:
            scan = open_scan(job.ct, series)
            check_label_name(job.output, scan.file)
            label = predict_scan(scan, networks, on_part=advance, **options)
            check_label(label, job.ct)
            save_label(label, scan, job.output)
            outcome.volumes_ml = volumes_ml(label, scan)
        outcome.failure = failures.get("", "").removeprefix(f"{job.ct}: ")
        outcome.time_s = time.monotonic() - started_s
        advance(len(networks) - done[0])
        yield outcome


def write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a line for each CT, as CSV.

    Parameters
    ----------
    path
        The .csv: the CT, its label map, ml of kidney and tumor on each side, seconds, warnings, and
        why it failed if it did.
    outcomes
        In the order of the lines.
    """
    volumes = [f"{name}_{side}" for name in NAMES.values() for side in SIDES]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        columns = [f"{name}_ml" for name in volumes]
        writer.writerow(["ct", "label_map", *columns, "seconds", "warnings", "failure"])
        for each in outcomes:
            cells = [f"{each.volumes_ml[name]:.1f}" if each.volumes_ml else "" for name in volumes]
            output = "" if each.failure else each.job.output
            notes = " | ".join(each.notes)
            row = [each.job.ct, output, *cells, f"{each.time_s:.1f}", notes, each.failure]
            writer.writerow([readable(cell) for cell in row])


def _names_a_file(output: Path, count: int) -> bool:
    """Tell the name of a label map, even of a wrong kind, from that of a folder."""
    known = bool(suffix_of(output))
    return not output.is_dir() and (known or (count == 1 and bool(output.suffix)))


def _is_of(output: Path, cts: Iterable[Path]) -> bool:
    """Tell whether a name is a CT's, or that of a slice in the folder of one."""
    place = Path(os.path.realpath(output))
    places = [place, *(place.parents if is_slice(place) else ())]
    return any(_is_same(each, ct) for ct in cts for each in places)


def _is_same(place: Path, ct: Path) -> bool:
    with contextlib.suppress(OSError):  # one does not exist
        return place.samefile(ct)  # also where the file system ignores case
    return place == Path(os.path.realpath(ct))


def _cts_in(path: Path) -> list[Path]:
    """Give a CT itself; of a folder that is no DICOM, the CTs in it."""
    # What is wrong with the path, or may not be read, is said when its turn comes.
    with contextlib.suppress(OSError):
        if path.is_dir() and not holds_dicom(path):
            return _listed(path) or [path]
    return [path]


def _listed(folder: Path) -> list[Path]:
    with contextlib.suppress(DataError):  # another layout
        data = find_data(folder)
        _say_what_is_left(data)
        return [case.image_path for case in data.cases if case.image_path]
    if (image := folder / IMAGE_NAME).is_file():  # one case of KiTS19, beside its label map
        return [image]
    suffixes = set(IMAGE_SUFFIXES) - set(SECOND_OF_PAIR)
    files = [each for each in sorted(folder.iterdir()) if not each.name.startswith(".")]
    images = [each for each in files if not each.is_dir() and suffix_of(each) in suffixes]
    stems = {_stem(each) for each in images}
    # Label maps of an earlier call lie beside their CTs.
    return [
        each for each in images if _stem(each).removesuffix("_label") not in stems - {_stem(each)}
    ]


def _say_what_is_left(data: Data) -> None:
    """Warn of the images of a data set that are not predicted, a sentence for each reason."""
    images = {
        reason: [name for name in names if name == "imagesTs" or suffix_of(Path(name))]
        for reason, names in data.unused.items()
    }
    left = Data(data.folder, [], {reason: names for reason, names in images.items() if names})
    for sentence in left.sentences():
        warnings.warn(f"{data.folder}: {sentence}", DataWarning, stacklevel=2)


def _names(cts: Sequence[Path], suffix: str) -> list[str]:
    """Name each label map after its CT, and after its folder too where that is not enough."""
    names = [_stem(ct) for ct in cts]
    count = Counter(map(folded, names))
    for index, ct in enumerate(cts):
        if count[folded(names[index])] > 1:
            names[index] = f"{_absolute(ct).parent.name}_{names[index]}"
    count = Counter(map(folded, names))
    if twice := [name for name in names if count[folded(name)] > 1]:
        raise DataError(
            f"{twice[0]}_label{suffix}: would be the label map of two CTs; rename one, or "
            "predict them one by one"
        )
    return [f"{name}_label{suffix}" for name in names]


def _stem(ct: Path) -> str:
    # In KiTS19's layout all CTs have one name, and their folders tell them apart.
    name = _absolute(ct).parent.name if ct.name == IMAGE_NAME else _absolute(ct).name
    return name if os.path.isdir(ct) else name[: len(name) - len(suffix_of(Path(name)))]


def _absolute(path: Path) -> Path:
    # Links are not followed: a cache names its files by digests.
    return Path(os.path.abspath(path))
