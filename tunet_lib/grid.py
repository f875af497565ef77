"""Between a scan's own voxels and the grid: Fig. 4, both ways, as one matrix per axis.

Resampling, padding and downsampling are each linear and act on one axis at a time, so
their product is one small matrix per axis, and a volume is resampled by three matrix
products. The scan lies in the middle of the grid; positions are mm from that middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from tunet_lib.config import Config

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

SLAB_VOXELS = 1 << 24  # so that float32 copies stay at 64 MB
TIE = 1e-6  # in voxels: a position on the border of two voxels belongs to the second


@dataclass(frozen=True)
class Grid:
    """The voxels that the networks see: shape and voxel size in mm, (z, y, x)."""

    shape: Shape
    spacing_mm: Spacing


def grid_for(scan_shape: Sequence[int], scan_spacing_mm: Sequence[float], config: Config) -> Grid:
    """Give the configured grid, enlarged where the scan exceeds its field of view.

    The voxel size is always `config.grid_spacing_mm`, and nothing is ever cropped. An
    enlarged axis remains a multiple of what L-Net downsamples by.
    """
    shape = []
    for axis, size in enumerate(config.grid_shape):
        extent_mm = scan_shape[axis] * scan_spacing_mm[axis]
        needed = int(np.ceil(extent_mm / config.grid_spacing_mm[axis] - TIE))
        step = size // config.lnet_shape[axis]
        shape.append(size if needed <= size else -(-needed // step) * step)
    return Grid((shape[0], shape[1], shape[2]), config.grid_spacing_mm)


class Blocks(Protocol):
    """A volume that comes in blocks, each cut along one axis only, such as `kits19.ScanFile`."""

    @property
    def shape(self) -> Shape:
        """Voxels (z, y, x)."""

    def blocks(self) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Give the axis, the part along it, and the voxels there, until all are given."""


def to_grid(
    volume_hu: np.ndarray | Blocks, spacing_mm: Sequence[float], grid: Grid, config: Config
) -> np.ndarray:
    """Resample a CT, pad it with air, and downsample it to the grid.

    Parameters
    ----------
    volume_hu
        (z, y, x) in HU, any number type; or block by block, so that it is never in memory
        as a whole.
    spacing_mm
        Its voxel size (z, y, x).
    grid
        From `grid_for`.
    config
        `resample_spacing_mm` and `pad_hu` are used.

    Returns
    -------
    numpy.ndarray
        `grid.shape`, float32, in HU. Each voxel is the mean over its volume of the CT,
        interpolated linearly at `resample_spacing_mm`, and of air where there is no CT.

    Notes
    -----
    Source: Vu et al. 2019, 3.4 and Fig. 4. The paper names no interpolation; averaging
    keeps the detail that is finer than the grid from turning into noise.
    """
    matrices = axis_matrices(volume_hu.shape, spacing_mm, grid, config)
    total = np.zeros(grid.shape, np.float32)
    blocks = _blocks_of(volume_hu) if isinstance(volume_hu, np.ndarray) else volume_hu.blocks()
    with ThreadPoolExecutor(1) as worker:  # one block is added while the next one is read
        added: Future[None] | None = None
        for axis, part, block in blocks:
            parts = [matrix[:, part] if k == axis else matrix for k, matrix in enumerate(matrices)]
            block = block.astype(np.float32)  # the next one may come in the same memory
            if added is not None:
                added.result()
            added = worker.submit(_add_block, total, block, parts)
        if added is not None:
            added.result()
    total += np.float32(config.pad_hu) * (1 - _coverage(matrices))
    return total


def scanned(
    scan_shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid, config: Config
) -> np.ndarray:
    """Mark the grid voxels of which the scan covers at least half: bool, `grid.shape`."""
    return _coverage(axis_matrices(scan_shape, spacing_mm, grid, config)) >= 0.5


def label_to_grid(label: np.ndarray, spacing_mm: Sequence[float], grid: Grid) -> np.ndarray:
    """Give each grid voxel the label at its center, 0 outside the scan.

    Parameters
    ----------
    label
        (z, y, x) uint8, 0, 1 or 2.
    spacing_mm
        Its voxel size (z, y, x).
    grid
        From `grid_for`.

    Returns
    -------
    numpy.ndarray
        `grid.shape`, uint8.
    """
    places, voxels = [], []
    for size, grid_mm, count, scan_mm in zip(
        grid.shape, grid.spacing_mm, label.shape, spacing_mm, strict=True
    ):
        index = np.floor(_centers(size, grid_mm) / scan_mm + count / 2 + TIE).astype(int)
        inside = (index >= 0) & (index < count)
        places.append(np.flatnonzero(inside))
        voxels.append(index[inside])
    gridded = np.zeros(grid.shape, np.uint8)
    gridded[np.ix_(*places)] = label[np.ix_(*voxels)]
    return gridded


def from_grid(
    prob: np.ndarray, grid: Grid, scan_shape: Sequence[int], spacing_mm: Sequence[float]
) -> np.ndarray:
    """Interpolate a map on the grid linearly at the centers of the scan's own voxels.

    Parameters
    ----------
    prob
        `grid.shape`, a probability in [0, 1] or any other linear quantity.
    grid
        The grid that the map lies on.
    scan_shape, spacing_mm
        Of the scan, (z, y, x).

    Returns
    -------
    numpy.ndarray
        `scan_shape`, float32.
    """
    volume = np.empty(tuple(scan_shape), np.float32)
    matrices = _onto_scan(grid, scan_shape, spacing_mm)
    for part in _slabs(scan_shape):
        volume[part] = _interpolated(prob, [matrices[0][part], *matrices[1:]])
    return volume


def label_from_grid(
    label: np.ndarray, grid: Grid, scan_shape: Sequence[int], spacing_mm: Sequence[float]
) -> np.ndarray:
    """Bring a label map from the grid to the scan's own voxels.

    The masks `whole` and `tumor` are interpolated linearly and cut at 0.5; tumor
    overwrites whole.

    Parameters
    ----------
    label
        `grid.shape`, uint8, 0, 1 or 2.
    grid
        The grid that it lies on.
    scan_shape, spacing_mm
        Of the scan, (z, y, x).

    Returns
    -------
    numpy.ndarray
        `scan_shape`, uint8, 0, 1 or 2.
    """
    return label_from_maps(label > 0, label == 2, grid, scan_shape, spacing_mm)


def label_from_maps(
    whole_prob: np.ndarray,
    tumor_prob: np.ndarray,
    grid: Grid,
    scan_shape: Sequence[int],
    spacing_mm: Sequence[float],
    threshold: float = 0.5,
) -> np.ndarray:
    """Bring two maps from the grid to the scan's own voxels, and cut them there.

    The maps are interpolated linearly; a voxel belongs to a region from `threshold` on, and
    tumor overwrites whole. A voxel can reach the threshold only beside a grid voxel that
    does, so all the rest is left out.

    Parameters
    ----------
    whole_prob, tumor_prob
        `grid.shape`, probabilities from 0 to 1, or masks.
    grid
        The grid that they lie on.
    scan_shape, spacing_mm
        Of the scan, (z, y, x).
    threshold
        0 to 1.

    Returns
    -------
    numpy.ndarray
        `scan_shape`, uint8, 0, 1 or 2.
    """
    volume = np.zeros(tuple(scan_shape), np.uint8)
    matrices = _onto_scan(grid, scan_shape, spacing_mm)
    for value, prob in ((1, whole_prob), (2, tumor_prob)):
        reached = prob >= threshold
        places, sources, parts = [], [], []
        for axis, matrix in enumerate(matrices):
            others = tuple({0, 1, 2} - {axis})
            # The scan voxels beside a grid voxel that reaches it, and all that those depend on.
            place = _span(np.any(matrix[:, np.any(reached, axis=others)], axis=1))
            source = _span(np.any(matrix[place], axis=0))
            places.append(place)
            sources.append(source)
            parts.append(matrix[place, source])
        region, cropped = volume[tuple(places)], prob[tuple(sources)]
        if not region.size:
            continue  # nothing reaches it, or only in the padding around the scan
        for part in _slabs(region.shape):
            slab = _interpolated(cropped, [parts[0][part], *parts[1:]])
            region[part][slab >= threshold] = value
    return volume


def axis_matrices(
    scan_shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid, config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the matrices of Fig. 4: for each axis (grid voxels, scan voxels), float32.

    A row sums to the part of the grid voxel that lies within the scan, so to 1 inside it
    and to 0 in the padding.
    """
    z, y, x = (
        _averaging(size, grid_mm, _samples(count, scan_mm, step_mm), step_mm)
        @ _interpolation(_samples(count, scan_mm, step_mm), step_mm, count, scan_mm)
        for size, grid_mm, count, scan_mm, step_mm in zip(
            grid.shape,
            grid.spacing_mm,
            scan_shape,
            spacing_mm,
            config.resample_spacing_mm,
            strict=True,
        )
    )
    return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)


def _samples(count: int, scan_mm: float, step_mm: float) -> int:
    return max(1, int(np.ceil(count * scan_mm / step_mm - TIE)))


def _centers(count: int, step_mm: float) -> np.ndarray:
    """Give the centers of `count` voxels about the middle, in mm."""
    return (np.arange(count) - (count - 1) / 2) * step_mm


def _interpolation(out_count: int, out_mm: float, in_count: int, in_mm: float) -> np.ndarray:
    """Linear interpolation from voxels to voxels, constant beyond the outermost centers."""
    position = _centers(out_count, out_mm) / in_mm + (in_count - 1) / 2
    position = np.clip(position, 0, in_count - 1)
    left = np.minimum(position.astype(int), max(in_count - 2, 0))
    weight = position - left
    matrix = np.zeros((out_count, in_count))
    rows = np.arange(out_count)
    matrix[rows, left] = 1 - weight
    matrix[rows, np.minimum(left + 1, in_count - 1)] += weight
    return matrix


def _averaging(out_count: int, out_mm: float, in_count: int, in_mm: float) -> np.ndarray:
    """Mean over each larger voxel: the share of it that each smaller voxel takes up."""
    out_start = _centers(out_count, out_mm)[:, None] - out_mm / 2
    in_start = _centers(in_count, in_mm) - in_mm / 2
    end = np.minimum(out_start + out_mm, in_start + in_mm)
    return np.maximum(end - np.maximum(out_start, in_start), 0) / out_mm


def _coverage(matrices: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    z, y, x = (np.minimum(matrix.sum(axis=1), 1) for matrix in matrices)
    return z[:, None, None] * y[:, None] * x


def _blocks_of(volume: np.ndarray) -> Iterator[tuple[int, slice, np.ndarray]]:
    for part in _slabs(volume.shape):
        yield 0, part, volume[part]


def _add_block(total: np.ndarray, block: np.ndarray, matrices: Sequence[np.ndarray]) -> None:
    """Add to the grid what one block of the scan contributes to it.

    The axes are taken in the order in which they lie in memory, since a file may be stored
    either way round; and what is added is limited to the grid voxels that the block reaches.
    """
    order = sorted(range(3), key=lambda axis: -abs(block.strides[axis]))
    slow, middle, fast = (matrices[axis] for axis in order)
    reached = np.flatnonzero(slow.any(axis=1))
    if not reached.size:
        return
    near = slice(reached[0], reached[-1] + 1)
    onto_slow, onto_middle = sparse.csr_matrix(slow[near]), sparse.csr_matrix(middle)
    planes = np.stack([onto_middle @ plane for plane in block.transpose(order)])
    planes = planes.reshape(-1, fast.shape[1]) @ fast.T
    added = onto_slow @ planes.reshape(onto_slow.shape[1], -1)
    turned = total.transpose(order)[near]
    turned += added.reshape(turned.shape)


def _slabs(scan_shape: Sequence[int]) -> Iterator[slice]:
    thickness = max(1, SLAB_VOXELS // (scan_shape[1] * scan_shape[2]))
    for start in range(0, scan_shape[0], thickness):
        yield slice(start, min(start + thickness, scan_shape[0]))


def _onto_scan(
    grid: Grid, scan_shape: Sequence[int], spacing_mm: Sequence[float]
) -> list[np.ndarray]:
    """Give for each axis the linear interpolation from the grid, (scan voxels, grid voxels)."""
    return [
        _interpolation(count, scan_mm, size, grid_mm).astype(np.float32)
        for count, scan_mm, size, grid_mm in zip(
            scan_shape, spacing_mm, grid.shape, grid.spacing_mm, strict=True
        )
    ]


def _interpolated(gridded: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Apply one matrix per axis, those with few weights in a row as sparse ones."""
    in_z, in_y, in_x = matrices
    flat = gridded.astype(np.float32).reshape(len(gridded), -1)
    slab = (sparse.csr_matrix(in_z) @ flat).reshape(-1, in_x.shape[1]) @ in_x.T
    onto_y = sparse.csr_matrix(in_y)
    return np.stack([onto_y @ plane for plane in slab.reshape(-1, in_y.shape[1], in_x.shape[0])])


def _span(wanted: np.ndarray | np.bool_) -> slice:
    """Give the shortest slice that holds all that is wanted; empty if nothing is."""
    indices = np.flatnonzero(wanted)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)
