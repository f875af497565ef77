"""Voxels that lie askew in the patient, brought upright, and label maps brought back.

A gantry that was tilted shears the voxels, an oblique acquisition turns them. Networks know
upright patients, and a voxel size alone says nothing of an angle; so beyond a small angle a scan
is resampled to the patient's own axes, and its label map back to the scan's own voxels.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from tunet_lib.files import DataError, DataWarning
from tunet_lib.nifti import NiftiFile, described

TILT_DEG = 2.0  # below this a patient lies as crooked on the table
AIR_HU = -1000
TIE = 1e-3  # in voxels
MOST = 32767  # voxels along an axis, as a NIfTI header counts them
GROWTH = 16  # times its own voxels for the box around it; turns of right angles take far fewer
MOST_SMALL = 1 << 20  # voxels that take no time and memory to speak of
FAR_MM = 1e6  # a kilometer: from much farther off voxels are lost in the rounding


@dataclass(frozen=True)
class UprightFile(NiftiFile):
    """An image along the patient's axes, made of one that lies askew.

    Attributes
    ----------
    source
        The image itself.
    is_label
        Whether it holds labels, of which the nearest is taken; else values, interpolated linearly.
    """

    source: NiftiFile
    is_label: bool

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Resample the image, a few planes at a time, as `NiftiFile.blocks` gives them."""
        volume = self.source.read()
        step = np.linalg.inv(self.source.affine) @ self.affine
        order, outside = (0, 0) if self.is_label else (1, AIR_HU)
        for part in self.parts():
            voxels = _resampled(volume, step, self.shape, part, order=order)
            voxels[~self._inside(step, part)] = outside
            yield part, np.asfortranarray(voxels, self.dtype)

    def back(self, label: np.ndarray) -> np.ndarray:
        """Bring a label map from the upright voxels to those of the source.

        The masks of whole and tumor are interpolated linearly and cut at 0.5, as on the way back
        from the grid.

        Parameters
        ----------
        label
            uint8 of the upright shape, 0, 1 or 2.

        Returns
        -------
        numpy.ndarray
            uint8 of the source's shape.
        """
        found = np.zeros(self.source.shape, np.uint8, order="F")
        step = np.linalg.inv(self.affine) @ self.source.affine
        masks = [(value, (label >= value).astype(np.float32)) for value in (1, 2)]
        for part in self.source.parts():
            for value, mask in masks:
                prob = _resampled(mask, step, self.source.shape, part, order=1)
                found[..., part][prob >= 0.5] = value
        return found

    def of_label(self, file: NiftiFile) -> UprightFile:
        """Describe a label map of the same source, in the same upright voxels."""
        fields = described(file.path, self.shape, self.affine, dtype=file.dtype)
        return UprightFile(**fields, source=file, is_label=True)

    def _inside(self, step: np.ndarray, part: slice) -> np.ndarray:
        """Say which upright voxels have their center within the source."""
        x, y, z = np.ogrid[: self.shape[0], : self.shape[1], part]
        inside = np.ones((1, 1, 1), bool)
        for (by_x, by_y, by_z, start), count in zip(step[:3], self.source.shape, strict=True):
            position = by_x * x + by_y * y + by_z * z + start
            inside = inside & (position >= -0.5 - TIE) & (position <= count - 0.5 + TIE)
        return inside


def tilt_deg(affine: np.ndarray) -> float:
    """Give the largest angle between an axis of voxels and the nearest axis of the patient.

    Examples
    --------
    >>> c, s = np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))
    >>> turned = np.array([[2, 0, 0, 0], [0, c, -3 * s, 0], [0, s, 3 * c, 0], [0, 0, 0, 1]])
    >>> round(tilt_deg(turned), 6)
    10.0
    """
    directions = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    nearest = np.abs(directions).max(axis=0).clip(max=1)
    return float(np.rad2deg(np.arccos(nearest)).max())


def upright(file: NiftiFile, *, is_label: bool = False) -> NiftiFile:
    """Give an image along the patient's axes: the file itself, if it lies straight.

    Parameters
    ----------
    file
        Any.
    is_label
        Whether it holds labels.

    Raises
    ------
    DataError
        The box around it would be many times as large as itself, or it lies kilometers away: no
        scanner makes such a thing.

    Warns
    -----
    DataWarning
        It lies askew, and is resampled.
    """
    angle_deg = tilt_deg(file.affine)
    if angle_deg <= TILT_DEG:
        return file
    if not is_label:
        warnings.warn(
            f"{file.path}: its voxels lie askew by {angle_deg:.0f} degrees (tilted gantry, or "
            "oblique); they are resampled to the patient's axes, and the label map back",
            DataWarning,
            stacklevel=2,
        )
    if (away_mm := np.abs(file.affine[:3, 3]).max()) > FAR_MM:
        raise DataError(
            f"{file.path}: lies askew, and {away_mm:.3g} mm from where its scanner was, too far to "
            "compute with; correct its affine"
        )
    ends = [(-0.5, count - 0.5) for count in file.shape]
    corners = nib.affines.apply_affine(file.affine, list(itertools.product(*ends)))
    low, high = corners.min(axis=0), corners.max(axis=0)
    # The distance between planes of voxels, which a shear leaves as it is.
    apart_mm = 1 / np.linalg.norm(np.linalg.inv(file.affine[:3, :3]), axis=1)
    sizes_mm = np.empty(3)
    sizes_mm[nib.io_orientation(file.affine)[:, 0].astype(int)] = apart_mm
    x, y, z = np.ceil((high - low) / sizes_mm - TIE).astype(int).tolist()
    if max(x, y, z) > MOST or x * y * z > max(GROWTH * math.prod(file.shape), MOST_SMALL):
        raise DataError(
            f"{file.path}: its axes are so far from right angles that the box around it would take "
            f"{x} x {y} x {z} voxels; correct its affine"
        )
    affine = np.diag([*sizes_mm, 1.0])
    affine[:3, 3] = (low + high - (np.array([x, y, z]) - 1) * sizes_mm) / 2
    dtype = file.dtype if is_label else np.dtype(np.float32)
    fields = described(file.path, (x, y, z), affine, dtype=dtype)
    return UprightFile(**fields, source=file, is_label=is_label)


def original(file: NiftiFile) -> NiftiFile:
    """Give the image as it was, if it was brought upright."""
    return file.source if isinstance(file, UprightFile) else file


def _resampled(
    volume: np.ndarray, step: np.ndarray, shape: tuple[int, int, int], part: slice, *, order: int
) -> np.ndarray:
    """Sample a volume at ``step @ (i, j, k, 1)`` for all i and j of a shape, and k in a part."""
    from scipy import ndimage  # most scans lie straight and do without

    return ndimage.affine_transform(
        volume,
        step[:3, :3],
        step[:3, 3] + step[:3, 2] * part.start,
        (*shape[:2], part.stop - part.start),
        output=volume.dtype if order == 0 else np.float32,
        order=order,
        mode="nearest",
        prefilter=False,
    )
