"""Where a scan lies on the grid: Fig. 4, both ways, as one matrix per axis.

Resampling, padding and downsampling are each linear and act on one axis at a time, so
their product is one small matrix per axis, and a volume is resampled by three matrix
products. The scan lies in the middle of the grid; positions are mm from that middle.

Chapters 02 (``notebooks/02_preprocess.ipynb``) and 11 (``notebooks/11_inference.ipynb``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import sparse

from tunet_lib.boxes import box_of
from tunet_lib.config import Config
from tunet_lib.files import DataError
from tunet_lib.plausible import believed_hu, check_extent, check_shape, without_padding
from tunet_lib.scans import ScanFile, ipl_orientation

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]

SLAB_VOXELS = 1 << 24  # so that float32 copies stay at 64 MB
MOST_VOXELS = 1 << 28  # of a grid, 1 GB as float32: more is a field of view in cm
TIE = 1e-6  # in voxels: a position on the border of two voxels belongs to the second


@dataclass(frozen=True)
class Axis:
    """A row of voxels: how many, and how large in mm."""

    count: int
    voxel_mm: float

    @property
    def centers_mm(self) -> np.ndarray:
        """The voxels' centers about the middle of the row."""
        return (np.arange(self.count) - (self.count - 1) / 2) * self.voxel_mm


class Measured(Protocol):
    """What has a place on the grid: a scan, or a prepared case."""

    @property
    def shape(self) -> Shape:
        """Voxels (z, y, x)."""

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size (z, y, x)."""


class Placement:
    """A scan's place on the grid, and the ways there and back.

    The grid is the configured one, enlarged where the scan exceeds its field of view: its
    voxel size is always ``config.grid_spacing_mm``, and nothing is ever cropped. An enlarged
    axis remains a multiple of what L-Net downsamples by.

    Parameters
    ----------
    scan
        A CT, a label map or a prepared case: only its shape and voxel size are looked at.
    config
        The preprocessing numbers.

    Raises
    ------
    DataError
        The grid would be far larger than any, as where `grid_fov_mm` was given in cm.

    Attributes
    ----------
    scan_shape, scan_spacing_mm
        Voxels and voxel size of the scan, (z, y, x).
    grid_shape, grid_spacing_mm
        Voxels and voxel size of the grid, (z, y, x).

    Examples
    --------
    >>> from tunet_lib.scans import scan_of
    >>> water = scan_of(np.zeros((20, 100, 100), np.int16), spacing_mm=(10, 4, 4))
    >>> placement = Placement(water, Config.preset("course"))
    >>> placement.grid_shape, [round(mm, 2) for mm in placement.grid_spacing_mm]
    ((64, 112, 112), [5.25, 3.86, 3.86])
    >>> grid_hu = placement.to_grid(water)
    >>> round(float(grid_hu[32, 56, 56])), round(float(grid_hu[0, 0, 0]))  # water, air around it
    (0, -1000)
    """

    def __init__(self, scan: Measured, config: Config) -> None:
        self.scan_shape = scan.shape
        self.scan_spacing_mm = scan.spacing_mm
        self.grid_spacing_mm = config.grid_spacing_mm
        self.config = config
        shape = []
        for axis, size in enumerate(config.grid_shape):
            extent_mm = scan.shape[axis] * scan.spacing_mm[axis]
            needed = int(np.ceil(extent_mm / config.grid_spacing_mm[axis] - TIE))
            step = size // config.lnet_shape[axis]
            shape.append(size if needed <= size else -(-needed // step) * step)
        self.grid_shape: Shape = (shape[0], shape[1], shape[2])
        if np.prod(shape, dtype=np.float64) > MOST_VOXELS:
            grid_fov_mm = config.grid_fov_mm
            raise DataError(f"a grid of {self.grid_shape}: {grid_fov_mm=}, in mm?")

    @cached_property
    def onto_grid(self) -> Matrices:
        """The matrices of Fig. 4, for each axis (grid voxels, scan voxels), float32.

        A row sums to the part of the grid voxel that lies within the scan, so to 1 inside it
        and to 0 in the padding. Resampling gives whole voxels: the scan counts as up to one of
        ``config.resample_spacing_mm`` longer than it is, half of it at either end.
        """
        matrices = []
        for scan, grid, step_mm in zip(*self.axes(), self.config.resample_spacing_mm, strict=True):
            extent_mm = scan.count * scan.voxel_mm
            samples = Axis(max(1, int(np.ceil(extent_mm / step_mm - TIE))), step_mm)
            matrix = box_average(samples, grid) @ linear_interpolation(scan, samples)
            matrices.append(matrix.astype(np.float32))
        return matrices[0], matrices[1], matrices[2]

    @cached_property
    def onto_scan(self) -> Matrices:
        """Linear interpolation back, for each axis (scan voxels, grid voxels), float32."""
        z, y, x = (
            linear_interpolation(grid, scan).astype(np.float32)
            for scan, grid in zip(*self.axes(), strict=True)
        )
        return z, y, x

    @property
    def covered(self) -> np.ndarray:
        """The grid voxels of which the scan covers at least half, bool, of `grid_shape`.

        The scan counts as long as its resampled voxels, as in `onto_grid`.

        Raises
        ------
        DataError
            There are none: nothing of so thin a scan would be seen.
        """
        covered = self._coverage() >= 0.5
        if not covered.any():
            raise DataError(
                f"{self.scan_shape} voxels of {self.scan_spacing_mm} mm fill not even one voxel "
                f"of the grid, {self.grid_spacing_mm} mm; take a CT of more slices"
            )
        return covered

    def to_grid(self, scan: ScanFile) -> np.ndarray:
        """Resample a CT, pad it with air, and downsample it to the grid.

        Parameters
        ----------
        scan
            The CT, in memory or read block by block.

        Returns
        -------
        numpy.ndarray
            `grid_shape`, float32, in HU. Each voxel is the mean over its volume of the CT,
            interpolated linearly at ``config.resample_spacing_mm``, and of air where there is
            no CT.

        Raises
        ------
        DataError
            The CT holds no HU, is damaged, or is not the one whose place this is.

        Warns
        -----
        DataWarning
            Something about it is strange, or was mended.

        Notes
        -----
        Source: Vu et al. 2019, 3.4 and Fig. 4. The paper names no interpolation; averaging
        keeps the detail that is finer than the grid from turning into noise.
        """
        if (scan.shape, scan.spacing_mm) != (self.scan_shape, self.scan_spacing_mm):
            raise DataError(
                f"a scan of {scan.shape} voxels of {scan.spacing_mm} mm, where "
                f"{self.scan_shape} of {self.scan_spacing_mm} mm are expected"
            )
        check_extent(scan)
        total = np.zeros(self.grid_shape, np.float32)
        # From the file's slowest axis on: NumPy's strides say it as well, but not of one plane.
        order = [int(axis) for axis in ipl_orientation(scan.file.affine)[::-1, 0]]
        with ThreadPoolExecutor(1) as worker:  # one block is added while the next one is read
            added: Future[None] | None = None
            for axis, part, block in scan.blocks():
                matrices = [m[:, part] if k == axis else m for k, m in enumerate(self.onto_grid)]
                # A copy, for the next one may come in the same memory.
                block = without_padding(block.astype(np.float32), scan.file.path)
                if added is not None:
                    added.result()
                added = worker.submit(_add_block, total, block, matrices, order)
            if added is not None:
                added.result()
        coverage = self._coverage()
        total += np.float32(self.config.pad_hu) * (1 - coverage)
        return believed_hu(total, coverage, scan)

    def label_to_grid(self, label: np.ndarray) -> np.ndarray:
        """Give each grid voxel the label at its center, 0 outside the scan.

        Parameters
        ----------
        label
            `scan_shape`, uint8, 0, 1 or 2.

        Returns
        -------
        numpy.ndarray
            `grid_shape`, uint8.
        """
        check_shape(label, self.scan_shape)
        gridded = np.zeros(self.grid_shape, np.uint8)
        places: list[slice] = []
        for axis, (scan, grid) in enumerate(zip(*self.axes(), strict=True)):
            position = grid.centers_mm / scan.voxel_mm + scan.count / 2
            index = np.floor(position + TIE).astype(int)
            inside = (index >= 0) & (index < scan.count)
            label = label.take(index[inside], axis)
            places += box_of(inside)
        gridded[tuple(places)] = label
        return gridded

    def from_grid(self, prob: np.ndarray) -> np.ndarray:
        """Interpolate a map on the grid linearly at the centers of the scan's own voxels.

        Parameters
        ----------
        prob
            `grid_shape`, a probability in [0, 1] or any other linear quantity.

        Returns
        -------
        numpy.ndarray
            `scan_shape`, float32.
        """
        check_shape(prob, self.grid_shape)
        volume = np.empty(self.scan_shape, np.float32)
        in_z, in_y, in_x = self.onto_scan
        for part in _slabs(self.scan_shape):
            volume[part] = _interpolated(prob, (in_z[part], in_y, in_x))
        return volume

    def label_from_grid(self, label: np.ndarray) -> np.ndarray:
        """Bring a label map from the grid to the scan's own voxels.

        The masks `whole` and `tumor` are interpolated linearly and cut at 0.5; tumor
        overwrites whole.

        Parameters
        ----------
        label
            `grid_shape`, uint8, 0, 1 or 2.

        Returns
        -------
        numpy.ndarray
            `scan_shape`, uint8, 0, 1 or 2.
        """
        return self.label_from_maps(label > 0, label == 2)

    def label_from_maps(
        self, whole_prob: np.ndarray, tumor_prob: np.ndarray, threshold: float = 0.5
    ) -> np.ndarray:
        """Bring two maps from the grid to the scan's own voxels, and cut them there.

        The maps are interpolated linearly; a voxel belongs to a region from `threshold` on, and
        tumor overwrites whole. A voxel can reach the threshold only beside a grid voxel that
        does, so all the rest is left out.

        Parameters
        ----------
        whole_prob, tumor_prob
            `grid_shape`, probabilities from 0 to 1, or masks.
        threshold
            0 to 1.

        Returns
        -------
        numpy.ndarray
            `scan_shape`, uint8, 0, 1 or 2.
        """
        volume = np.zeros(self.scan_shape, np.uint8)
        for value, prob in ((1, whole_prob), (2, tumor_prob)):
            check_shape(prob, self.grid_shape)
            places, sources, parts = [], [], []
            for matrix, reached in zip(self.onto_scan, box_of(prob >= threshold), strict=True):
                # The scan voxels beside a grid voxel that reaches it, and all those depend on.
                (place,) = box_of(matrix[:, reached].any(axis=1))
                (source,) = box_of(matrix[place].any(axis=0))
                places.append(place)
                sources.append(source)
                parts.append(matrix[place, source])
            region, cropped = volume[tuple(places)], prob[tuple(sources)]
            if not region.size:
                continue  # nothing reaches it, or only in the padding around the scan
            for part in _slabs(region.shape):
                slab = _interpolated(cropped, (parts[0][part], parts[1], parts[2]))
                region[part][slab >= threshold] = value
        return volume

    def axes(self) -> tuple[list[Axis], list[Axis]]:
        """Give the axes z, y, x of the scan and those of the grid: voxels, and their size in mm."""
        scan = zip(self.scan_shape, self.scan_spacing_mm, strict=True)
        grid = zip(self.grid_shape, self.grid_spacing_mm, strict=True)
        return [Axis(*axis) for axis in scan], [Axis(*axis) for axis in grid]

    def _coverage(self) -> np.ndarray:
        z, y, x = (np.minimum(matrix.sum(axis=1), 1) for matrix in self.onto_grid)
        return z[:, None, None] * y[:, None] * x


def linear_interpolation(source: Axis, target: Axis) -> np.ndarray:
    """Interpolate from voxels to voxels about one middle, constant beyond the outermost centers.

    Returns
    -------
    numpy.ndarray
        (target.count, source.count) float64: the weights, whose rows sum to 1.

    Examples
    --------
    >>> linear_interpolation(Axis(2, 4.0), Axis(4, 2.0))  # centers at ±2 mm; at ±1, ±3 mm
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.25, 0.75],
           [0.  , 1.  ]])
    """
    position = target.centers_mm / source.voxel_mm + (source.count - 1) / 2
    position = np.clip(position, 0, source.count - 1)
    left = np.minimum(position.astype(int), max(source.count - 2, 0))
    weight = position - left
    matrix = np.zeros((target.count, source.count))
    rows = np.arange(target.count)
    matrix[rows, left] = 1 - weight
    matrix[rows, np.minimum(left + 1, source.count - 1)] += weight
    return matrix


def box_average(source: Axis, target: Axis) -> np.ndarray:
    """Average over each larger voxel: the share of it that each smaller voxel takes up.

    Returns
    -------
    numpy.ndarray
        (target.count, source.count) float64. A row sums to the part of its larger voxel that
        the smaller ones cover.

    Examples
    --------
    >>> box_average(Axis(4, 1.0), Axis(3, 2.0))  # 4 mm of source in the middle of 6 mm
    array([[0.5, 0. , 0. , 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0. , 0. , 0.5]])
    """
    out_start = target.centers_mm[:, None] - target.voxel_mm / 2
    in_start = source.centers_mm - source.voxel_mm / 2
    end = np.minimum(out_start + target.voxel_mm, in_start + source.voxel_mm)
    return np.maximum(end - np.maximum(out_start, in_start), 0) / target.voxel_mm


def _add_block(
    total: np.ndarray, block: np.ndarray, matrices: Sequence[np.ndarray], order: Sequence[int]
) -> None:
    """Add to the grid what one block of the scan contributes to it.

    The axes are taken in the order in which they lie in memory, the slowest first, since a file
    may be stored either way round; and what is added is limited to the grid voxels that the
    block reaches.
    """
    slow, middle, fast = (matrices[axis] for axis in order)
    (near,) = box_of(slow.any(axis=1))
    if near.start == near.stop:
        return
    onto_slow, onto_middle = sparse.csr_matrix(slow[near]), sparse.csr_matrix(middle)
    planes = np.stack([onto_middle @ plane for plane in block.transpose(order)])
    planes = planes.reshape(-1, fast.shape[1]) @ fast.T
    added = onto_slow @ planes.reshape(onto_slow.shape[1], -1)
    turned = total.transpose(order)[near]
    turned += added.reshape(turned.shape)


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    thickness = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))


def _interpolated(gridded: np.ndarray, matrices: Matrices) -> np.ndarray:
    """Apply one matrix per axis, those with few weights in a row as sparse ones."""
    in_z, in_y, in_x = matrices
    flat = gridded.astype(np.float32).reshape(len(gridded), -1)
    slab = (sparse.csr_matrix(in_z) @ flat).reshape(-1, in_x.shape[1]) @ in_x.T
    onto_y = sparse.csr_matrix(in_y)
    return np.stack([onto_y @ plane for plane in slab.reshape(-1, in_y.shape[1], in_x.shape[0])])
