"""The organs around the kidneys, and what looks like a kidney or a tumor but is none.

Positions are as in `tunet_lib.phantom.trunk`.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunet_lib.phantom.canvas import Canvas, Point, Texture
from tunet_lib.phantom.trunk import Body


@dataclass(frozen=True)
class Enhancement:
    """HU that depend on the time since the contrast agent was given: one an organ.

    `urine` is added to what the renal pelvis has without contrast agent, `tumor` is drawn for
    each tumor if None, and `spots` scales how much brighter parts of a tumor are.
    """

    cortex: float
    medulla: float
    aorta: float
    vein: float
    liver: float
    spleen: float
    bowel: float
    urine: float = 0.0
    tumor: float | None = None
    spots: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Enhancement:
        """Draw a patient between the late (0) and the early arterial phase (1)."""
        early = rng.uniform(0, 1)
        cortex = float(np.clip(rng.normal(150 + 60 * early, 42), 80, 280))
        return cls(
            cortex=cortex,
            medulla=cortex - (0.3 + 0.65 * early) * (cortex - 45),
            aorta=rng.uniform(150, 190) + 70 * early,
            vein=rng.uniform(120, 150) - 40 * early,
            liver=rng.normal(118, 12) - 28 * early,
            spleen=rng.normal(118, 14),
            bowel=rng.uniform(70, 115),
        )


@dataclass(frozen=True)
class Patient:
    """What a patient is like, but for the shape of the kidneys.

    Parameters
    ----------
    body
        The trunk.
    enhancement
        HU of the organs.
    hilum
        Where the renal vessels end: (z, y, x) in mm, one point a kidney.
    whole
        Whether there is more than an abdomen: heart, bladder, hips, and maybe arms.
    """

    body: Body
    enhancement: Enhancement
    hilum: list[Point]
    whole: bool = False


def paint_organs(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint bowel, stomach, pancreas, liver, gallbladder and spleen into the cavity.

    Parameters
    ----------
    canvas
        Painted in place.
    patient
        How wide, how bright.
    rng
        Source of the shapes' variation.
    """
    a, front, hu = patient.body.half_width, patient.body.front, patient.enhancement
    for _ in range(rng.integers(*patient.body.tissue.loops)):
        _paint_loop(canvas, patient, rng)
    heights = [float(z) for z in range(-20, 181, 25)]
    for side in (-1, 1):
        y, x = rng.uniform(-35, -10), side * rng.uniform(0.6, 0.68) * a
        colon = [(z, y + rng.uniform(-8, 8), x + rng.uniform(-6, 6)) for z in heights]
        _paint_bowel(canvas, colon, rng.uniform(17, 25), rng.uniform(0, 50), hu.bowel, rng)
    for center, radii, texture, turn_deg in _organs(patient, rng):
        canvas.ellipsoid(center, radii, texture, rough=0.14, turn_deg=turn_deg)
    gas = (rng.uniform(-90, -65), -0.64 * front, rng.uniform(0.22, 0.38) * a)
    radii = (rng.uniform(12, 32), rng.uniform(6, 14), rng.uniform(0.08, 0.2) * a)
    canvas.ellipsoid(gas, radii, Texture(-850, 20), rough=0.3)
    for _ in range(9):
        start = (rng.uniform(-90, -10), rng.uniform(-0.5, 0) * front, -rng.uniform(0.35, 0.5) * a)
        z, y, x = (p + rng.uniform(-45, 45) for p in start)
        vessel = Texture(rng.choice([hu.vein, hu.aorta * 0.8]) + 15)
        canvas.tube([start, (z, y, x)], (4, 1.5), vessel, cavity=True)
    for _ in range(rng.poisson(0.8)):
        center = (rng.uniform(-90, 0), rng.uniform(-0.5, 0.05) * front, -rng.uniform(0.3, 0.65) * a)
        r = rng.uniform(5, 22)
        canvas.ellipsoid(center, (r, r, r * 1.1), Texture(rng.uniform(5, 90), 9), rough=0.1)


def _organs(
    patient: Patient, rng: np.random.Generator
) -> list[tuple[Point, Point, Texture, float]]:
    """Give center, radii, texture and turn of each."""
    a, front, hu = patient.body.half_width, patient.body.front, patient.enhancement
    j, low = rng.uniform(-8, 8, 6), rng.uniform(-25, 15)  # how far down the right lobe reaches
    food, bile = Texture(rng.uniform(15, 60), 12), Texture(rng.uniform(2, 22), 3)
    liver, right_lobe = Texture(hu.liver, 6), (70 + low, 0.62 * front, 0.43 * a)
    return [
        ((-80 + j[0], -0.55 * front, 0.32 * a), (42, 0.3 * front, 0.3 * a), food, 20),
        ((-35 + j[1], -48, 15 + j[1]), (14, 13, 62), Texture(0.8 * hu.liver + 12, 14), 15),
        ((-50 + j[2], -0.28 * front, -0.5 * a), right_lobe, liver, 12),
        ((-78 + j[3], -0.58 * front, -0.08 * a), (45, 0.3 * front, 0.42 * a), liver, -8),
        ((-12 + j[4], -0.55 * front, -0.36 * a), (26, 17, 14), bile, 30),
        ((-62 + j[5], 4, 0.66 * a), (rng.uniform(42, 62), 52, 24), Texture(hu.spleen, 8), -28),
    ]


def _paint_loop(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    low = np.array([-45, -0.85 * patient.body.front, -0.6 * patient.body.half_width])
    bottom = float(np.clip(canvas.axes[0][-1], 0, 190))
    high = np.array([bottom, -38, 0.6 * patient.body.half_width])
    point, heading = rng.uniform(low, high), rng.standard_normal(3)
    points = []
    for _ in range(rng.integers(4, 9)):
        points.append((float(point[0]), float(point[1]), float(point[2])))
        heading = 0.6 * heading + 0.6 * rng.standard_normal(3)
        point = np.clip(point + 20 * heading, low, high)
    kinds = [rng.uniform(5, 40), rng.uniform(40, 110), rng.uniform(120, 300)]
    content_hu = float(rng.choice(kinds, p=[0.5, 0.4, 0.1]))
    radius, wall_hu = rng.uniform(9, 17), patient.enhancement.bowel
    _paint_bowel(canvas, points, radius, content_hu, wall_hu, rng)


def _paint_bowel(
    canvas: Canvas,
    points: list[Point],
    radius: float,
    content_hu: float,
    wall_hu: float,
    rng: np.random.Generator,
) -> None:
    canvas.tube(points, radius, Texture(wall_hu, 12), cavity=True)
    canvas.tube(points, radius - rng.uniform(2.5, 4), Texture(content_hu, 25), cavity=True)
    if rng.random() < 0.45:  # gas rises: toward the front of a patient who lies on the back
        gas = [(z, y - 0.4 * radius, x) for z, y, x in points[rng.integers(0, 3) :][:4]]
        canvas.tube(gas, 0.5 * radius, Texture(-850, 40), cavity=True)


def paint_vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint renal pelvis and vessels, aorta, vena cava and their forks.

    Parameters
    ----------
    canvas
        Painted in place.
    patient
        Where the kidneys are, how bright the vessels.
    rng
        Source of the shapes' variation.
    """
    aorta, vein = Texture(patient.enhancement.aorta), Texture(patient.enhancement.vein)
    urine = patient.enhancement.urine
    for point in patient.hilum:
        r = rng.uniform(3, 8)
        canvas.ellipsoid(point, (1.6 * r, r, r), Texture(rng.uniform(0, 20) + urine), cavity=False)
    fork, wall = rng.uniform(70, 100), rng.uniform(9, 13)
    for z, y, x in patient.hilum:
        canvas.tube([(-6, -28, 2), (z - 4, y - 10, 0.6 * x), (z, y, x)], 5, vein)
        canvas.tube([(-10, -26, 6), (z - 8, y - 4, 0.6 * x), (z, y, x)], 3, aorta)
    canvas.tube([(-450, -30, 8), (fork, -30, 7)], wall, aorta)
    canvas.tube([(-450, -34, -22), (fork + 8, -28, -18)], wall + 1, vein)
    for side in (-1, 1):
        leg = [(fork, -30.0, 4.0 * side), (fork + 70, -20.0, 42.0 * side)]
        leg.append((330.0, -75.0, 70.0 * side))
        canvas.tube(leg, 7, aorta)
        canvas.tube([(z + 8, y + 13, x - 4) for z, y, x in leg], 8, vein)


def paint_beyond(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint what lies above, below and beside the abdomen: heart, bladder, hips, arms.

    Parameters
    ----------
    canvas
        Painted in place.
    patient
        How wide, how bright.
    rng
        Source of the shapes' variation; decides whether the arms lie beside the trunk.
    """
    body, hu = patient.body, patient.enhancement
    top, r = rng.uniform(-215, -185), rng.uniform(45, 60)
    heart = (top, -0.45 * body.front, rng.uniform(5, 30))
    canvas.ellipsoid(heart, (r + 10, r, 1.2 * r), Texture(45 + body.tissue.muscle_hu, 8), rough=0.1)
    blood = Texture((hu.aorta + hu.vein) / 2, 8)
    canvas.ellipsoid(heart, (0.8 * r, 0.75 * r, 0.9 * r), blood, rough=0.2, cavity=False)
    r, bladder = rng.uniform(20, 50), Texture(rng.uniform(0, 15) + 0.5 * hu.urine, 4)
    canvas.ellipsoid((rng.uniform(265, 290), -40, 0), (0.8 * r, r, 1.2 * r), bladder, rough=0.1)
    bone, marrow = Texture(480 * body.tissue.bone, 60), Texture(230 * body.tissue.bone, 40)
    for side in (-1, 1):
        hip = (300.0, -25.0, 88.0 * side)
        canvas.ellipsoid(hip, (32, 34, 34), bone, cavity=False)
        canvas.ellipsoid(hip, (24, 24, 24), marrow, cavity=False)
    if rng.random() < 0.2:
        y, r = rng.uniform(-50, 20), rng.uniform(32, 48)
        muscle = Texture(55 + body.tissue.muscle_hu, 9)
        for side in (-1, 1):
            x = side * (body.half_width + r + rng.uniform(3, 25))
            layers = (r, Texture(-100 + body.tissue.fat_hu, 7)), (0.8 * r, muscle), (11, bone)
            for radius, texture in layers:
                canvas.column((y, x), (radius, radius), texture)


def paint_look_alikes(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint what looks like a small tumor: adrenals, lymph nodes, nodules of the mesentery.

    Parameters
    ----------
    canvas
        Painted in place.
    patient
        How bright the spleen is, and so its splenules.
    rng
        Source of the shapes' variation.
    """
    for side in (-1, 1):
        top = (-72 + rng.uniform(-10, 10), -12 + rng.uniform(-6, 6), 38 * side)
        for dy, dx in ((12, 8), (14, -6)):
            canvas.tube([top, (top[0] + 10, top[1] + dy, top[2] + dx)], 3, Texture(85))
        if rng.random() < 0.3:
            r, texture = rng.uniform(6, 16), Texture(rng.uniform(0, 110), 8)
            canvas.ellipsoid(top, (r, r, r), texture, rough=0.1, cavity=False)
    for _ in range(rng.poisson(5)):
        center = (rng.uniform(-70, 120), rng.uniform(-45, -18), rng.uniform(-40, 42))
        r, texture = rng.uniform(3, 10), Texture(rng.uniform(50, 120), 6)
        canvas.ellipsoid(center, (1.3 * r, r, r), texture, rough=0.1)
    for _ in range(rng.poisson(1.2)):  # splenules, implants, cysts of the mesentery
        center = (rng.uniform(-80, 130), rng.uniform(-90, 10), rng.uniform(-110, 110))
        r = rng.uniform(5, 20)
        hu = float(rng.choice([patient.enhancement.spleen, rng.uniform(10, 110)]))
        canvas.ellipsoid(center, (r, r, r), Texture(hu, 8), rough=0.15)
