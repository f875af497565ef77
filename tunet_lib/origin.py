"""What a prepared case was made from: its files and the numbers of its preprocessing."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from tunet_lib.config import Config
from tunet_lib.files import DataError, load_json, sha256_of
from tunet_lib.kits19 import Case, require_image

FIELDS = ("resample_spacing_mm", "grid_fov_mm", "grid_shape", "pad_hu", "median_size", "clip_hu")

CASE_FILE = "case.json"  # in the folder of a prepared case
MOST = 1 << 15  # voxels along an axis, as a NIfTI header counts them

Origin = dict[str, Any]  # as JSON gives it back


def numbers(config: Config) -> Origin:
    """Give the preprocessing numbers of a configuration."""
    values = {name: getattr(config, name) for name in FIELDS}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def origin_of(case: Case, config: Config) -> Origin:
    """Describe all that a prepared case depends on: numbers, and size and time of each file.

    Raises
    ------
    DataError
        The case has no CT.
    OSError
        A file cannot be looked at.
    """
    origin = numbers(config)
    if case.cyst_as_kidney:
        origin["cyst_as_kidney"] = True
    for name, path in _files(case).items():
        status = path.stat()
        origin[name] = [status.st_size, status.st_mtime_ns]
    return origin


def digests_of(case: Case) -> dict[str, str]:
    """Give name → SHA-256 of a case's files."""
    return {name: sha256_of(path) for name, path in _files(case).items()}


def is_only_touched(case: Case, origin: Origin, noted: dict[str, Any]) -> bool:
    """Tell whether a case's files have other times than noted, and the very same bytes.

    Parameters
    ----------
    case
        The case as it is now.
    origin
        As `origin_of` gives it now.
    noted
        What was noted when it was prepared; ``made_from`` and ``sha256`` are used.
    """
    made_from, digests = noted.get("made_from"), noted.get("sha256")
    if not isinstance(made_from, dict) or not isinstance(digests, dict):
        return False
    names = _files(case).keys()

    def untimed(values: Origin) -> Origin:
        return {k: v[:1] if k in names and isinstance(v, list) else v for k, v in values.items()}

    return untimed(origin) == untimed(made_from) and digests == digests_of(case)


def has_changed(case: Case, config: Config, description: Path) -> bool:
    """Tell whether a case's files hold other bytes than those that it was prepared from.

    Parameters
    ----------
    case, config
        The case as it is now.
    description
        Its ``case.json``. Where that tells nothing, nothing is known to have changed.
    """
    try:
        _, noted = read_description(description)
        is_as_noted = noted["made_from"] == origin_of(case, config)
    except DataError:  # what is missing or damaged is said when the case is prepared
        return False
    digests = noted.get("sha256")
    return not is_as_noted and isinstance(digests, dict) and digests != digests_of(case)


def sources_of(folder: Path) -> dict[str, Any]:
    """Give what a prepared case is of, whenever it was made: its numbers and its files' digests.

    Raises
    ------
    DataError
        Its ``case.json`` is missing or damaged.
    """
    _, noted = read_description(folder / CASE_FILE)
    made_from, digests = noted["made_from"], noted.get("sha256")
    # Without digests, as of an earlier version, the files' sizes and times have to do.
    timeless = {k: v for k, v in made_from.items() if not digests or k not in digests}
    return {"made_from": timeless, "sha256": digests}


def read_description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the ``case.json`` of a prepared case.

    Returns
    -------
    fields, values
        ``shape``, ``grid_shape``, ``spacing_mm`` and ``has_label``; and all that is written there.

    Raises
    ------
    DataError
        It is missing or damaged, or describes another case than that of its folder.
    """
    values = load_json(path)
    try:
        if not isinstance(values["made_from"], dict) or values["case_id"] != path.parent.name:
            raise TypeError("it describes another case")
        fields = {name: _triple(values[name], int) for name in ("shape", "grid_shape")}
        fields["spacing_mm"] = _triple(values["spacing_mm"], float)
        fields["has_label"] = bool(values["has_label"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged, or from another version; prepare it again") from error
    return fields, values


def _triple(values: Any, kind: type) -> Any:
    """Take three numbers from a file as a shape or a spacing (z, y, x)."""
    triple = tuple(map(kind, values))
    if len(triple) != 3 or not all(0 < number < MOST for number in triple):
        raise ValueError(f"{values} are no three numbers of a CT")
    return triple


def _files(case: Case) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in (require_image(case), case.label_path):
        if path is not None and path.exists():
            # The voxels of such a header lie in a file of their own beside it.
            beside = path.parent.glob(f"{glob.escape(path.stem)}.*") if _is_header(path) else ()
            for each in (path, *sorted(other for other in beside if other != path)):
                # A CT and its label map may have one name, in two folders.
                files[f"label/{each.name}" if each.name in files else each.name] = each
    return files


def _is_header(path: Path) -> bool:
    return path.suffix.lower() in (".hdr", ".mhd", ".nhdr")
