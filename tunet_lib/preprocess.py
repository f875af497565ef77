"""From CTs to the normalized volumes that the networks see, in memory and on disk.

A prepared case is a folder: ``volume.npy`` and ``volume_median.npy`` (float16),
``label.npy`` (uint8, if there is a label map) and ``case.json``, written last.

Chapter 02 (``notebooks/02_preprocess.ipynb``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.config import Config
from tunet_lib.files import DataError, load_array, noting, save_array, save_json
from tunet_lib.kits19 import Case, require_image
from tunet_lib.median import median_3x3x3
from tunet_lib.origin import (
    CASE_FILE,
    Origin,
    digests_of,
    is_only_touched,
    numbers,
    origin_of,
    read_description,
)
from tunet_lib.parallel import each
from tunet_lib.placement import Placement, Shape, Spacing
from tunet_lib.scans import ScanFile, load_label, open_scan


@dataclass(frozen=True)
class PreparedCase:
    """One case on the grid, read from disk as it is needed.

    Attributes
    ----------
    case_id
        Such as ``"case_00042"``.
    folder
        Where its files are.
    shape, spacing_mm
        Of the scan in IPL orientation, (z, y, x): `Placement` takes them from here.
    grid_shape
        Of the grid that it lies on.
    has_label
        Whether there is a label map.
    """

    case_id: str
    folder: Path
    shape: Shape
    spacing_mm: Spacing
    grid_shape: Shape
    has_label: bool

    def volume(self, median: bool) -> np.ndarray:
        """Give the normalized volume (z, y, x), a float16 memory map."""
        return self._array("volume_median.npy" if median else "volume.npy")

    def label(self) -> np.ndarray:
        """Give the label map on the grid (z, y, x), a uint8 memory map.

        Raises
        ------
        DataError
            The case has none.
        """
        if not self.has_label:
            raise DataError(
                f"{self.folder}: has no label map; training and scoring need one, "
                "so add segmentation.nii.gz and prepare it again, or leave the case out"
            )
        return self._array("label.npy")

    def _array(self, name: str) -> np.ndarray:
        array = load_array(self.folder / name)
        if array.shape != self.grid_shape:
            raise DataError(
                f"{self.folder / name}: has shape {array.shape}, expected {self.grid_shape}; "
                "prepare it again"
            )
        return array


def normalize(grid_hu: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Scale to zero mean and unit variance over the scan's own voxels.

    Parameters
    ----------
    grid_hu
        (z, y, x) float32, in HU.
    inside
        (z, y, x) bool: what the scan covers, one voxel at least. The padding is scaled
        alike, so it gets the normalized value of air.

    Returns
    -------
    volume
        (z, y, x) float32; all zero inside if `grid_hu` is constant there.
    mean_hu, sd_hu
        Of the voxels inside; an SD of 1 where they are constant.

    Raises
    ------
    TypeError
        `inside` is not bool.

    Notes
    -----
    Source: Vu et al. 2019, 3.4; the paper leaves open over which voxels.
    """
    own = grid_hu[inside.astype(bool, casting="safe")]
    mean_hu = float(own.mean(dtype=np.float64))
    sd_hu = float(own.std(dtype=np.float64))
    sd_hu = sd_hu if sd_hu > 1e-3 else 1.0  # a constant's is 0, but for rounding
    return (grid_hu - np.float32(mean_hu)) / np.float32(sd_hu), mean_hu, sd_hu


def filter_and_normalize(
    grid_hu: np.ndarray, inside: np.ndarray, config: Config, *, median: bool
) -> np.ndarray:
    """Make of a CT on the grid what a network sees.

    Parameters
    ----------
    grid_hu
        (z, y, x) float32, in HU.
    inside
        (z, y, x) bool: what the scan covers.
    config
        `median_size`, `clip_hu` and `pad_hu` are used.
    median
        Whether to apply the median filter, for the variants trained with it.

    Returns
    -------
    numpy.ndarray
        (z, y, x) float32.

    Notes
    -----
    Source: Vu et al. 2019, 3.2 (median) and 3.4.
    """
    if median:
        grid_hu = median_filter(grid_hu, config)
    if config.clip_hu is not None:
        # Air and bone span 2000 HU, kidney and tumor 50:
        # a window spreads what matters.
        grid_hu = np.clip(grid_hu, *config.clip_hu)
    return normalize(grid_hu, inside)[0]


def prepare_scan(
    scan: ScanFile,
    config: Config,
    medians: Iterable[bool] = (False, True),
    *,
    placement: Placement | None = None,
) -> dict[bool, np.ndarray]:
    """Bring a CT to the grid, and filter and normalize it there: the one way, for all uses.

    Parameters
    ----------
    scan
        The CT; one that is not in memory is read once, block by block. Whether it holds HU is
        looked at in a file only: an array (`scan_of`) is believed.
    config
        The configuration that the networks are trained with.
    medians
        Which are wanted: without the median filter (False), with it (True).
    placement
        ``Placement(scan, config)``, for a caller who needs it as well.

    Returns
    -------
    dict
        Median filtered or not → (z, y, x) float32 on the placement's grid.

    Raises
    ------
    DataError
        The scan is too thin for the grid, holds no values in HU, or cannot be read.

    Warns
    -----
    DataWarning
        Its values were taken for HU only after they had been shifted or turned.

    Notes
    -----
    Source: Vu et al. 2019, 3.4 and Fig. 4.
    """
    placement = placement or Placement(scan, config)
    grid_hu, inside = placement.to_grid(scan), placement.covered
    return {m: filter_and_normalize(grid_hu, inside, config, median=m) for m in set(medians)}


def prepare_case(case: Case, out_folder: str | Path, config: Config) -> PreparedCase:
    """Prepare one case, or keep it if it is there, made from the same files and numbers.

    Parameters
    ----------
    case
        The label map is optional.
    out_folder
        The folder that holds the prepared cases.
    config
        The preprocessing numbers.

    Raises
    ------
    DataError
        The CT is missing, a file is bad, or the disk is full.
    """
    folder = Path(out_folder) / case.case_id
    origin = origin_of(case, config)
    if (kept := _kept(case, folder, origin)) is not None:
        return kept
    scan = open_scan(require_image(case))
    placement = Placement(scan, config)
    label = None
    if case.label_path:  # a full-size one takes a quarter of a gigabyte: not beside the CT
        own = load_label(case.label_path, scan, cyst_as_kidney=case.cyst_as_kidney)
        label = placement.label_to_grid(own)
        del own
    volumes = prepare_scan(scan, config, placement=placement)

    if (kept := _kept(case, folder, origin)) is not None:
        return kept  # another process has made it meanwhile, and may use it already
    # Until the new case.json is there, this is no prepared case, whatever else is.
    with contextlib.suppress(OSError):  # `save_array` says what is wrong with the folder
        (folder / CASE_FILE).unlink(missing_ok=True)
    save_array(folder / "volume.npy", volumes[False].astype(np.float16))
    save_array(folder / "volume_median.npy", volumes[True].astype(np.float16))
    if label is not None:
        save_array(folder / "label.npy", label)
    values = {
        "case_id": case.case_id,
        "shape": scan.shape,
        "spacing_mm": scan.spacing_mm,
        "grid_shape": placement.grid_shape,
        "has_label": label is not None,
        "made_from": origin,
        "sha256": digests_of(case),
    }
    save_json(folder / CASE_FILE, values)
    return _open_prepared(folder)[0]


def prepare_cases(
    cases: Iterable[Case],
    out_folder: str | Path,
    config: Config,
    *,
    workers: int = 1,
    on_case: Callable[[str], Any] | None = None,
) -> tuple[list[PreparedCase], dict[str, str]]:
    """Prepare many cases; a bad one does not stop the others.

    Parameters
    ----------
    cases, out_folder, config
        As in `prepare_case`.
    workers
        Processes; each holds one case in memory.
    on_case
        Called with the case_id after each case, good or bad.

    Returns
    -------
    prepared
        Sorted by case_id.
    failures
        case_id → what is wrong.
    """
    prepared: list[PreparedCase] = []
    failures: dict[str, str] = {}

    task = functools.partial(prepare_case, out_folder=out_folder, config=config)
    for case, result in each(task, cases, workers):
        with noting(failures, case.case_id):
            prepared.append(result())
        if on_case is not None:
            on_case(case.case_id)
    return sorted(prepared, key=lambda case: case.case_id), dict(sorted(failures.items()))


def load_prepared(
    folder: str | Path, config: Config | None = None, case_ids: Container[str] | None = None
) -> list[PreparedCase]:
    """Open every prepared case of a folder, sorted by case_id.

    Parameters
    ----------
    folder
        What `prepare_cases` wrote.
    config
        If given, the cases must have been prepared with its numbers.
    case_ids
        If given, what else is prepared is not opened.

    Raises
    ------
    DataError
        The folder is missing or unreadable, holds no prepared case, or one is broken or
        prepared with other numbers.
    """
    folder = Path(folder)
    try:
        folders = sorted(path.parent for path in folder.glob(f"*/{CASE_FILE}"))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if not folders:
        raise DataError(f"{folder}: holds no prepared case; run `tunet prepare` first")
    chosen = [path for path in folders if case_ids is None or path.name in case_ids]
    opened = [_open_prepared(path) for path in chosen]
    for case, values in opened:
        expected = numbers(config) if config else {}
        wrong = [name for name, v in expected.items() if values["made_from"].get(name) != v]
        if wrong:
            raise DataError(
                f"{case.folder}: was prepared with another {', '.join(wrong)}; prepare it again"
            )
    return [case for case, _ in opened]


def _kept(case: Case, folder: Path, origin: Origin) -> PreparedCase | None:
    """Give what is prepared already, if it was made from these files and numbers."""
    try:
        kept, values = _open_prepared(folder)
    except DataError:
        return None  # absent or incomplete
    if values["made_from"] == origin:
        return kept
    if is_only_touched(case, origin, values):
        # Not one byte is other, so neither is anything that was made from this case.
        save_json(folder / CASE_FILE, values | {"made_from": origin})
        return kept
    return None


def _open_prepared(folder: Path) -> tuple[PreparedCase, dict[str, Any]]:
    fields, values = read_description(folder / CASE_FILE)
    case = PreparedCase(folder.name, folder, **fields)
    for median in (False, True):
        case.volume(median)
    if case.has_label:
        case.label()
    return case, values


def median_filter(grid_hu: np.ndarray, config: Config) -> np.ndarray:
    """Replace each voxel by the median of its neighborhood.

    Only where there is more than padding, which saves half of the time.

    Parameters
    ----------
    grid_hu
        (z, y, x) in HU.
    config
        `median_size`, the neighborhood's edge in voxels, and `pad_hu` are used.

    Returns
    -------
    numpy.ndarray
        A copy of `grid_hu`, filtered: same shape and dtype.
    """
    filtered = grid_hu.copy()
    size = config.median_size
    box = box_of(grid_hu != config.pad_hu)
    if box[0].start == box[0].stop:
        return filtered  # all is air
    reach = tuple(slice(max(part.start - size, 0), part.stop + size) for part in box)
    if size == 3:
        filtered[reach] = median_3x3x3(grid_hu[reach])
    else:
        from scipy import ndimage  # a third of the time that it takes to load this module

        filtered[reach] = ndimage.median_filter(grid_hu[reach], size, mode="nearest")
    return filtered
