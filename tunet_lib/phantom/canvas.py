"""A CT to paint on: shapes in mm filled with a texture in HU.

Positions are (z, y, x) in mm from an origin that the caller chooses. A seed gives the same
voxels, bit for bit, on one machine with one version of NumPy.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, ...]


class Texture(NamedTuple):
    """What a material looks like: HU that vary by `sd_hu` about a mean, in grains of 6 mm."""

    hu: float
    sd_hu: float = 5


class SmoothField:
    """Random field of mean 0 and SD about 1, at any box of a grid.

    Parameters
    ----------
    rng
        Decides the field.
    shape
        Voxels (z, y, x) of the grid.
    steps
        Size of a voxel (z, y, x), in units of the length over which the field varies.
    """

    def __init__(
        self, rng: np.random.Generator, shape: Sequence[int], steps: Sequence[float]
    ) -> None:
        self.steps = steps
        cells = [int(n * step) + 2 for n, step in zip(shape, steps, strict=True)]
        # Interpolation between independent values lowers the SD to 0.64.
        self.values = rng.standard_normal(cells, dtype=np.float32) * np.float32(1.56)

    def at(self, box: Box) -> np.ndarray:
        """Give the field in a box of the grid's voxels, float32 in the box's shape."""
        out = self.values
        for axis, (part, step) in enumerate(zip(box, self.steps, strict=True)):
            out = interpolate(out, np.arange(part.start, part.stop) * step, axis, smooth=True)
        return out


def interpolate(
    values: np.ndarray, position: np.ndarray, axis: int, *, smooth: bool = False
) -> np.ndarray:
    """Interpolate along one axis.

    Parameters
    ----------
    values
        (z, y, x) float32.
    position
        (n,) fractional indices along the axis, 0 or more; the last value goes on forever.
    axis
        0, 1 or 2.
    smooth
        Change slowly near the given values, so that the result has no corners there.

    Returns
    -------
    numpy.ndarray
        float32, in the shape of `values` with n along the axis.
    """
    low = np.minimum(position.astype(np.intp), values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    part = (position - low).clip(0, 1).astype(np.float32)
    if smooth:
        part = part * part * (3 - 2 * part)
    part = part.reshape([-1 if a == axis else 1 for a in range(3)])
    first, second = values.take(low, axis), values.take(high, axis)
    return first + part * (second - first)


class Canvas:
    """A CT to paint on, of air at first.

    Parameters
    ----------
    rng
        Decides the grain and the lumps.
    shape
        Voxels (z, y, x).
    spacing_mm
        Voxel size (z, y, x).
    origin_mm
        Where the origin of all positions lies (z, y, x), from the first voxel.

    Attributes
    ----------
    hu : numpy.ndarray
        (z, y, x) float32.
    cavity : numpy.ndarray
        (z, y, x) bool, where organs may lie; nowhere at first.
    axes : list of numpy.ndarray
        Positions of the voxels along z, y and x in mm, float32.
    lumps, grain : SmoothField
        What roughens surfaces, over 24 mm, and what fills textures, over 6 mm.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        spacing_mm: Point,
        *,
        origin_mm: Point,
    ) -> None:
        self.spacing_mm, self.shape = spacing_mm, shape
        self.hu = np.full(shape, -1000, np.float32)
        self.cavity = np.zeros(shape, bool)
        self.axes = [
            (np.arange(n) * s - o).astype(np.float32)
            for n, s, o in zip(shape, spacing_mm, origin_mm, strict=True)
        ]
        self.lumps, self.grain = self.field(24, rng), self.field(6, rng)

    def field(self, cell_mm: float, rng: np.random.Generator) -> SmoothField:
        """Draw a random field over all voxels of the canvas, which varies over `cell_mm`."""
        return SmoothField(rng, self.shape, [s / cell_mm for s in self.spacing_mm])

    def box(self, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray) -> Box:
        """Give the voxels between two corners (z, y, x) in mm; empty where that lies outside."""
        ends = zip(self.axes, low, high, strict=True)
        return tuple(slice(*np.searchsorted(axis, (a, b)).tolist()) for axis, a, b in ends)

    def coordinates(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give z, y and x of a box's voxels in mm, float32, as an open grid that broadcasts."""
        z, y, x = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def ball(self, center: Point, radius: float) -> tuple[Box, np.ndarray]:
        """Measure around a ball.

        Parameters
        ----------
        center
            (z, y, x) in mm.
        radius
            In mm.

        Returns
        -------
        box : tuple of slice
            The voxels that are nearer than 1.3 radii along each axis.
        far2 : numpy.ndarray
            In the shape of the box, float32: squared distance from the center, in radii.
        """
        reach = 1.3 * radius
        box = self.box(np.subtract(center, reach), np.add(center, reach))
        z, y, x = (c - p for c, p in zip(self.coordinates(box), center, strict=True))
        return box, (z * z + y * y + x * x) / np.float32(radius * radius)

    def paint(self, box: Box, mask: np.ndarray, texture: Texture) -> None:
        """Fill what is set in a mask, bool in the shape of the box, with a texture."""
        if mask.any():
            self.hu[box][mask] = texture.hu + texture.sd_hu * self.grain.at(box)[mask]

    def ellipsoid(
        self,
        center: Point,
        radii: Point,
        texture: Texture,
        *,
        rough: float = 0.0,
        turn_deg: float = 0.0,
        cavity: bool = True,
    ) -> None:
        """Paint an ellipsoid.

        Parameters
        ----------
        center, radii
            (z, y, x) in mm.
        texture
            What fills it.
        rough
            SD that the lumps give to the square of the surface's distance, in radii.
        turn_deg
            Turns it in the axial plane.
        cavity
            Paint only where organs may lie.
        """
        reach = max(radii[1:]) if turn_deg else 0.0
        half = [r * (1 + rough) for r in (radii[0], max(radii[1], reach), max(radii[2], reach))]
        box = self.box(np.subtract(center, half), np.add(center, half))
        z, y, x = (c - p for c, p in zip(self.coordinates(box), center, strict=True))
        cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
        v, w = (cos * y - sin * x) / radii[1], (sin * y + cos * x) / radii[2]
        mask = v * v + w * w + (z / radii[0]) ** 2 + rough * self.lumps.at(box) < 1
        self.paint(box, mask & self.cavity[box] if cavity else mask, texture)

    def column(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        texture: Texture,
        *,
        z_range: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """Paint an upright cylinder, elliptic in the axial plane.

        Parameters
        ----------
        center, radii
            (y, x) in mm.
        texture
            What fills it.
        z_range
            Its ends in mm; by default it runs through the whole canvas.
        """
        (top, bottom), (cy, cx), (ry, rx) = z_range, center, radii
        box = self.box((top, cy - ry, cx - rx), (bottom, cy + ry, cx + rx))
        _, y, x = self.coordinates(box)
        mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        self.paint(box, np.broadcast_to(mask, self.hu[box].shape), texture)

    def tube(
        self,
        points: Sequence[Point],
        radius: float | tuple[float, float],
        texture: Texture,
        *,
        cavity: bool = False,
    ) -> None:
        """Paint a round tube.

        Parameters
        ----------
        points
            The polyline along which it runs, each (z, y, x) in mm.
        radius
            In mm; a pair is that of the two ends.
        texture
            What fills it.
        cavity
            Paint only where organs may lie.
        """
        first, last = radius if isinstance(radius, tuple) else (radius, radius)
        ends = np.linspace(first, last, len(points))
        for p, q, r0, r1 in zip(points, points[1:], ends, ends[1:], strict=False):
            r = max(r0, r1)
            box = self.box(np.minimum(p, q) - r, np.maximum(p, q) + r)
            offset = [c - a for c, a in zip(self.coordinates(box), p, strict=True)]
            along = [b - a for a, b in zip(p, q, strict=True)]
            length2 = max(sum(a * a for a in along), 1e-6)
            t = sum((o * np.float32(a / length2) for o, a in zip(offset, along, strict=True)))
            t = np.clip(t, 0, 1)
            far2 = sum((o - np.float32(a) * t) ** 2 for o, a in zip(offset, along, strict=True))
            mask = far2 < (np.float32(r0) + np.float32(r1 - r0) * t) ** 2
            self.paint(box, mask & self.cavity[box] if cavity else mask, texture)
