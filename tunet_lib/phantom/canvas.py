"""A CT to paint on: shapes in mm filled with a texture in HU.

Positions are (z, y, x) in mm from an origin that the caller chooses. A seed gives the same
voxels, bit for bit, on one machine with one version of NumPy.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice, slice]


class SmoothField:
    """Random field of mean 0 and SD about 1 that varies over `cell_mm`, at any box of a grid."""

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: Point, cell_mm: float
    ) -> None:
        self.steps = [s / cell_mm for s in spacing_mm]
        cells = [int(n * step) + 2 for n, step in zip(shape, self.steps, strict=True)]
        # Interpolation between independent values lowers the SD to 0.64.
        self.values = rng.standard_normal(cells, dtype=np.float32) * np.float32(1.56)

    def at(self, box: Box) -> np.ndarray:
        """Give the field in a box of voxels, float32."""
        out = self.values
        for axis, (part, step) in enumerate(zip(box, self.steps, strict=True)):
            out = interpolate(out, np.arange(part.start, part.stop) * step, axis, smooth=True)
        return out


def interpolate(
    values: np.ndarray, position: np.ndarray, axis: int, smooth: bool = False
) -> np.ndarray:
    """Interpolate along one axis at fractional indices, linearly or with rounded corners."""
    low = np.minimum(position.astype(np.intp), values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    part = np.clip(position - low, 0, 1).astype(np.float32)
    if smooth:
        part = part * part * (3 - 2 * part)
    part = part.reshape([-1 if a == axis else 1 for a in range(3)])
    first, second = np.take(values, low, axis), np.take(values, high, axis)
    return first + part * (second - first)


class Canvas:
    """A CT to paint on: float32 HU, and `cavity`, where organs may lie."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        spacing_mm: Point,
        origin_mm: Point,
    ) -> None:
        self.spacing_mm, self.shape = spacing_mm, shape
        self.hu = np.full(shape, -1000, np.float32)
        self.cavity = np.zeros(shape, bool)
        self.axes = [
            (np.arange(n) * s - o).astype(np.float32)
            for n, s, o in zip(shape, spacing_mm, origin_mm, strict=True)
        ]
        self.lumps = SmoothField(rng, shape, spacing_mm, 24)
        self.grain = SmoothField(rng, shape, spacing_mm, 6)

    def box(self, low: Point, high: Point) -> Box:
        """Voxels between two corners in mm; empty where that lies outside."""
        parts = []
        for axis, a, b in zip(self.axes, low, high, strict=True):
            start, stop = np.searchsorted(axis, (a, b))
            parts.append(slice(int(start), int(stop)))
        return parts[0], parts[1], parts[2]

    def coordinates(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Open grid of (z, y, x) in mm."""
        z, y, x = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def ball(self, center: Point, radius: float) -> tuple[Box, np.ndarray]:
        """Box around a ball, and the squared distance from its center, in radii."""
        low, high = ([c + d for c in center] for d in (-1.3 * radius, 1.3 * radius))
        box = self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        z, y, x = (c - p for c, p in zip(self.coordinates(box), center, strict=True))
        return box, (z * z + y * y + x * x) / np.float32(radius * radius)

    def paint(self, box: Box, mask: np.ndarray, hu: float, texture: float = 5) -> None:
        """Set a mask's voxels to a texture around one HU."""
        if mask.any():
            self.hu[box][mask] = hu + texture * self.grain.at(box)[mask]

    def ellipsoid(
        self,
        center: Point,
        radii: Point,
        hu: float,
        *,
        texture: float = 5,
        rough: float = 0.0,
        turn_deg: float = 0.0,
        cavity: bool = True,
        z_range: tuple[float, float] | None = None,
    ) -> None:
        """Paint an ellipsoid, turned in the axial plane; `z_range` makes it a column."""
        reach = max(radii[1:]) if turn_deg else 0.0
        half = [r * (1 + rough) for r in (radii[0], max(radii[1], reach), max(radii[2], reach))]
        low = [c - h for c, h in zip(center, half, strict=True)]
        high = [c + h for c, h in zip(center, half, strict=True)]
        if z_range:
            low[0], high[0] = z_range
        box = self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        z, y, x = self.coordinates(box)
        cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
        dy, dx = y - center[1], x - center[2]
        v, w = (cos * dy - sin * dx) / radii[1], (sin * dy + cos * dx) / radii[2]
        inside = v * v + w * w
        if not z_range:
            inside = inside + ((z - center[0]) / radii[0]) ** 2
        if rough:
            inside = inside + rough * self.lumps.at(box)
        mask = np.broadcast_to(inside < 1, self.hu[box].shape)
        self.paint(box, mask & self.cavity[box] if cavity else mask, hu, texture)

    def tube(
        self,
        points: list[Point],
        radius: float | tuple[float, float],
        hu: float,
        *,
        texture: float = 5,
        cavity: bool = False,
    ) -> None:
        """Paint a round tube along a polyline; a pair of radii is that of its two ends."""
        ends = np.linspace(
            *(radius if isinstance(radius, tuple) else (radius, radius)), len(points)
        )
        for p, q, r0, r1 in zip(points, points[1:], ends, ends[1:], strict=False):
            r = max(r0, r1)
            low = [min(a, b) - r for a, b in zip(p, q, strict=True)]
            high = [max(a, b) + r for a, b in zip(p, q, strict=True)]
            box = self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
            offset = [c - a for c, a in zip(self.coordinates(box), p, strict=True)]
            along = [b - a for a, b in zip(p, q, strict=True)]
            length2 = max(sum(a * a for a in along), 1e-6)
            t = sum((o * np.float32(a / length2) for o, a in zip(offset, along, strict=True)))
            t = np.clip(t, 0, 1)
            far2 = sum((o - np.float32(a) * t) ** 2 for o, a in zip(offset, along, strict=True))
            mask = far2 < (np.float32(r0) + np.float32(r1 - r0) * t) ** 2
            self.paint(box, mask & self.cavity[box] if cavity else mask, hu, texture)
