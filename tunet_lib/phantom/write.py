"""A folder of phantoms in KiTS19's layout.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from scipy import ndimage

from tunet_lib.files import DataError, is_list_of, load_json, save_json
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, Case, save_case
from tunet_lib.phantom.canvas import Point
from tunet_lib.phantom.make import Looks, make_phantom

Size: TypeAlias = Literal["course", "real"]

GENERATOR = 2  # raised whenever a seed gives other phantoms of the same looks than before


def write_phantoms(
    folder: str | Path,
    count: int = 80,
    seed: int = 2019,
    *,
    size: Size = "course",
    looks: Looks = "portal",
    progress: Callable[[int, int], None] | None = None,
) -> list[Case]:
    """Write a folder of phantoms in KiTS19's layout, with a ``kits.json``.

    Each entry of ``kits.json`` names the seed, the size, the looks and the version of the
    generator. A phantom without tumor has a ``radiographic_size`` of 0.

    Parameters
    ----------
    folder
        Where. Cases that an earlier call finished are kept and not made again.
    count
        How many cases. Case k does not depend on it.
    seed
        Case k is drawn from ``numpy.random.default_rng([seed, k])``.
    size
        ``"course"``: 52-72 slices of 128x128, wide phantoms 40-100. ``"real"``: 512x512, slices
        0.5-5 mm apart.
    looks
        ``"portal"``: as in KiTS19. ``"wide"``: of any look, to train networks for CTs from
        anywhere (`make_phantom`).
    progress
        Called with (cases done, count) after each case.

    Returns
    -------
    list of Case
        All `count` cases, in order.

    Raises
    ------
    DataError
        The folder holds other cases or those of another version of the generator, or cannot
        be written.
    ValueError
        There is no such size, no such looks, or `seed` is negative.
    """
    _check_asked(size, looks, seed)
    folder = Path(folder)
    listing = folder / "kits.json"
    if not listing.exists() and any(folder.glob("case_*")):
        raise DataError(f"{folder}: holds cases, but no kits.json; choose an empty folder")
    entries = _entries(listing) if listing.exists() else {}
    origin = {"synthetic": True, "seed": seed, "size": size, "looks": looks}
    _check_origin(folder, entries.values(), origin)
    origin["generator"] = GENERATOR
    if not listing.exists():
        save_json(listing, [])
    cases = []
    for k in range(count):
        case_id = f"case_{k:05d}"
        paths = folder / case_id / IMAGE_NAME, folder / case_id / LABEL_NAME
        if case_id in entries and all(path.is_file() for path in paths):
            cases.append(Case(case_id, *paths))
        else:
            if case_id not in entries:
                _check_free(folder / case_id)
            rng = np.random.default_rng([seed, k])
            shape, spacing = _draw_size(size, looks, rng)
            volume_hu, label, spacing_mm = make_phantom(rng, shape, spacing, looks=looks)
            # Noted first: so a case that is there and is not noted is somebody else's.
            entries[case_id] = _entry(case_id, label, spacing_mm, rng) | origin
            save_json(listing, [entries[key] for key in sorted(entries)])
            cases.append(save_case(folder / case_id, volume_hu, label, spacing_mm=spacing_mm))
        if progress is not None:
            progress(k + 1, count)
    return cases


def _check_asked(size: str, looks: str, seed: int) -> None:
    for name, value, known in (("size", size, get_args(Size)), ("looks", looks, get_args(Looks))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; choose 0 or more")


def _entries(listing: Path) -> dict[str, dict[str, Any]]:
    """Read which phantoms are there; a listing of another kind is not this program's to change."""
    entries = load_json(listing)
    if not is_list_of(dict, entries) or not all(isinstance(e.get("case_id"), str) for e in entries):
        raise DataError(f"{listing}: is no list of phantoms; choose an empty folder")
    return {entry["case_id"]: entry for entry in entries}


def _check_free(folder: Path) -> None:
    """Refuse to replace somebody else's case."""
    if any((folder / name).exists() for name in (IMAGE_NAME, LABEL_NAME)):
        raise DataError(f"{folder}: is no phantom; move it away")


def _check_origin(folder: Path, entries: Iterable[dict[str, Any]], origin: dict[str, Any]) -> None:
    """Refuse to mix phantoms of two origins, or of two generators, in one folder."""
    # Before there were other looks than one, no entry named them.
    if any(not origin.items() <= ({"looks": "portal"} | entry).items() for entry in entries):
        wanted = ", ".join(f"{key} {origin[key]}" for key in ("seed", "size", "looks"))
        raise DataError(
            f"{folder}: holds other cases than phantoms of {wanted}; choose an empty folder"
        )
    # Before there were versions, no entry named one.
    others = [e.get("generator", 1) for e in entries if e.get("generator", 1) != GENERATOR]
    if others:
        raise DataError(
            f"{folder}: holds phantoms of version {others[0]} of the generator, and this is "
            f"version {GENERATOR}; choose an empty folder, or delete this one and make it anew"
        )


def _draw_size(
    size: Size, looks: Looks, rng: np.random.Generator
) -> tuple[tuple[int, int, int], Point | None]:
    if size == "course":
        few, many = (40, 100) if looks == "wide" else (52, 72)
        return (int(rng.integers(few, many + 1)), 128, 128), None
    slice_mm = float(rng.choice([0.5, 0.75, 1, 1.25, 2, 2.5, 3, 3, 3, 4, 5, 5]))
    pixel_mm = round(rng.uniform(0.64, 0.88), 4)
    slices = int(np.clip(rng.uniform(190, 420) / slice_mm, 29, 600))
    return (slices, 512, 512), (slice_mm, pixel_mm, pixel_mm)


def _entry(
    case_id: str, label: np.ndarray, spacing_mm: Point, rng: np.random.Generator
) -> dict[str, Any]:
    """One case of ``kits.json``, with KiTS19's own keys."""
    parts, _ = ndimage.label(label == 2)
    widths = [
        max((p.stop - p.start) * s for p, s in zip(box[1:], spacing_mm[1:], strict=True))
        for box in ndimage.find_objects(parts)
    ]
    return {
        "case_id": case_id,
        "age_at_nephrectomy": int(np.clip(rng.normal(60, 12), 25, 88)),
        "gender": str(rng.choice(["male", "female"], p=[0.6, 0.4])),
        "body_mass_index": round(float(np.clip(rng.normal(30, 6), 18, 50)), 2),
        "radiographic_size": round(max(widths, default=0) / 10, 1),
        "voxel_spacing": dict(
            zip(("z_spacing", "y_spacing", "x_spacing"), spacing_mm, strict=True)
        ),
    }
