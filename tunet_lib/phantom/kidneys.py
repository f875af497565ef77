"""Kidneys with cysts and tumors: their label map, and their HU inside a label map.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from tunet_lib.phantom.anatomy import Enhancement
from tunet_lib.phantom.canvas import Box, Canvas, Point, SmoothField, interpolate
from tunet_lib.phantom.trunk import Body

HILUM_MM = 13.0  # openings of the kidney up to twice this wide count as inside it

Sphere: TypeAlias = tuple[Point, float]  # center and radius in mm
Depths: TypeAlias = tuple[Box, np.ndarray, np.ndarray]


def draw_kidneys(
    canvas: Canvas, body: Body, rng: np.random.Generator
) -> tuple[np.ndarray, list[Sphere]]:
    """Draw two kidneys, their cysts, and at least one tumor: a label map, and the cysts."""
    label = np.zeros(canvas.shape, np.uint8)
    kidneys = [Kidney(side, rng) for side in (-1, 1)]
    for kidney in kidneys:
        kidney.fill(canvas, label)
    cysts = []
    for _ in range(rng.choice([0, 1, 2, 4], p=[0.55, 0.25, 0.12, 0.08])):
        radius = float(np.clip(math.exp(rng.normal(2.1, 0.5)), 3, 30))
        center = kidneys[rng.integers(2)].lesion_center(radius, body, rng)
        cysts.append((center, radius))
        box, far2 = canvas.ball(center, radius)
        label[box][far2 < 1] = 1
    diameter = float(np.clip(math.exp(rng.normal(3.62, 0.6)), 11, 95))
    first = kidneys[rng.integers(2)]
    others = int(rng.choice([0, 1, 2], p=[0.78, 0.16, 0.06]))
    for k in range(1 + others):
        owner = first if k == 0 or rng.random() < 0.6 else kidneys[rng.integers(2)]
        radius = diameter / 2 if k == 0 else rng.uniform(5.5, max(6, diameter / 3))
        center = owner.lesion_center(radius, body, rng)
        box, far2 = canvas.ball(center, radius)
        label[box][far2 + 0.1 * canvas.lumps.at(box) < 1] = 2
    return label, cysts


class Kidney:
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
        """Write 1 into the label map where the kidney lies."""
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


def draw_cysts(labels: np.ndarray, canvas: Canvas, rng: np.random.Generator) -> list[Sphere]:
    """Draw cysts inside the kidneys of a given label map."""
    kidney = np.flatnonzero(labels == 1)
    cysts = []
    for _ in range(rng.choice([0, 1, 3], p=[0.6, 0.25, 0.15]) if kidney.size else 0):
        index = np.unravel_index(kidney[rng.integers(kidney.size)], labels.shape)
        z, y, x = (float(axis[i]) for axis, i in zip(canvas.axes, index, strict=True))
        cysts.append(((z, y, x), rng.uniform(3, 14)))
    return cysts


def kidney_depths(label: np.ndarray, spacing_mm: Point) -> Depths | None:
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


def paint_kidneys(
    canvas: Canvas,
    label: np.ndarray,
    depths: Depths,
    cysts: list[Sphere],
    enhancement: Enhancement,
    rng: np.random.Generator,
) -> None:
    """Paint cortex, pyramids, calyces and tumors into the label map's voxels."""
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
    for center, radius in cysts:
        ball, far2 = canvas.ball(center, radius)
        canvas.paint(ball, (far2 < 1) & (label[ball] == 1), rng.uniform(0, 20), 2)


def kidney_centers(labels: np.ndarray, spacing_mm: Point) -> list[Point]:
    """Centers of the right and the left kidney in mm from the first voxel; of one, or none."""
    mask = labels == 1
    if not mask.any():
        mask = labels > 0
    profile = mask.sum(axis=(0, 1)).astype(float)
    if not profile.any():
        return []
    x, cut = np.arange(profile.size), profile.size / 2
    for _ in range(5):  # two-means along x
        right, left = profile * (x < cut), profile * (x >= cut)
        if min(right.sum(), left.sum()) < 0.03 * profile.sum():
            return [_center(mask, spacing_mm)]
        pair = (right * x).sum() / right.sum(), (left * x).sum() / left.sum()
        cut = sum(pair) / 2
    if (pair[1] - pair[0]) * spacing_mm[2] < 60:
        return [_center(mask, spacing_mm)]
    column = math.ceil(cut)
    z, y, x_left = _center(mask[:, :, column:], spacing_mm)
    left_center = (z, y, x_left + column * spacing_mm[2])
    return [_center(mask[:, :, :column], spacing_mm), left_center]


def _center(mask: np.ndarray, spacing_mm: Point) -> Point:
    out = []
    for axis, step in enumerate(spacing_mm):
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        moment = float((profile * np.arange(profile.size)).sum())
        out.append(moment / float(profile.sum()) * step)
    return out[0], out[1], out[2]
