"""From CTs to the normalized volumes that the networks see, in memory and on disk.

A prepared case is a folder: ``volume.npy`` and ``volume_median.npy`` (float16),
``label.npy`` (uint8, if there is a label map) and ``case.json``, written last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tunet_lib.config import Config
from tunet_lib.files import DataError, load_array, load_json, save_array, save_json
from tunet_lib.grid import (
    Grid,
    from_grid,
    grid_for,
    label_from_grid,
    label_from_maps,
    label_to_grid,
    scanned,
    to_grid,
)
from tunet_lib.kits19 import Case, Scan, ScanFile, load_label, open_scan, require_image
from tunet_lib.median import median_3x3x3
from tunet_lib.parallel import each

__all__ = [
    "Grid",
    "PreparedCase",
    "from_grid",
    "grid_for",
    "label_from_grid",
    "label_from_maps",
    "label_to_grid",
    "load_prepared",
    "normalize",
    "prepare_case",
    "prepare_cases",
    "prepare_scan",
    "prepare_volume",
    "scanned",
    "to_grid",
]

CASE_FILE = "case.json"
FIELDS = (
    "resample_spacing_mm",
    "grid_fov_mm",
    "grid_shape",
    "pad_hu",
    "median_size",
    "clip_hu",
)


@dataclass(frozen=True)
class PreparedCase:
    """One case on the grid, read from disk as it is needed.

    Attributes
    ----------
    case_id
        Such as ``"case_00042"``.
    folder
        Where its files are.
    source_shape, spacing_mm, affine
        Of the scan in IPL orientation: (z, y, x), and (4, 4) as nested tuples.
    grid
        The grid that it lies on.
    mean_hu, sd_hu
        What the volume was normalized with.
    has_label
        Whether there is a label map.
    """

    case_id: str
    folder: Path
    source_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    grid: Grid
    mean_hu: float
    sd_hu: float
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
        if array.shape != self.grid.shape:
            raise DataError(
                f"{self.folder / name}: has shape {array.shape}, expected {self.grid.shape}; "
                "prepare it again"
            )
        return array


def normalize(grid_hu: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Scale to zero mean and unit variance over the patient's own voxels.

    Parameters
    ----------
    grid_hu
        (z, y, x) float32, in HU.
    inside
        (z, y, x) bool: what the scan covers. The padding is scaled alike, so it gets
        the normalized value of air.

    Returns
    -------
    volume
        (z, y, x) float32; all zero inside if the scan is constant.
    mean_hu, sd_hu
        Of the voxels inside.

    Notes
    -----
    Source: Vu et al. 2019, 3.4; the paper leaves open over which voxels.
    """
    own = grid_hu[inside]
    mean_hu = float(own.mean(dtype=np.float64))
    sd_hu = float(own.std(dtype=np.float64)) or 1.0
    return (grid_hu - np.float32(mean_hu)) / np.float32(sd_hu), mean_hu, sd_hu


def prepare_volume(
    volume_hu: np.ndarray, spacing_mm: Sequence[float], config: Config, median: bool = False
) -> np.ndarray:
    """Bring a CT to the grid and normalize it, as in training.

    Parameters
    ----------
    volume_hu
        (z, y, x) in HU.
    spacing_mm
        Its voxel size (z, y, x).
    config
        The configuration that the model was trained with.
    median
        Whether to apply the median filter, for the variants trained with it.

    Returns
    -------
    numpy.ndarray
        (z, y, x) float32 on `grid_for(volume_hu.shape, spacing_mm, config)`.

    Notes
    -----
    Source: Vu et al. 2019, 3.2 (median), 3.4 and Fig. 4.
    """
    grid = grid_for(volume_hu.shape, spacing_mm, config)
    grid_hu = to_grid(volume_hu, spacing_mm, grid, config)
    inside = scanned(volume_hu.shape, spacing_mm, grid, config)
    return _filter_and_normalize(grid_hu, inside, config, median)[0]


def prepare_scan(
    scan: Scan | ScanFile, config: Config, medians: Iterable[bool]
) -> dict[bool, np.ndarray]:
    """Prepare one scan with and without the median filter, reading it once.

    Parameters
    ----------
    scan
        The CT; a `ScanFile` is read block by block.
    config
        The configuration that the models were trained with.
    medians
        Which of the two are wanted.

    Returns
    -------
    dict
        Median or not → what `prepare_volume` gives.
    """
    grid = grid_for(scan.shape, scan.spacing_mm, config)
    grid_hu = to_grid(scan, scan.spacing_mm, grid, config)
    inside = scanned(scan.shape, scan.spacing_mm, grid, config)
    return {m: _filter_and_normalize(grid_hu, inside, config, m)[0] for m in set(medians)}


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
    made_from = _made_from(case, config)
    try:
        kept, as_made = _open_prepared(folder)
        if as_made == made_from:
            return kept
    except DataError:
        pass  # absent or incomplete
    scan = open_scan(require_image(case))
    shape, spacing_mm = scan.shape, scan.spacing_mm
    grid = grid_for(shape, spacing_mm, config)
    inside = scanned(shape, spacing_mm, grid, config)
    label = load_label(case.label_path, scan) if case.label_path else None
    grid_label = None if label is None else label_to_grid(label, spacing_mm, grid)
    del label  # at full size a quarter of a gigabyte
    grid_hu = to_grid(scan, spacing_mm, grid, config)
    volume, mean_hu, sd_hu = _filter_and_normalize(grid_hu, inside, config, median=False)
    volume_median = _filter_and_normalize(grid_hu, inside, config, median=True)[0]

    # Until the new case.json is there, this is no prepared case, whatever else is.
    with contextlib.suppress(OSError):  # `save_array` says what is wrong with the folder
        (folder / CASE_FILE).unlink(missing_ok=True)
    save_array(folder / "volume.npy", volume.astype(np.float16))
    save_array(folder / "volume_median.npy", volume_median.astype(np.float16))
    if grid_label is not None:
        save_array(folder / "label.npy", grid_label)
    values = {
        "case_id": case.case_id,
        "source_shape": shape,
        "spacing_mm": spacing_mm,
        "affine": scan.affine.tolist(),
        "grid": dataclasses.asdict(grid),
        "mean_hu": mean_hu,
        "sd_hu": sd_hu,
        "has_label": grid_label is not None,
        "made_from": made_from,
    }
    save_json(folder / CASE_FILE, values)
    return _open_prepared(folder)[0]


def prepare_cases(
    cases: Iterable[Case],
    out_folder: str | Path,
    config: Config,
    progress: Callable[[str], Any] | None = None,
    workers: int = 1,
) -> tuple[list[PreparedCase], dict[str, str]]:
    """Prepare many cases; a bad one does not stop the others.

    Parameters
    ----------
    cases, out_folder, config
        As in `prepare_case`.
    progress
        Called with the case_id after each case, good or bad.
    workers
        Processes; each holds one case in memory.

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
        try:
            prepared.append(result())
        except (DataError, OSError, MemoryError) as error:
            failures[case.case_id] = str(error) or type(error).__name__
        if progress is not None:
            progress(case.case_id)
    return sorted(prepared, key=lambda case: case.case_id), dict(sorted(failures.items()))


def load_prepared(folder: str | Path, config: Config | None = None) -> list[PreparedCase]:
    """Open every prepared case of a folder, sorted by case_id.

    Parameters
    ----------
    folder
        What `prepare_cases` wrote.
    config
        If given, the cases must have been prepared with its numbers.

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
    opened = [_open_prepared(path) for path in folders]
    for case, made_from in opened:
        wrong = [k for k, v in _numbers(config).items() if made_from.get(k) != v] if config else []
        if wrong:
            raise DataError(
                f"{case.folder}: was prepared with another {', '.join(wrong)}; prepare it again"
            )
    return [case for case, _ in opened]


def _open_prepared(folder: Path) -> tuple[PreparedCase, Any]:
    values = load_json(folder / CASE_FILE)
    try:
        made_from = values.pop("made_from")
        values = {name: _tuples(value) for name, value in values.items()}
        grid = Grid(**{name: _tuples(value) for name, value in values.pop("grid").items()})
        case = PreparedCase(folder=folder, grid=grid, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / CASE_FILE}: is from another version; prepare it again"
        ) from error
    for median in (False, True):
        case.volume(median)
    if case.has_label:
        case.label()
    return case, made_from


def _numbers(config: Config) -> dict[str, Any]:
    """Give the preprocessing numbers as JSON gives them back."""
    values = {name: getattr(config, name) for name in FIELDS}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _made_from(case: Case, config: Config) -> dict[str, Any]:
    """Describe all that a prepared case depends on."""
    made_from = _numbers(config)
    for path in (require_image(case), case.label_path):
        if path is not None and path.exists():
            status = path.stat()
            made_from[path.name] = [status.st_size, status.st_mtime_ns]
    return made_from


def _filter_and_normalize(
    grid_hu: np.ndarray, inside: np.ndarray, config: Config, median: bool
) -> tuple[np.ndarray, float, float]:
    if median:
        grid_hu = _median(grid_hu, config)
    if config.clip_hu is not None:
        # Air and bone span 2000 HU, kidney and tumor 50: a window spreads what matters.
        grid_hu = np.clip(grid_hu, *config.clip_hu)
    return normalize(grid_hu, inside)


def _median(grid_hu: np.ndarray, config: Config) -> np.ndarray:
    """Filter where there is more than padding, which is half of the time."""
    found = ndimage.find_objects((grid_hu != config.pad_hu).astype(np.uint8))
    filtered = grid_hu.copy()
    size = config.median_size
    for box in found:  # one, or none if all is air
        reach = tuple(slice(max(part.start - size, 0), part.stop + size) for part in box)
        if size == 3:
            filtered[reach] = median_3x3x3(grid_hu[reach])
        else:
            filtered[reach] = ndimage.median_filter(grid_hu[reach], size, mode="nearest")
    return filtered


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
