"""Kidneys with cysts and tumors: their label map, and their HU inside a label map.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from tunet_lib.boxes import box_of
from tunet_lib.phantom.anatomy import Enhancement
from tunet_lib.phantom.canvas import Box, Canvas, Point, Texture, interpolate
from tunet_lib.phantom.trunk import Body, Tissue

HILUM_MM = 13.0  # openings of the kidney up to twice this wide count as inside it

Sphere: TypeAlias = tuple[Point, float]  # center and radius in mm


@dataclass(frozen=True)
class Traits:
    """What is drawn of kidneys; unless told otherwise two of usual size, and a tumor.

    Parameters
    ----------
    sides
        Which kidneys there are: -1 for the patient's right, 1 for the left.
    scale
        Factor of their size.
    shift_mm
        Added to where they lie: downward, backward, outward.
    cyst_scale
        Factor of the cysts' radii.
    tumors
        How many; drawn if None, at least one.
    """

    sides: tuple[int, ...] = (-1, 1)
    scale: float = 1.0
    shift_mm: Point = (0.0, 0.0, 0.0)
    cyst_scale: float = 1.0
    tumors: int | None = None


USUAL = Traits()


def draw_kidneys(
    canvas: Canvas, body: Body, rng: np.random.Generator, *, traits: Traits = USUAL
) -> tuple[np.ndarray, list[Sphere]]:
    """Draw kidneys, their cysts, and tumors.

    Parameters
    ----------
    canvas
        Gives the voxels and the lumps; not painted.
    body
        The trunk inside which they have to stay.
    rng
        Decides everything else.
    traits
        How many kidneys and tumors, how large.

    Returns
    -------
    label : numpy.ndarray
        (z, y, x) uint8: 0 background, 1 kidney and its cysts, 2 tumor.
    cysts : list of Sphere
        Center (z, y, x) and radius in mm of each cyst.
    """
    label = np.zeros(canvas.shape, np.uint8)
    kidneys = [Kidney(side, rng, traits) for side in traits.sides]
    for kidney in kidneys:
        kidney.fill(canvas, label)
    cysts: list[Sphere] = []
    if not kidneys:
        return label, cysts
    for _ in range(rng.choice([0, 1, 2, 4], p=[0.55, 0.25, 0.12, 0.08])):
        radius = float(np.clip(math.exp(rng.normal(2.1, 0.5)), 3, 30)) * traits.cyst_scale
        center = kidneys[rng.integers(len(kidneys))].lesion_center(radius, body, rng)
        cysts.append((center, radius))
        box, far2 = canvas.ball(center, radius)
        label[box][far2 < 1] = 1
    diameter = float(np.clip(math.exp(rng.normal(3.62, 0.6)), 11, 95))
    first = kidneys[rng.integers(len(kidneys))]
    others = int(rng.choice([0, 1, 2], p=[0.78, 0.16, 0.06]))
    for k in range(1 + others if traits.tumors is None else traits.tumors):
        owner = first if k == 0 or rng.random() < 0.6 else kidneys[rng.integers(len(kidneys))]
        radius = diameter / 2 if k == 0 else rng.uniform(5.5, max(6, diameter / 3))
        center = owner.lesion_center(radius, body, rng)
        box, far2 = canvas.ball(center, radius)
        label[box][far2 + 0.1 * canvas.lumps.at(box) < 1] = 2
    return label, cysts


class Kidney:
    """One kidney to draw: a bent ellipsoid with a hole for the sinus.

    Its own axes are (long, across, medial).

    Parameters
    ----------
    side
        -1 for the patient's right, 1 for the left.
    rng
        Decides place, size, bend and turn.
    traits
        Move and scale it.
    """

    def __init__(self, side: int, rng: np.random.Generator, traits: Traits = USUAL) -> None:
        self.side = side
        z = rng.normal(6, 6) if side < 0 else rng.normal(-6, 6)  # the liver is on the right
        down, back, out = traits.shift_mm
        self.center = (z + down, rng.uniform(-17, -7) + back, side * (rng.uniform(64, 75) + out))
        size = float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.2)) * traits.scale
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
        """Write 1 into a label map, of the canvas' shape, where the kidney lies."""
        reach = 1.25 * self.half[0]
        box = canvas.box(np.subtract(self.center, reach), np.add(self.center, reach))
        z, y, x = (c - p for c, p in zip(canvas.coordinates(box), self.center, strict=True))
        offset = (z, y, x * -self.side)
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
        """Draw where a lesion grows: deep inside, at the surface, or bulging out of it.

        Parameters
        ----------
        radius
            Of the lesion in mm; a large one grows outward and forward.
        body
            The trunk inside which it has to stay.
        rng
            Decides the place.

        Returns
        -------
        tuple of float
            Center (z, y, x) in mm.
        """
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
    """Draw cysts inside the kidneys of a given label map.

    Parameters
    ----------
    labels
        (z, y, x) 0, 1 or 2, in the canvas' shape; the centers are where it is 1.
    canvas
        Gives the positions of the voxels; not painted.
    rng
        Decides everything.

    Returns
    -------
    list of Sphere
        Center (z, y, x) and radius in mm of each cyst, often none.
    """
    kidney = np.flatnonzero(labels == 1)
    cysts = []
    for _ in range(rng.choice([0, 1, 3], p=[0.6, 0.25, 0.15]) if kidney.size else 0):
        index = np.unravel_index(kidney[rng.integers(kidney.size)], labels.shape)
        z, y, x = (float(axis[i]) for axis, i in zip(canvas.axes, index, strict=True))
        cysts.append(((z, y, x), rng.uniform(3, 14)))
    return cysts


@dataclass(frozen=True)
class Kidneys:
    """The kidneys of a label map, with the distances by which they are painted.

    Parameters
    ----------
    label
        (z, y, x) 0, 1 or 2, of the whole canvas.
    cysts
        Painted where the label is 1.
    box
        Where all labels are, with 20 mm around them.
    outside
        In the shape of the box: mm to the nearest label, 0 inside, float32.
    inside
        In the shape of the box: mm inward from the surface, with the hilum closed; 0 or
        negative outside, float32.
    """

    label: np.ndarray
    cysts: list[Sphere]
    box: Box
    outside: np.ndarray
    inside: np.ndarray

    @classmethod
    def measure(cls, label: np.ndarray, cysts: list[Sphere], spacing_mm: Point) -> Kidneys | None:
        """Measure the kidneys of a label map.

        Parameters
        ----------
        label
            (z, y, x) 0, 1 or 2.
        cysts
            Center (z, y, x) and radius in mm of each.
        spacing_mm
            Voxel size (z, y, x).

        Returns
        -------
        Kidneys or None
            None if there is no kidney, or only a speck.
        """
        margins = (math.ceil(20 / step) for step in spacing_mm)
        tight = zip(box_of(label > 0), label.shape, margins, strict=True)
        box = tuple(slice(max(b.start - m, 0), min(b.stop + m, size)) for b, size, m in tight)
        # Distances are smooth: every few voxels are enough, and interpolating is much faster.
        every = [max(1, int(1.8 / step)) for step in spacing_mm]
        coarse = label[box][:: every[0], :: every[1], :: every[2]] > 0
        if not coarse.any():
            return None
        sampling = [e * s for e, s in zip(every, spacing_mm, strict=True)]
        outside = ndimage.distance_transform_edt(~coarse, sampling)
        closed = np.pad(outside < HILUM_MM, 1)
        inside = ndimage.distance_transform_edt(closed, sampling)[1:-1, 1:-1, 1:-1] - HILUM_MM
        fields = [outside.astype(np.float32), inside.astype(np.float32)]
        for axis, (size, step) in enumerate(zip(label[box].shape, every, strict=True)):
            fields = [interpolate(field, np.arange(size) / step, axis) for field in fields]
        return cls(label, cysts, box, *fields)

    def paint_fat(self, canvas: Canvas, tissue: Tissue, rng: np.random.Generator) -> None:
        """Paint the fat around the kidneys and in their sinus; `rng` decides how thick it is."""
        fat = self.outside < rng.uniform(*tissue.perirenal_mm) + 3 * canvas.lumps.at(self.box)
        fat = (fat & canvas.cavity[self.box]) | (self.inside > 0)
        canvas.paint(self.box, fat, Texture(-99 + tissue.fat_hu, 9))

    def paint(self, canvas: Canvas, enhancement: Enhancement, rng: np.random.Generator) -> None:
        """Paint cortex, pyramids, calyces, tumors and cysts, each inside its label.

        Parameters
        ----------
        canvas
            Painted in place.
        enhancement
            HU of cortex and medulla, on which those of a tumor depend unless it names them.
        rng
            Decides the pyramids, the HU of tumors and cysts, and what is necrotic.
        """
        part, pyramids = self.label[self.box], canvas.field(10, rng).at(self.box)
        kidney = part == 1
        medulla = kidney & (self.inside > rng.uniform(3.5, 6)) & (pyramids > -0.8)
        canvas.paint(self.box, kidney & ~medulla, Texture(enhancement.cortex, 8))
        canvas.paint(self.box, medulla, Texture(enhancement.medulla, 12))
        calyx = kidney & (self.inside > 12) & (pyramids < -0.9)
        canvas.paint(self.box, calyx, Texture(rng.uniform(0, 20) + enhancement.urine, 8))
        x = canvas.coordinates(self.box)[2]
        for side in (x < 0, x >= 0):
            self._paint_tumor(canvas, (part == 2) & side, enhancement, rng)
        for center, radius in self.cysts:
            ball, far2 = canvas.ball(center, radius)
            cyst = (far2 < 1) & (self.label[ball] == 1)
            canvas.paint(ball, cyst, Texture(rng.uniform(0, 20), 2))

    def _paint_tumor(
        self, canvas: Canvas, tumor: np.ndarray, enhancement: Enhancement, rng: np.random.Generator
    ) -> None:
        mean = (enhancement.cortex + enhancement.medulla) / 2
        hu = float(np.clip(rng.normal(0.25 * mean + 30, 36), 15, 170))
        if enhancement.tumor is not None:
            hu = enhancement.tumor
        heterogeneous = rng.random() < 0.55
        field = canvas.field(rng.uniform(8, 20), rng).at(self.box)
        canvas.paint(self.box, tumor, Texture(hu, 6))
        if heterogeneous:
            canvas.paint(self.box, tumor & (field < -0.3), Texture(rng.uniform(10, 35), 8))
            more = rng.uniform(15, 70) * enhancement.spots
            canvas.paint(self.box, tumor & (field > 0.9), Texture(hu + more, 12))


def kidney_centers(labels: np.ndarray, spacing_mm: Point) -> list[Point]:
    """Find the kidneys of a label map, by two means along x.

    Parameters
    ----------
    labels
        (z, y, x) 0, 1 or 2, orientation IPL.
    spacing_mm
        Voxel size (z, y, x).

    Returns
    -------
    list of tuple of float
        Centers of the right and the left kidney, (z, y, x) in mm from the first voxel; of
        one where no second is found 60 mm away; none where nothing is labeled.
    """
    mask = labels == 1
    if not mask.any():
        mask = labels > 0
    profile = mask.sum(axis=(0, 1)).astype(float)
    if not profile.any():
        return []
    x, cut = np.arange(profile.size), profile.size / 2
    for _ in range(5):
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
