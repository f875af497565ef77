"""From a seed to a phantom, and from a label map to a simulated CT.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.phantom import wide
from tunet_lib.phantom.anatomy import (
    Enhancement,
    Patient,
    paint_beyond,
    paint_look_alikes,
    paint_organs,
    paint_vessels,
)
from tunet_lib.phantom.canvas import Canvas, Point
from tunet_lib.phantom.kidneys import Kidneys, Sphere, draw_cysts, draw_kidneys, kidney_centers
from tunet_lib.phantom.scanner import add_noise, blur
from tunet_lib.phantom.trunk import Body, paint_bones, paint_trunk

Looks: TypeAlias = Literal["portal", "wide"]


def make_phantom(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (64, 128, 128),
    spacing_mm: Point | None = None,
    *,
    looks: Looks = "portal",
) -> tuple[np.ndarray, np.ndarray, Point]:
    """Make one synthetic CT of an abdomen.

    Parameters
    ----------
    rng
        Decides everything: the same state gives the same voxels.
    shape
        Voxels (z, y, x), slices first, orientation IPL.
    spacing_mm
        Voxel size (z, y, x); drawn if None: a field of view of 320-430 mm in plane, and a
        height of 180-336 mm with slices 0.5-5 mm apart.
    looks
        ``"portal"``: those of KiTS19, contrast-enhanced, with two kidneys and at least one
        tumor, as far as they lie in the field of view. ``"wide"``: any
        (`tunet_lib.phantom.wide`), with two kidneys, one or none, and maybe a tumor; if
        `spacing_mm` is None, a field of view of 250-500 mm, and a height of 50-500 mm.

    Returns
    -------
    volume_hu : numpy.ndarray
        (z, y, x) int16 in HU, -1024 to 3071.
    label : numpy.ndarray
        (z, y, x) uint8: 0 background, 1 kidney and its cysts, 2 tumor. As in KiTS19, the
        fat of the renal sinus is background.
    spacing_mm : tuple of float
        Voxel size (z, y, x).

    Raises
    ------
    ValueError
        There are no such looks.
    """
    if looks not in get_args(Looks):
        known = ", ".join(get_args(Looks))
        raise ValueError(f"looks is {looks!r}; choose one of {known}")
    if spacing_mm is not None:
        z_mm, y_mm, x_mm = map(float, spacing_mm)
        spacing_mm = z_mm, y_mm, x_mm
    if looks == "wide":
        return make_wide_phantom(rng, shape, spacing_mm)
    if spacing_mm is None:
        pixel_mm = round(rng.uniform(320, 430) / max(shape[1:]), 4)
        slice_mm = float(np.clip(rng.uniform(180, 336) / shape[0], 0.5, 5))
        spacing_mm = (round(slice_mm, 4), pixel_mm, pixel_mm)
    extent = [n * s for n, s in zip(shape, spacing_mm, strict=True)]
    body = Body.draw(extent[2], rng)
    origin = (
        extent[0] * rng.uniform(0.48, 0.56),
        extent[1] / 2 - body.center_y + rng.uniform(-15, 5),
        extent[2] / 2 + rng.uniform(-8, 8),
    )
    canvas = Canvas(rng, shape, spacing_mm, origin_mm=origin)
    label, cysts = draw_kidneys(canvas, body, rng)
    paint_patient(canvas, Patient(body, Enhancement.draw(rng), []), label, cysts=cysts, rng=rng)
    label[(label == 1) & (canvas.hu < -30)] = 0  # KiTS19 leaves out fat at the hilum
    noisy_hu = add_noise(canvas.hu, spacing_mm, rng)
    return noisy_hu, label, spacing_mm


def make_wide_phantom(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Point | None
) -> tuple[np.ndarray, np.ndarray, Point]:
    """Make a CT of any look: another patient, pose and scanner each time.

    Parameters
    ----------
    rng, shape, spacing_mm
        As for `make_phantom`; without `spacing_mm` one that suits the body is drawn.

    Returns
    -------
    volume_hu, label, spacing_mm
        As `make_phantom` gives them.
    """
    body, pose, scanner = wide.draw_body(rng), wide.Pose.draw(rng), wide.Scanner.draw(rng)
    spacing_mm = spacing_mm or wide.draw_spacing(body, shape, rng)
    height, width = (math.ceil(n * wide.MARGIN) for n in shape[1:])
    painted = shape[0], height, width
    extent = [n * s for n, s in zip(painted, spacing_mm, strict=True)]
    # Low CTs may miss a part of the kidneys, tall ones show the chest or the pelvis.
    origin = extent[0] * rng.uniform(0.3, 0.7), extent[1] / 2 - body.center_y, extent[2] / 2
    canvas = Canvas(rng, painted, spacing_mm, origin_mm=origin)
    label, cysts = draw_kidneys(canvas, body, rng, traits=wide.draw_traits(rng))
    patient = Patient(body, wide.draw_enhancement(rng), [], whole=True)
    paint_patient(canvas, patient, label, cysts=cysts, rng=rng)
    label[(label == 1) & (canvas.hu < -30)] = 0
    hu, label = pose.place((canvas.hu, label), shape, rng, spacing_mm=spacing_mm)
    return scanner.scan(hu, label, rng, spacing_mm=spacing_mm), label, spacing_mm


def simulate_ct(
    labels: np.ndarray,
    spacing_mm: Point,
    rng: np.random.Generator,
) -> np.ndarray:
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
    body, origin = _place_body(labels, spacing_mm, rng)
    canvas = Canvas(rng, (z, y, x), spacing_mm, origin_mm=origin)
    cysts = draw_cysts(labels, canvas, rng)
    paint_patient(canvas, Patient(body, Enhancement.draw(rng), []), labels, cysts=cysts, rng=rng)
    return add_noise(canvas.hu, spacing_mm, rng)


def _place_body(
    labels: np.ndarray, spacing_mm: Point, rng: np.random.Generator
) -> tuple[Body, Point]:
    """Find where the spine must be, and make the trunk wide enough for the labels."""
    extent = [n * s for n, s in zip(labels.shape, spacing_mm, strict=True)]
    body = Body.draw(extent[2], rng)
    centers = kidney_centers(labels, spacing_mm)
    if not centers:
        return body, (extent[0] / 2, extent[1] / 2 - body.center_y, extent[2] / 2)
    z, y, x = (sum(c[axis] for c in centers) / len(centers) for axis in range(3))
    if len(centers) == 1:  # the other kidney would be on the other side of the image
        offset = x - extent[2] / 2
        x -= math.copysign(68, offset) if abs(offset) > 30 else 0
    origin = (z, y + 12, x)
    _, rows, columns = box_of(labels > 0)
    body = replace(
        body,
        half_width=max(
            body.half_width,
            x + 25 - columns.start * spacing_mm[2],
            columns.stop * spacing_mm[2] + 25 - x,
        ),
        front=max(body.front, origin[1] + 25 - rows.start * spacing_mm[1]),
        back=max(body.back, rows.stop * spacing_mm[1] + 25 - origin[1]),
    )
    return body, origin


def paint_patient(
    canvas: Canvas,
    patient: Patient,
    label: np.ndarray,
    *,
    cysts: list[Sphere],
    rng: np.random.Generator,
) -> None:
    """Paint a patient around and into a label map, without noise.

    Parameters
    ----------
    canvas
        Its ``hu`` (z, y, x), in HU, is painted on.
    patient
        The body and its enhancement; the hila are found in `label`.
    label
        (z, y, x) of the canvas: 0 background, 1 kidney, 2 tumor.
    cysts
        Where the kidneys hold fluid, in mm.
    rng
        Decides what the patient leaves open.
    """
    centers = kidney_centers(label, canvas.spacing_mm)
    first = [float(axis[0]) for axis in canvas.axes]
    hilum = [(z + first[0], y + first[1] - 4, 0.85 * (x + first[2])) for z, y, x in centers]
    patient = replace(patient, hilum=hilum)
    body = patient.body
    kidneys = Kidneys.measure(label, cysts, canvas.spacing_mm)
    paint_trunk(canvas, body, rng)
    paint_organs(canvas, patient, rng)
    if kidneys is not None:
        kidneys.paint_fat(canvas, body.tissue, rng)
    if patient.whole:
        paint_beyond(canvas, patient, rng)
    paint_bones(canvas, body, rng)
    paint_vessels(canvas, patient, rng)
    paint_look_alikes(canvas, patient, rng)
    if kidneys is not None:
        kidneys.paint(canvas, patient.enhancement, rng)
    blur(canvas.hu)
