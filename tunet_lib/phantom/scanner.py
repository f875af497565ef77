"""What a CT scanner does to a painted patient: blur and correlated noise.

Chapter 01 (notebooks/01_kits19.ipynb).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from tunet_lib.phantom.canvas import Point

BLUR = 0.2  # weight of a neighbor beside the voxel's own 1: partial volume
NOISE_LAG1 = (0.25, 0.4, 0.5)  # correlation of neighbors at NOISE_SPACING_MM
NOISE_SPACING_MM = (3.0, 0.8, 0.8)  # of the real scans in which the noise was measured


def blur(hu: np.ndarray) -> None:
    """Mix each voxel with its neighbors: partial volume at every boundary.

    Parameters
    ----------
    hu
        (z, y, x) float32 in HU; changed in place. A constant stays as it is.
    """
    for plane, mixed in zip(hu, _filtered(iter(hu), [BLUR] * 3), strict=True):
        plane[:] = mixed / (1 + 2 * BLUR) ** 3


def add_noise(
    hu: np.ndarray,
    spacing_mm: Point,
    rng: np.random.Generator,
    *,
    sd_hu: float | None = None,
    reach: float = 1.0,
) -> np.ndarray:
    """Add noise of one SD to a CT, with the SD and the correlation seen in real scans.

    Parameters
    ----------
    hu
        (z, y, x) float32 in HU.
    spacing_mm
        Voxel size (z, y, x): the smaller, the more noise (`noise_scale`), and the more alike
        are neighbors.
    rng
        Decides the noise, and its SD where that is not given.
    sd_hu
        SD in voxels of 3 x 0.8 x 0.8 mm; 19-26 if None.
    reach
        Factor of the length over which the noise is correlated. Neighbors are never more alike
        than by a correlation of 0.7, and beyond two voxels there is none. Of a single slice the
        SD is a fifth larger.

    Returns
    -------
    numpy.ndarray
        (z, y, x) int16 in HU, -1024 to 3071.
    """
    if sd_hu is None:
        sd_hu = rng.uniform(19, 26)  # measured in the liver
    sd = sd_hu * noise_scale(spacing_mm, reach)
    side, power = [], 1.0
    for rho, step, reference in zip(NOISE_LAG1, spacing_mm, NOISE_SPACING_MM, strict=True):
        # 0.707 is the most that three taps can give.
        rho = min(rho ** (step / reference / reach), 0.7)
        weight = (1 - math.sqrt(1 - 2 * rho * rho)) / (2 * rho)
        side.append(weight)
        power *= 1 + 2 * weight * weight
    out = np.empty(hu.shape, np.int16)
    white = (rng.standard_normal(hu.shape[1:], dtype=np.float32) for _ in range(len(hu)))
    for k, plane in enumerate(_filtered(white, side)):
        noisy = hu[k] + plane * np.float32(sd / math.sqrt(power))
        out[k] = np.clip(np.rint(noisy), -1024, 3071)
    return out


def noise_scale(spacing_mm: Point, reach: float = 1.0) -> float:
    """Give the SD of noise in voxels of a size, in units of that at `NOISE_SPACING_MM`.

    A voxel shows the mean over its extent. Along each axis, noise whose correlation falls off
    as exp(-distance / tau) leaves a mean over the length L the variance 2 / a^2 * (a - 1 +
    exp(-a)), with a = L / tau. `NOISE_LAG1` gives tau.

    Parameters
    ----------
    spacing_mm
        Voxel size (z, y, x).
    reach
        Factor of tau.

    Returns
    -------
    float
        1 at `NOISE_SPACING_MM`, less for larger voxels, more for smaller ones.

    Examples
    --------
    >>> round(noise_scale((4, 2.9, 2.9)), 2)
    0.56
    """
    variance = 1.0
    for rho, step, reference in zip(NOISE_LAG1, spacing_mm, NOISE_SPACING_MM, strict=True):
        a_reference = -math.log(rho) / reach  # tau is reference / a_reference
        a = a_reference * step / reference
        variance *= _variance_of_mean(a) / _variance_of_mean(a_reference)
    return math.sqrt(variance)


def _variance_of_mean(a: float) -> float:
    return 2 / a**2 * (a + math.expm1(-a))


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
