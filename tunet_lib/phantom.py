"""Synthetic abdominal CTs in KiTS19's layout, and simulated CTs around given label maps.

A label map comes first: drawn here, or given. Then the abdomen is painted around it, the
kidneys into it, and the scanner's blur and noise go over all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from tunet_lib.anatomy import (
    Body,
    Enhancement,
    paint_bones,
    paint_organs,
    paint_retroperitoneum,
    paint_trunk,
)
from tunet_lib.canvas import Box, Canvas, Point, SmoothField, interpolate
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, Case, save_case

HILUM_MM = 13.0  # openings of the kidney up to twice this wide count as inside it
BLUR = 0.2  # weight of a neighbor beside the voxel's own 1: partial volume
NOISE_LAG1 = (0.25, 0.4, 0.5)  # correlation of neighbors at NOISE_SPACING_MM
NOISE_SPACING_MM = (3.0, 0.8, 0.8)

Sphere = tuple[Point, float]


def make_phantom(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (64, 128, 128),
    spacing_mm: Point | None = None,
) -> tuple[np.ndarray, np.ndarray, Point]:
    """Make one synthetic contrast-enhanced CT of an abdomen with at least one kidney tumor.

    Parameters
    ----------
    rng
        Decides everything: the same state gives the same voxels.
    shape
        Voxels (z, y, x), slices first, orientation IPL.
    spacing_mm
        Voxel size (z, y, x); drawn if None: a field of view of 320-430 mm in plane, and a
        height of 180-336 mm with slices 0.5-5 mm apart.

    Returns
    -------
    volume_hu : numpy.ndarray
        (z, y, x) int16 in HU, -1024 to 3071.
    label : numpy.ndarray
        (z, y, x) uint8: 0 background, 1 kidney and its cysts, 2 tumor. As in KiTS19, the
        fat of the renal sinus is background.
    spacing_mm : tuple of float
        Voxel size (z, y, x).
    """
    if spacing_mm is None:
        pixel_mm = round(rng.uniform(320, 430) / max(shape[1:]), 4)
        slice_mm = float(np.clip(rng.uniform(180, 336) / shape[0], 0.5, 5))
        spacing_mm = (round(slice_mm, 4), pixel_mm, pixel_mm)
    extent = [n * s for n, s in zip(shape, spacing_mm, strict=True)]
    body = _draw_body(extent[2], rng)
    origin = (
        extent[0] * rng.uniform(0.48, 0.56),
        extent[1] / 2 - body.center_y + rng.uniform(-15, 5),
        extent[2] / 2 + rng.uniform(-8, 8),
    )
    canvas = Canvas(rng, shape, spacing_mm, origin)
    label, cysts = _draw_kidneys(canvas, body, rng)
    _render(canvas, body, label, cysts, rng)
    label[(label == 1) & (canvas.hu < -30)] = 0  # KiTS19 leaves out fat at the hilum
    return _add_noise(canvas.hu, spacing_mm, rng), label, spacing_mm


def simulate_ct(labels: np.ndarray, spacing_mm: Point, rng: np.random.Generator) -> np.ndarray:
    """Simulate a contrast-enhanced CT around a given label map.

    Parameters
    ----------
    labels
        (z, y, x) 0, 1 or 2, orientation IPL: any KiTS19 label map, with one kidney, two,
        or none.
    spacing_mm
        Voxel size (z, y, x).
    rng
        Decides everything that the labels leave open.

    Returns
    -------
    numpy.ndarray
        (z, y, x) int16 in HU.
    """
    z, y, x = labels.shape
    extent = [n * s for n, s in zip(labels.shape, spacing_mm, strict=True)]
    body = _draw_body(extent[2], rng)
    origin = (extent[0] / 2, extent[1] / 2 - body.center_y, extent[2] / 2)
    centers = _kidney_centers(labels, spacing_mm)
    if centers:
        middle = sum(c[2] for c in centers) / 2
        if len(centers) == 1:  # the other kidney would be on the other side of the image
            offset = centers[0][2] - origin[2]
            middle = centers[0][2] - (math.copysign(68, offset) if abs(offset) > 30 else 0)
        origin = (
            sum(c[0] for c in centers) / len(centers),
            sum(c[1] for c in centers) / len(centers) + 12,
            middle,
        )
        low, high = _bounds(labels, spacing_mm, origin)
        body = Body(
            max(body.half_width, 25 - low[2], 25 + high[2]),
            max(body.front, 25 - low[1]),
            max(body.back, 25 + high[1]),
            body.fat,
            body.muscle,
        )
    canvas = Canvas(rng, (z, y, x), spacing_mm, origin)
    _render(canvas, body, labels, _draw_cysts(labels, canvas, rng), rng)
    return _add_noise(canvas.hu, spacing_mm, rng)


def _draw_body(fov_mm: float, rng: np.random.Generator) -> Body:
    half_width = float(np.clip(fov_mm * rng.uniform(0.38, 0.46), 130, 190))
    fat = rng.uniform(6, 0.13 * half_width)
    back = rng.uniform(70, 80) + fat
    front = max(2 * half_width * rng.uniform(0.66, 0.8) - back, 95)
    return Body(half_width, front, back, fat, rng.uniform(9, 15))


def _draw_kidneys(
    canvas: Canvas, body: Body, rng: np.random.Generator
) -> tuple[np.ndarray, list[Sphere]]:
    label = np.zeros(canvas.shape, np.uint8)
    kidneys = [_Kidney(side, rng) for side in (-1, 1)]
    for kidney in kidneys:
        kidney.fill(canvas, label)
    cysts = []
    for _ in range(rng.choice([0, 1, 2, 4], p=[0.55, 0.25, 0.12, 0.08])):
        radius = float(np.clip(math.exp(rng.normal(2.1, 0.5)), 3, 30))
        center = rng.choice(kidneys).lesion_center(radius, body, rng)
        cysts.append((center, radius))
        _fill_sphere(canvas, label, center, radius, 1, rough=0)
    diameter = float(np.clip(math.exp(rng.normal(3.62, 0.6)), 11, 95))
    first = rng.choice(kidneys)
    others = rng.choice([0, 1, 2], p=[0.78, 0.16, 0.06])
    for k in range(1 + others):
        owner = first if k == 0 or rng.random() < 0.6 else rng.choice(kidneys)
        radius = diameter / 2 if k == 0 else rng.uniform(5.5, max(6, diameter / 3))
        center = owner.lesion_center(radius, body, rng)
        _fill_sphere(canvas, label, center, radius, 2, rough=0.1)
    return label, cysts


class _Kidney:
    """One bean: a bent ellipsoid with a hole for the sinus; axes (long, across, medial)."""

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.side = side
        z = rng.normal(6, 6) if side < 0 else rng.normal(-6, 6)  # the liver is on the right
        self.center = (z, rng.uniform(-17, -7), side * rng.uniform(64, 75))
        size = float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.2))
        self.half = (57 * size, rng.uniform(26, 31) * size, rng.uniform(26, 31) * size)
        self.bend = rng.uniform(0.001, 0.003)
        self.sinus = rng.uniform(0.7, 1.1)
        a, b, c = (math.radians(rng.uniform(*r)) for r in ((8, 26), (4, 16), (20, 50)))
        (sa, ca), (sb, cb), (sc, cc) = ((math.sin(t), math.cos(t)) for t in (a, b, c))
        across, medial = (ca * sb, cb, -sa * sb), (sa, 0.0, ca)
        self.rows = (
            (ca * cb, -sb, -sa * cb),  # upper pole leans to the spine and backward
            tuple(sc * m + cc * v for m, v in zip(medial, across, strict=True)),
            tuple(cc * m - sc * v for m, v in zip(medial, across, strict=True)),
        )

    def fill(self, canvas: Canvas, label: np.ndarray) -> None:
        z, y, x = self.center
        reach = 1.25 * self.half[0]
        box = canvas.box((z - reach, y - reach, x - reach), (z + reach, y + reach, x + reach))
        cz, cy, cx = canvas.coordinates(box)
        offset = (cz - z, cy - y, (cx - x) * -self.side)
        u, v, w = (
            sum(np.float32(r) * o for r, o in zip(row, offset, strict=True)) for row in self.rows
        )
        a, b, c = self.half
        w = w - np.float32(self.bend) * u * u
        lumps = canvas.lumps.at(box)
        bean = (u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2 + 0.05 * lumps < 1
        s = self.sinus
        sinus = (u / (0.52 * a * s)) ** 2 + (v / (0.36 * b * s)) ** 2
        sinus = sinus + ((w - 0.75 * c) / (0.8 * c * s)) ** 2
        label[box][bean & (sinus + 0.3 * canvas.grain.at(box) > 1)] = 1

    def lesion_center(self, radius: float, body: Body, rng: np.random.Generator) -> Point:
        """Draw where a lesion grows: deep inside, at the surface, or bulging out of it."""
        u, v, w = rng.standard_normal(3)
        if radius > 16:  # only outward and forward is room for a large one
            v, w = -abs(v), -abs(w)
        reach = math.sqrt(sum((d / h) ** 2 for d, h in zip((u, v, w), self.half, strict=True)))
        length = math.sqrt(u * u + v * v + w * w)
        surface = length / reach
        outward = rng.uniform(-0.8, 0.6) if radius < 20 else rng.uniform(0.1, 0.7)
        far = max(surface + outward * radius, 0) / length
        z, y, m = (
            sum(far * d * row[axis] for d, row in zip((u, v, w), self.rows, strict=True))
            for axis in range(3)
        )
        x = abs(self.center[2]) - m
        x = min(max(x, 24 + 0.7 * radius), body.half_width - 22 - radius)
        y = max(self.center[1] + y, radius + 22 - body.front)
        return self.center[0] + z, min(y, body.back - 40 - radius), self.side * x


def _fill_sphere(
    canvas: Canvas, label: np.ndarray, center: Point, radius: float, value: int, rough: float
) -> None:
    reach = radius * (1 + rough)
    low, high = ([c + d for c in center] for d in (-reach, reach))
    box = canvas.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    z, y, x = (c - p for c, p in zip(canvas.coordinates(box), center, strict=True))
    far = (z * z + y * y + x * x) / radius**2 + rough * canvas.lumps.at(box)
    label[box][far < 1] = value


def _draw_cysts(labels: np.ndarray, canvas: Canvas, rng: np.random.Generator) -> list[Sphere]:
    kidney = np.flatnonzero(labels == 1)
    cysts = []
    for _ in range(rng.choice([0, 1, 3], p=[0.6, 0.25, 0.15]) if kidney.size else 0):
        index = np.unravel_index(kidney[rng.integers(kidney.size)], labels.shape)
        z, y, x = (float(axis[i]) for axis, i in zip(canvas.axes, index, strict=True))
        cysts.append(((z, y, x), rng.uniform(3, 14)))
    return cysts


def _kidney_centers(labels: np.ndarray, spacing_mm: Point) -> list[Point]:
    """Centers of the right and the left kidney in mm from the first voxel; of one, or none."""
    mask = labels == 1
    if not mask.any():
        mask = labels > 0
    profile = mask.sum(axis=(0, 1)).astype(float)
    x = np.arange(profile.size)
    if not profile.any():
        return []
    cut = profile.size / 2
    for _ in range(5):  # two-means along x
        right, left = profile * (x < cut), profile * (x >= cut)
        if min(right.sum(), left.sum()) < 0.03 * profile.sum():
            break
        pair = [(side * x).sum() / side.sum() for side in (right, left)]
        cut = sum(pair) / 2
    else:
        if (pair[1] - pair[0]) * spacing_mm[2] > 60:
            return [
                _center(mask[:, :, : math.ceil(cut)], spacing_mm, 0),
                _center(mask[:, :, math.ceil(cut) :], spacing_mm, math.ceil(cut)),
            ]
    return [_center(mask, spacing_mm, 0)]


def _center(mask: np.ndarray, spacing_mm: Point, first_column: int) -> Point:
    out = []
    for axis, step in enumerate(spacing_mm):
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        out.append(float((profile * np.arange(profile.size)).sum() / profile.sum()) * step)
    return out[0], out[1], out[2] + first_column * spacing_mm[2]


def _bounds(labels: np.ndarray, spacing_mm: Point, origin: Point) -> tuple[list, list]:
    box = ndimage.find_objects((labels > 0).view(np.uint8))[0]
    ends = [
        (part.start * s - o, part.stop * s - o)
        for part, s, o in zip(box, spacing_mm, origin, strict=True)
    ]
    return [low for low, _ in ends], [high for _, high in ends]


def _render(
    canvas: Canvas, body: Body, label: np.ndarray, cysts: list[Sphere], rng: np.random.Generator
) -> None:
    """Paint a patient around and into a label map, without noise."""
    enhancement = Enhancement.draw(rng)
    centers = _kidney_centers(label, canvas.spacing_mm)
    origin = [-float(axis[0]) for axis in canvas.axes]
    hilum = [(z - origin[0], y - origin[1] - 4, (x - origin[2]) * 0.85) for z, y, x in centers]
    depths = _depths(label, canvas.spacing_mm)
    paint_trunk(canvas, body, rng)
    paint_organs(canvas, body, enhancement, rng)
    if depths is not None:
        box, outside, inside = depths
        fat = outside < rng.uniform(4, 11) + 3 * canvas.lumps.at(box)
        canvas.paint(box, (fat & canvas.cavity[box]) | (inside > 0), -99, 9)
    paint_bones(canvas, body, rng)
    for z, y, x in hilum:
        r = rng.uniform(3, 8)
        canvas.ellipsoid((z, y, x), (1.6 * r, r, r), rng.uniform(0, 20), cavity=False)
    paint_retroperitoneum(canvas, hilum, enhancement, rng)
    if depths is not None:
        _paint_kidneys(canvas, label, depths, enhancement, rng)
    for center, radius in cysts:
        _paint_cyst(canvas, label, center, radius, rng.uniform(0, 20))
    side = [BLUR] * 3
    for plane, blurred in zip(canvas.hu, _filtered(iter(canvas.hu), side), strict=True):
        plane[:] = blurred / (1 + 2 * BLUR) ** 3


def _depths(label: np.ndarray, spacing_mm: Point) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """Distances in mm around the labels: from them, and inward from their closed surface."""
    found = ndimage.find_objects((label > 0).view(np.uint8))
    if not found:
        return None
    parts = []
    for part, size, step in zip(found[0], label.shape, spacing_mm, strict=True):
        margin = math.ceil(20 / step)
        parts.append(slice(max(part.start - margin, 0), min(part.stop + margin, size)))
    box = (parts[0], parts[1], parts[2])
    fine = label[box]
    # Distances are smooth: every few voxels are enough, and interpolating is much faster.
    every = [max(1, int(1.8 / step)) for step in spacing_mm]
    coarse = fine[:: every[0], :: every[1], :: every[2]] > 0
    sampling = [e * s for e, s in zip(every, spacing_mm, strict=True)]
    if not coarse.any():
        return None
    outside = ndimage.distance_transform_edt(~coarse, sampling)
    closed = np.pad(outside < HILUM_MM, 1)
    inside = ndimage.distance_transform_edt(closed, sampling)[1:-1, 1:-1, 1:-1] - HILUM_MM
    fields = []
    for field in (outside, inside):
        out = field.astype(np.float32)
        for axis, (size, step) in enumerate(zip(fine.shape, every, strict=True)):
            out = interpolate(out, np.arange(size) / step, axis)
        fields.append(out)
    return box, fields[0], fields[1]


def _paint_kidneys(
    canvas: Canvas,
    label: np.ndarray,
    depths: tuple[Box, np.ndarray, np.ndarray],
    enhancement: Enhancement,
    rng: np.random.Generator,
) -> None:
    box, _, inside = depths
    part, x = label[box], canvas.coordinates(box)[2]
    pyramids = SmoothField(rng, canvas.shape, canvas.spacing_mm, 10).at(box)
    kidney = part == 1
    medulla = kidney & (inside > rng.uniform(3.5, 6)) & (pyramids > -0.8)
    canvas.paint(box, kidney & ~medulla, enhancement.cortex, 8)
    canvas.paint(box, medulla, enhancement.medulla, 12)
    calyx = kidney & (inside > 12) & (pyramids < -0.9)
    canvas.paint(box, calyx, rng.uniform(0, 20), 8)
    for side in (x < 0, x >= 0):
        tumor = (part == 2) & side
        mean = (enhancement.cortex + enhancement.medulla) / 2
        hu = float(np.clip(rng.normal(0.25 * mean + 30, 36), 15, 170))
        heterogeneous = rng.random() < 0.55
        field = SmoothField(rng, canvas.shape, canvas.spacing_mm, rng.uniform(8, 20)).at(box)
        canvas.paint(box, tumor, hu, 6)
        if heterogeneous:
            canvas.paint(box, tumor & (field < -0.3), rng.uniform(10, 35), 8)
            canvas.paint(box, tumor & (field > 0.9), hu + rng.uniform(15, 70), 12)


def _paint_cyst(canvas: Canvas, label: np.ndarray, center: Point, radius: float, hu: float) -> None:
    low, high = ([c + d for c in center] for d in (-radius, radius))
    box = canvas.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    z, y, x = (c - p for c, p in zip(canvas.coordinates(box), center, strict=True))
    canvas.paint(box, (z * z + y * y + x * x < radius**2) & (label[box] == 1), hu, 2)


def _add_noise(hu: np.ndarray, spacing_mm: Point, rng: np.random.Generator) -> np.ndarray:
    """Add correlated noise of one SD to a CT; give int16."""
    sd, side, power = rng.uniform(19, 26), [], 1.0
    for rho, step, reference in zip(NOISE_LAG1, spacing_mm, NOISE_SPACING_MM, strict=True):
        rho = min(rho ** (step / reference), 0.7)  # 0.707 is the most that three taps can give
        weight = (1 - math.sqrt(1 - 2 * rho * rho)) / (2 * rho)
        side.append(weight)
        power *= 1 + 2 * weight * weight
    out = np.empty(hu.shape, np.int16)
    white = (rng.standard_normal(hu.shape[1:], dtype=np.float32) for _ in range(len(hu)))
    for k, plane in enumerate(_filtered(white, side)):
        noisy = hu[k] + plane * np.float32(sd / math.sqrt(power))
        out[k] = np.clip(np.rint(noisy), -1024, 3071)
    return out


def _filtered(planes: Iterable[np.ndarray], side: list[float]) -> Iterator[np.ndarray]:
    """Give each plane after three taps (side, 1, side) along z, y and x; edges mirror."""
    before: np.ndarray | None = None
    here: np.ndarray | None = None
    for plane in planes:
        after = plane
        for axis in (0, 1):
            weight = np.float32(side[axis + 1])
            padded = np.pad(after, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], "reflect")
            lower, upper = (
                (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            )
            after = after + weight * (lower + upper)
        if here is not None:
            yield here + np.float32(side[0]) * (after + (after if before is None else before))
        before, here = here, after
    if here is not None:
        yield here + np.float32(side[0]) * 2 * (here if before is None else before)


def write_phantoms(
    folder: str | Path,
    count: int = 40,
    seed: int = 2019,
    size: Literal["course", "real"] = "course",
    progress: Callable[[int, int], None] | None = None,
) -> list[Case]:
    """Write a folder of phantoms in KiTS19's layout, with a ``kits.json``.

    Parameters
    ----------
    folder
        Where. Cases that an earlier call finished are kept and not made again.
    count
        How many cases. Case k does not depend on it.
    seed
        Case k is drawn from ``numpy.random.default_rng([seed, k])``.
    size
        ``"course"``: 52-72 slices of 128x128. ``"real"``: 512x512, slices 0.5-5 mm apart.
    progress
        Called with (cases done, count) after each case.

    Raises
    ------
    DataError
        The folder holds other cases, or cannot be written.
    """
    folder = Path(folder)
    listing = folder / "kits.json"
    if not listing.exists() and any(folder.glob("case_*")):
        raise DataError(f"{folder}: holds cases, but no kits.json; choose an empty folder")
    entries = {e["case_id"]: e for e in load_json(listing)} if listing.exists() else {}
    if any(e.get("synthetic") != [seed, size] for e in entries.values()):
        raise DataError(f"{folder}: holds other cases than phantoms of seed {seed}, size {size}")
    save_json(listing, list(entries.values()))
    cases = []
    for k in range(count):
        case_id = f"case_{k:05d}"
        paths = folder / case_id / IMAGE_NAME, folder / case_id / LABEL_NAME
        if case_id in entries and all(path.is_file() for path in paths):
            cases.append(Case(case_id, *paths))
        else:
            rng = np.random.default_rng([seed, k])
            volume_hu, label, spacing_mm = make_phantom(rng, *_draw_size(size, rng))
            cases.append(save_case(folder, case_id, volume_hu, label, spacing_mm))
            entries[case_id] = _entry(case_id, label, spacing_mm, rng) | {"synthetic": [seed, size]}
            save_json(listing, [entries[key] for key in sorted(entries)])
        if progress is not None:
            progress(k + 1, count)
    return cases


def _draw_size(
    size: Literal["course", "real"], rng: np.random.Generator
) -> tuple[tuple[int, int, int], Point | None]:
    if size == "course":
        return (int(rng.integers(52, 73)), 128, 128), None
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
        "radiographic_size": round(max(widths) / 10, 1),
        "voxel_spacing": dict(
            zip(("z_spacing", "y_spacing", "x_spacing"), spacing_mm, strict=True)
        ),
    }
