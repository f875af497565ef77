"""Phantoms of any look: what is drawn of patient, contrast phase, scanner and pose.

A network that has seen anatomy in every look, plausible or not, segments CTs of looks that it
has never seen: the idea of SynthSeg (Billot et al. 2023). The shapes are painted as for all
phantoms; all that a look consists of is drawn here, far wider than in any one hospital.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tunet_lib.phantom.anatomy import Enhancement
from tunet_lib.phantom.canvas import Point, SmoothField
from tunet_lib.phantom.kidneys import Traits
from tunet_lib.phantom.scanner import add_noise
from tunet_lib.phantom.trunk import Body, Tissue

MARGIN = 1.3  # what is painted is this much wider than the CT, so that it can be turned
# HU without contrast agent, then arterial, portal, nephrographic, excretory.
PHASES = {
    "cortex": (35, 185, 180, 165, 130),
    "medulla": (33, 65, 125, 155, 125),
    "aorta": (42, 300, 165, 140, 110),
    "vein": (42, 80, 155, 140, 110),
    "liver": (57, 68, 112, 105, 90),
    "spleen": (48, 110, 118, 110, 90),
    "bowel": (38, 75, 95, 85, 75),
    "urine": (0, 0, 0, 30, 700),
}


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a patient from slight to obese, with hardly any fat to much."""
    fatness = rng.uniform(0, 1)
    half_width = 122 + 65 * fatness + rng.uniform(0, 28)
    fat = 3 + (0.18 * half_width - 3) * fatness * rng.uniform(0.3, 1)
    back = rng.uniform(66, 82) + fat
    front = max(2 * half_width * rng.uniform(0.62, 0.84) - back, 85 + fat)
    inner = float(np.clip(fatness + rng.normal(0, 0.25), 0, 1))  # fat among the organs
    tissue = Tissue(
        fat_hu=rng.uniform(-18, 22),
        muscle_hu=rng.uniform(-28, 20),
        bone=rng.uniform(0.5, 1.4),
        lean=0.8 - 3.5 * inner,
        lean_hu=rng.uniform(5, 60),
        loops=(30, 60) if inner < 0.4 else (12, 36),
        perirenal_mm=(0.5 + 6 * inner, 4 + 24 * inner),
        couch=bool(rng.random() < 0.6),
    )
    return Body(half_width, front, back, fat=fat, muscle=rng.uniform(6, 18), tissue=tissue)


def draw_enhancement(rng: np.random.Generator) -> Enhancement:
    """Draw a contrast phase, and each organ's HU about it; 25 % are without contrast agent."""
    phase, dose = rng.uniform(1, 4) * (rng.random() > 0.25), rng.uniform(0.5, 1.5)
    hu: dict[str, float] = {}
    for organ, course in PHASES.items():
        more = float(np.interp(phase, range(5), course)) - course[0]
        own = course[0] + (rng.normal(0, 8) if organ != "urine" else 0)
        hu[organ] = own + dose * math.exp(rng.normal(0, 0.25)) * more
    kidney, plain = (hu["cortex"] + hu["medulla"]) / 2, PHASES["cortex"][0]
    enhanced = max(kidney - plain, 0)
    tumor = rng.uniform(12, 58) + rng.uniform(0, 1.35) * enhanced
    return Enhancement(**hu, tumor=tumor, spots=min(0.15 + enhanced / 100, 1))


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw kidneys: 10 % have one, 3 % none; a quarter of all patients have no tumor."""
    count = rng.choice([0, 1, 2], p=[0.03, 0.1, 0.87])
    one = int(rng.choice([-1, 1]))
    sides: tuple[int, ...] = ((), (one,), (-1, 1))[count]
    without = 0.22 / 0.97  # of those who have a kidney
    p = np.array([without, *(1 - without) * np.array([0.6, 0.2, 0.12, 0.08])])
    scale = rng.uniform(0.6, 1.4)
    return Traits(
        sides=sides,
        scale=scale,
        shift_mm=(rng.normal(0, 10), rng.normal(0, 5), rng.normal(0, 4) + 22 * (scale - 1)),
        cyst_scale=math.exp(rng.uniform(-0.4, 0.6)),
        tumors=int(rng.choice([0, 1, 2, 3, 5], p=p)),
    )


def draw_spacing(body: Body, shape: tuple[int, int, int], rng: np.random.Generator) -> Point:
    """Draw a voxel size (z, y, x) in mm.

    Parameters
    ----------
    body
        The field of view, 250-500 mm, is about as wide: it may cut the trunk.
    shape
        Voxels (z, y, x). The slices, 0.5-5 mm apart, cover part of the kidneys, an abdomen,
        or all from the chest to the hips, as far as so many can.
    rng
        Decides.

    Returns
    -------
    tuple of float
        (z, y, x) in mm.
    """
    fov_mm = float(np.clip(2 * body.half_width * rng.uniform(0.88, 1.35), 250, 500))
    heights = rng.uniform(50, 160), rng.uniform(160, 340), rng.uniform(340, 500)
    slice_mm = float(np.clip(rng.choice(heights, p=[0.15, 0.6, 0.25]) / shape[0], 0.5, 5))
    pixel_mm = round(fov_mm / max(shape[1:]), 4)
    return round(slice_mm, 4), pixel_mm, pixel_mm


@dataclass(frozen=True)
class Pose:
    """How a patient lies in the scanner.

    Parameters
    ----------
    turn_deg
        Turns the patient in the axial plane.
    shift_mm
        Where the middle of the CT is (y, x), from that of what was painted.
    bend_mm
        SD by which each place moves in the axial plane, alike within 70 mm.
    """

    turn_deg: float
    shift_mm: tuple[float, float]
    bend_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Pose:
        """Draw a turn of up to 15 degrees; 4 % lie prone, and their file does not tell."""
        turn = rng.uniform(-15, 15) + 180 * (rng.random() < 0.04)
        return cls(turn, (rng.uniform(-12, 12), rng.uniform(-18, 18)), rng.uniform(0, 4.5))

    def place(
        self,
        painted: tuple[np.ndarray, np.ndarray],
        shape: tuple[int, int, int],
        rng: np.random.Generator,
        *,
        spacing_mm: Point,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn, shift and bend what was painted, and cut it to the CT.

        Parameters
        ----------
        painted
            HU, float32, and labels, uint8, (z, y, x), at least as large as the CT.
        shape
            Voxels (z, y, x) of the CT, with as many slices as were painted.
        rng
            Decides the bends.
        spacing_mm
            Voxel size (z, y, x) of both.

        Returns
        -------
        hu, label : numpy.ndarray
            In the shape of the CT, types as painted; HU are interpolated.
        """
        cos, sin = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        grid = np.indices(shape[1:], np.float32) - (np.reshape(shape[1:], (2, 1, 1)) - 1) / 2
        turned = np.stack([cos * grid[0] - sin * grid[1], sin * grid[0] + cos * grid[1]])
        middle = (np.array(painted[0].shape[1:]) - 1) / 2 + np.divide(self.shift_mm, spacing_mm[1:])
        turned += middle.reshape(2, 1, 1)
        steps = [step / 70 for step in spacing_mm]
        bends = [SmoothField(rng, shape, steps) for _ in range(2)]
        hu, label = (np.empty(shape, array.dtype) for array in painted)
        for k in range(shape[0]):
            box = slice(k, k + 1), slice(0, shape[1]), slice(0, shape[2])
            moved = np.stack([bend.at(box)[0] for bend in bends]) * self.bend_mm
            at = turned + moved / np.reshape(spacing_mm[1:], (2, 1, 1))
            ndimage.map_coordinates(painted[0][k], at, hu[k], order=1, mode="nearest")
            ndimage.map_coordinates(painted[1][k], at, label[k], order=0, mode="nearest")
        return hu, label


@dataclass(frozen=True)
class Scanner:
    """What a scanner makes of a patient; SDs in HU, those of the blur in voxels.

    Parameters
    ----------
    noise_sd_hu, noise_reach
        As in `add_noise`.
    blur_sd
        Between slices, and in plane.
    sharpness
        How much of the difference from a smooth image is added, as by a sharp kernel.
    gain, shift_hu, drift_hu
        HU are multiplied by a gain, and shifted everywhere alike and from place to place.
    is_round
        Whether the field of view is a circle, with air around it.
    """

    noise_sd_hu: float
    noise_reach: float
    blur_sd: tuple[float, float]
    sharpness: float
    gain: float
    shift_hu: float
    drift_hu: float
    is_round: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scanner:
        """Draw a scanner: noise of 4-45 HU, a smooth kernel or a sharp one."""
        is_sharp = rng.random() < 0.35
        return cls(
            noise_sd_hu=math.exp(rng.uniform(math.log(4), math.log(45))),
            noise_reach=math.exp(rng.uniform(math.log(0.5), math.log(4))),
            blur_sd=(0.0, 0.0) if is_sharp else (rng.uniform(0, 0.8), 1.5 * rng.uniform(0, 1) ** 2),
            sharpness=rng.uniform(0, 1.2) if is_sharp else 0.0,
            gain=rng.uniform(0.95, 1.05),
            shift_hu=rng.uniform(-10, 10),
            drift_hu=rng.uniform(0, 6),
            is_round=bool(rng.random() < 0.25),
        )

    def scan(
        self, hu: np.ndarray, label: np.ndarray, rng: np.random.Generator, *, spacing_mm: Point
    ) -> np.ndarray:
        """Scan a patient.

        Parameters
        ----------
        hu
            (z, y, x) float32.
        label
            (z, y, x) uint8; made 0 where the field of view ends.
        rng
            Decides drift and noise.
        spacing_mm
            Voxel size (z, y, x).

        Returns
        -------
        numpy.ndarray
            (z, y, x) int16 in HU, -1024 to 3071.
        """
        if self.sharpness:
            hu = hu + np.float32(self.sharpness) * (hu - ndimage.gaussian_filter(hu, (0, 1, 1)))
        else:
            hu = ndimage.gaussian_filter(hu, (self.blur_sd[0], *[self.blur_sd[1]] * 2))
        drift = SmoothField(rng, hu.shape, [step / 150 for step in spacing_mm])
        for k, plane in enumerate(hu):
            box = slice(k, k + 1), slice(0, hu.shape[1]), slice(0, hu.shape[2])
            plane *= np.float32(self.gain)
            plane += np.float32(self.shift_hu) + np.float32(self.drift_hu) * drift.at(box)[0]
        out = add_noise(hu, spacing_mm, rng, sd_hu=self.noise_sd_hu, reach=self.noise_reach)
        if self.is_round:
            y, x = ((2 * np.arange(size) + 1) / size - 1 for size in hu.shape[1:])
            outside = y[:, None] ** 2 + x[None, :] ** 2 > 1
            out[:, outside], label[:, outside] = -1024, 0
        return out
