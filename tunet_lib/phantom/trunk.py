"""The trunk around the organs: skin, fat, muscles, lung bases, bones, and the table.

Positions are (z, y, x) in mm from the center of the vertebral body at the level of the
kidneys: z grows downward (inferior), y backward (posterior), x toward the patient's left.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunet_lib.phantom.canvas import Canvas, Texture

RIB_STEP_MM = 27.0
VERTEBRA_MM, DISC_MM = 26.0, 8.0


@dataclass(frozen=True)
class Tissue:
    """What fat, muscle and bone are like, as differences from what is usual.

    Parameters
    ----------
    fat_hu, muscle_hu
        Added to their HU.
    bone
        Factor of the HU of bone.
    lean
        How much of the cavity is soft tissue instead of fat: all below this many SD of a
        random field.
    lean_hu
        HU of that soft tissue.
    loops
        At least how many loops of bowel, and fewer than how many.
    perirenal_mm
        Least and most thickness of the fat around the kidneys.
    couch
        Whether the patient lies on a table.
    """

    fat_hu: float = 0.0
    muscle_hu: float = 0.0
    bone: float = 1.0
    lean: float = -math.inf
    lean_hu: float = 35.0
    loops: tuple[int, int] = (24, 36)
    perirenal_mm: tuple[float, float] = (4.0, 11.0)
    couch: bool = True


@dataclass(frozen=True)
class Body:
    """Size of the trunk in mm, and what it is made of.

    Parameters
    ----------
    half_width, front, back
        From the spine's center to the skin: to either side, forward, backward.
    fat, muscle
        Thickness of the layers under the skin.
    tissue
        Their HU, and how much fat lies among the organs.
    """

    half_width: float
    front: float
    back: float
    fat: float
    muscle: float
    tissue: Tissue = Tissue()

    @classmethod
    def draw(cls, fov_mm: float, rng: np.random.Generator) -> Body:
        """Draw a patient who fits a field of view `fov_mm` wide."""
        half_width = float(np.clip(fov_mm * rng.uniform(0.38, 0.46), 130, 190))
        fat = rng.uniform(6, 0.13 * half_width)
        back = rng.uniform(70, 80) + fat
        front = max(2 * half_width * rng.uniform(0.66, 0.8) - back, 95)
        return cls(half_width, front, back, fat=fat, muscle=rng.uniform(9, 15))

    @property
    def center_y(self) -> float:
        """Position of the trunk's middle, behind the spine's center."""
        return (self.back - self.front) / 2

    @property
    def half_depth(self) -> float:
        """Half of the trunk from front to back."""
        return (self.back + self.front) / 2


def paint_trunk(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint skin, fat, the muscle wall, the lung bases and the table; mark the cavity.

    Parameters
    ----------
    canvas
        Painted in place, `hu` and `cavity` both.
    body
        Size of the trunk.
    rng
        Decides the height of the diaphragm and of the table.
    """
    diaphragm, table = rng.uniform(-95, -75), body.back + rng.uniform(2, 6)
    z, y, x = canvas.axes
    y2d = y[:, None] - np.float32(body.center_y)
    v2 = (y2d / np.float32(body.half_depth)) ** 2
    couch = y[:, None] - np.float32(table) + (x[None, :] / 55) ** 2
    tissue = body.tissue
    flat = (np.abs(x)[None, :] < 205) & tissue.couch
    for k, height in enumerate(z):
        box = (slice(k, k + 1), slice(0, y.size), slice(0, x.size))
        lumps, grain = canvas.lumps.at(box)[0], canvas.grain.at(box)[0]
        width = body.half_width * (1 - 0.0002 * min(abs(float(height)), 300))
        u2 = ((x / np.float32(width)) ** 2)[None, :]
        r = np.sqrt(np.sqrt(u2 * u2 + v2 * v2 + np.float32(1.5) * u2 * v2))
        depth = (1 - r) * np.float32(body.half_depth)
        wall = body.fat + (2 + lumps)
        plane = canvas.hu[k]
        plane[flat & (couch > 0) & (couch < 40)] = -920
        plane[flat & ((np.abs(couch - 1.5) < 1.5) | (np.abs(couch - 40) < 1.5))] = 0
        skin = depth > 0
        plane[skin] = 0
        fat = depth > 2.5
        plane[fat] = (-102 + tissue.fat_hu + 7 * grain)[fat]
        muscle = depth > wall
        plane[muscle] = (60 + tissue.muscle_hu + 9 * grain)[muscle]
        cavity = depth > wall + body.muscle
        plane[cavity] = (-97 + tissue.fat_hu + 9 * grain)[cavity]
        lean = cavity & (lumps < tissue.lean)
        plane[lean] = (tissue.lean_hu + 9 * grain)[lean]
        lung = cavity & (height < diaphragm + 70 * (r * r - 0.9)) & (np.abs(x)[None, :] > 28)
        plane[lung] = (-840 + 40 * grain)[lung]
        canvas.cavity[k] = cavity & ~lung


def paint_bones(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint psoas and back muscles, the spine, the ribs and the wings of the pelvis.

    Parameters
    ----------
    canvas
        Painted in place.
    body
        Size of the trunk.
    rng
        Decides the size and HU of muscles and vertebrae, and where the discs are.
    """
    muscle, marrow, size = rng.uniform(52, 66), rng.uniform(140, 190), rng.uniform(0.92, 1.08)
    muscle, bone = muscle + body.tissue.muscle_hu, body.tissue.bone
    for side in (-1, 1):
        psoas = [(-55.0, 8.0, side * 27.0), (0.0, 2.0, side * 34.0), (160.0, -12.0, side * 52.0)]
        canvas.tube(psoas, (7 * size, 27 * size), Texture(muscle, 8))
        for y, x, ry, rx in ((body.back - body.fat - 27, 27, 25, 27), (26, 60, 13, 22)):
            canvas.column((y, side * x), (ry, rx), Texture(muscle, 12))
        _paint_ribs(canvas, body, side)
        for k in range(5):
            wing = [(95.0 + 8 * k, 40.0 - 22 * k, side * 75.0 + side * 9 * k)]
            wing.append((210.0, 20.0 - 12 * k, side * (52.0 + 9 * k)))
            canvas.tube(wing, 7, Texture(330 * bone, 80))
    _paint_spine(canvas, size, Texture(marrow * bone, 28), bone, rng)


def _paint_spine(
    canvas: Canvas, size: float, marrow: Texture, bone: float, rng: np.random.Generator
) -> None:
    top, bottom = float(canvas.axes[0][0]), float(canvas.axes[0][-1]) + 1
    step, start = VERTEBRA_MM + DISC_MM, rng.uniform(-17, 17)
    ry, rx = 17 * size, 23 * size
    canvas.column((0, 0), (ry, rx), Texture(80))
    for k in range(math.floor((top - start) / step), math.ceil((bottom - start) / step)):
        z0 = start + k * step
        z1, mid = z0 + VERTEBRA_MM, z0 + VERTEBRA_MM / 2
        canvas.column((0, 0), (ry, rx), Texture(420 * bone, 60), z_range=(z0, z1))
        inner = (z0 + 2, z1 - 2)
        canvas.column((0, 0), (ry - 2.5, rx - 2.5), marrow, z_range=inner)
        for side in (-1, 1):
            canvas.tube([(mid, 16, side * 14), (mid, 28, side * 17)], 5, Texture(380 * bone, 60))
            canvas.tube([(mid, 24, side * 15), (mid, 24, side * 42)], 3.5, Texture(300 * bone, 60))
            canvas.tube([(mid, 28, side * 17), (mid + 8, 42, 0)], 4, Texture(400 * bone, 60))
        canvas.tube([(mid + 6, 42, 0), (mid + 14, 70, 0)], 4.5, Texture(330 * bone, 60))
    canvas.column((27, 0), (8, 10), Texture(25))


def _paint_ribs(canvas: Canvas, body: Body, side: int) -> None:
    top = float(canvas.axes[0][0])
    inset = 1 - (body.fat + 2 + 0.5 * body.muscle) / body.half_depth
    for k in range(max(0, math.ceil((-25 - top) / RIB_STEP_MM)) + 3):
        reach_deg = min(55 + 25 * k, 150)  # the lowest ribs are short
        points = []
        for angle in range(16, reach_deg, 12):
            sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            squared = sin**4 + cos**4 + 1.5 * sin**2 * cos**2
            r = inset / math.sqrt(math.sqrt(squared))
            y = body.center_y + r * cos * body.half_depth
            points.append(
                (-40 - RIB_STEP_MM * k + 0.75 * angle, y, side * r * sin * body.half_width)
            )
        canvas.tube(points, 5.5, Texture(420 * body.tissue.bone, 60))
        canvas.tube(points, 3, Texture(170 * body.tissue.bone, 40))
