"""Grid volumes to training patches, and the windows that cover a volume at prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Protocol

import keras
import numpy as np
from scipy import sparse

from tunet_lib.config import Config, Variant

Shape = tuple[int, int, int]


class GridCase(Protocol):
    """What a training case must offer; `preprocess.PreparedCase` does."""

    @property
    def case_id(self) -> str:
        """The case's name."""

    def volume(self, median: bool) -> np.ndarray:
        """Give the normalized volume (z, y, x), floating point."""

    def label(self) -> np.ndarray:
        """Give the label map (z, y, x), uint8 0/1/2."""


def window_starts(shape: Shape, window: Shape, stride: Shape) -> list[Shape]:
    """List the corners of the windows that cover a volume.

    Windows lie `stride` apart; the last one along an axis is moved back to end at the
    border, so no voxel is left out and no window reaches outside.

    Parameters
    ----------
    shape, window, stride
        In voxels, (z, y, x). A window larger than the volume starts at 0.

    Returns
    -------
    list of (z, y, x)
        In raster order. Source: Vu et al. 2019, 3.3: 25 for (128, 256, 256), 128³, 32.
    """
    axes = []
    for size, width, step in zip(shape, window, stride, strict=True):
        last = max(0, size - width)
        axes.append(sorted({*range(0, last, step), last}))
    return [(z, y, x) for z, y, x in product(*axes)]


def block_mean(volume: np.ndarray, factor: Shape) -> np.ndarray:
    """Downsample by averaging blocks of `factor` voxels, (z, y, x); float32."""
    z, y, x = (size // step for size, step in zip(volume.shape, factor, strict=True))
    cut = volume[: z * factor[0], : y * factor[1], : x * factor[2]]
    blocks = cut.reshape(z, factor[0], y, factor[1], x, factor[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def lnet_factor(config: Config) -> Shape:
    """Give how many grid voxels make one L-Net voxel, (z, y, x)."""
    z, y, x = (g // n for g, n in zip(config.grid_shape, config.lnet_shape, strict=True))
    return z, y, x


def patch_shape(variant: Variant, config: Config) -> Shape:
    """Give the input size of a variant's network: a patch, an axial slice, or all of it."""
    if variant.network == "lnet":
        return config.lnet_shape
    if variant.network == "unet2d":
        return (1, *config.grid_shape[1:])
    return config.patch_shape


def patch_stride(variant: Variant, config: Config) -> Shape:
    """Give how far apart a variant's windows lie; a slice or a whole volume is one window."""
    if variant.network in ("lnet", "unet2d"):
        return patch_shape(variant, config)
    return config.patch_stride


def cut_patch(volume: np.ndarray, start: Shape, shape: Shape, margin: int = 0) -> np.ndarray:
    """Copy a patch, with `margin` voxels more on each side in plane; borders are repeated.

    Parameters
    ----------
    volume
        (z, y, x), any dtype.
    start, shape
        Corner and size in voxels. The patch may reach outside the volume.
    margin
        Added before and after along y and x only.
    """
    indices = [
        np.clip(np.arange(first - extra, first + width + extra), 0, size - 1)
        for first, width, size, extra in zip(
            start, shape, volume.shape, (0, margin, margin), strict=True
        )
    ]
    # Two steps: a slice reads a memory map in one go, fancy indexing voxel by voxel.
    block = tuple(slice(index[0], index[-1] + 1) for index in indices)
    local = np.ix_(*(index - index[0] for index in indices))
    return np.asarray(volume[block])[local]


def rotate_in_plane(patch: np.ndarray, angle_deg: float, order: int) -> np.ndarray:
    """Rotate each axial slice about its center; borders are repeated.

    Parameters
    ----------
    patch
        (z, y, x): floating point to be interpolated, any type for order 0.
    angle_deg
        Clockwise, as a slice is shown with y downward.
    order
        1 (linear) for an image, 0 (nearest) for a label map.
    """
    if angle_deg == 0:
        return patch
    depth, height, width = patch.shape
    turn = np.deg2rad(angle_deg)
    down, right = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    y = np.cos(turn) * down[:, None] - np.sin(turn) * right + (height - 1) / 2
    x = np.sin(turn) * down[:, None] + np.cos(turn) * right + (width - 1) / 2
    y, x = np.clip(y, 0, height - 1).ravel(), np.clip(x, 0, width - 1).ravel()
    slices = patch.reshape(depth, -1)
    if order == 0:
        nearest = np.rint(y).astype(np.intp) * width + np.rint(x).astype(np.intp)
        return slices[:, nearest].reshape(patch.shape)
    # All slices turn alike, so four weights a pixel serve them all: one sparse matrix.
    y0, x0 = y.astype(int), x.astype(int)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    corners = [y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1]
    v, u = y - y0, x - x0
    weights = [(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u]
    matrix = sparse.csr_array(
        (
            np.stack(weights, axis=1).ravel().astype(np.float32),
            np.stack(corners, axis=1).ravel(),
            np.arange(0, 4 * y.size + 1, 4),
        ),
        shape=(y.size, y.size),
    )
    return np.ascontiguousarray((matrix @ slices.T).T).reshape(patch.shape)


@dataclass
class PatchSource:
    """One case as its network sees it, with the places where foreground lies.

    L-Net's volume and label are downsampled here; all the rest of the code is the same.
    """

    case: GridCase
    variant: Variant
    config: Config
    _places: dict[int, np.ndarray] = field(default_factory=dict)
    _lnet: tuple[np.ndarray, np.ndarray] | None = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the volume and the label map, (z, y, x) each; memory-mapped if they are."""
        if self.variant.network != "lnet":
            return self.case.volume(self.variant.median), self.case.label()
        if self._lnet is None:
            factor = lnet_factor(self.config)
            volume = block_mean(self.case.volume(self.variant.median), factor)
            whole = block_mean(self.case.label() > 0, factor) >= 0.5
            self._lnet = volume.astype(np.float16), whole.astype(np.uint8)
        return self._lnet

    def windows(self) -> list[Shape]:
        """List the corners of all windows of this case."""
        window = patch_shape(self.variant, self.config)
        stride = patch_stride(self.variant, self.config)
        return window_starts(self.arrays()[0].shape, window, stride)

    def random_start(self, rng: np.random.Generator) -> Shape:
        """Draw a corner: uniform, or so that the patch holds a random whole or tumor voxel.

        That voxel may lie anywhere in the patch, as it does in the windows of prediction: a
        network that always found it in the middle would look for it there alone.
        """
        window = patch_shape(self.variant, self.config)
        shape = self.arrays()[0].shape
        last = [max(0, size - width) for size, width in zip(shape, window, strict=True)]
        z, y, x = rng.integers(0, np.array(last) + 1)
        kind = rng.random()
        lowest = 2 if kind < self.config.tumor_fraction else 1
        if kind < self.config.tumor_fraction + self.config.foreground_fraction:
            places = self._foreground(lowest)
            if len(places):
                voxel = np.unravel_index(places[rng.integers(len(places))], shape)
                corner = np.array(voxel) - rng.integers(0, window)
                z, y, x = np.clip(corner, 0, last)
        return int(z), int(y), int(x)

    def _foreground(self, lowest: int) -> np.ndarray:
        if lowest not in self._places:
            self._places[lowest] = np.flatnonzero(self.arrays()[1] >= lowest).astype(np.int32)
        return self._places[lowest]

    def patch(self, start: Shape, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
        """Give image (z, y, x, 1) float32 and target (z, y, x, channels) float32."""
        volume, label = self.arrays()
        shape = patch_shape(self.variant, self.config)
        # A corner moves by at most half a diagonal times the angle.
        margin = int(np.ceil(np.deg2rad(abs(angle_deg)) * max(shape[1:])))
        inner = np.s_[:, margin : margin + shape[1], margin : margin + shape[2]]
        image = cut_patch(volume, start, shape, margin).astype(np.float32)
        truth = cut_patch(label, start, shape, margin)
        image = rotate_in_plane(image, angle_deg, order=1)[inner]
        truth = rotate_in_plane(truth, angle_deg, order=0)[inner]
        channels = [truth > 0] if self.variant.network == "lnet" else [truth > 0, truth == 2]
        return image[..., None], np.stack(channels, axis=-1).astype(np.float32)


class PatchDataset(keras.utils.PyDataset):
    """Batches of one epoch, the same for the same seed whatever the number of workers.

    Parameters
    ----------
    cases
        Prepared cases with labels.
    variant, config
        They choose the volume (median or not), the patch size and how patches are drawn.
    seed
        Numbers that name this epoch, for instance (config.seed, fold, epoch).
    augment
        Rotate by up to ``config.rotation_deg``, draw random patches anew, shuffle. False
        gives the windows, or the random patches of this seed, in order.
    workers
        Threads that prepare batches ahead.

    Notes
    -----
    A batch is (image, target): (batch, z, y, x, 1) float32, zero mean and unit variance,
    and (batch, z, y, x, channels) float32 in {0, 1}, channels whole and tumor (L-Net:
    whole only). The 2D baseline has no z axis. An incomplete last batch is left out when
    `augment` is set, for one batch size means one compiled training step.
    Source: Vu et al. 2019, 3.3 and 3.4.
    """

    def __init__(
        self,
        cases: Sequence[GridCase] | Sequence[PatchSource],
        variant: Variant,
        config: Config,
        seed: Sequence[int],
        *,
        augment: bool = True,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self.variant = variant
        self.config = config
        self.seed = tuple(seed)
        self.augment = augment
        self.batch = config.batch_size_2d if variant.network == "unet2d" else config.batch_size
        sources = as_sources(cases, variant, config)
        rng = np.random.default_rng(self.seed)
        self.items: list[tuple[PatchSource, Shape]] = []
        for source in sources:
            if config.patch_sampling == "windows" or variant.network == "lnet":
                starts = source.windows()
            else:
                starts = [source.random_start(rng) for _ in range(self._patches_per_case())]
            self.items += [(source, start) for start in starts]
        if augment:
            rng.shuffle(self.items)

    def _patches_per_case(self) -> int:
        # A 2D patch is one slice of many: as many voxels as the 3D patches have.
        if self.variant.network != "unet2d":
            return self.config.patches_per_case
        voxels = self.config.patches_per_case * np.prod(self.config.patch_shape)
        return int(np.ceil(voxels / np.prod(patch_shape(self.variant, self.config))))

    def __len__(self) -> int:
        """Give the number of batches."""
        whole, rest = divmod(len(self.items), self.batch)
        return max(1, whole) if self.augment else whole + (rest > 0)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give batch `index`."""
        chosen = self.items[index * self.batch : (index + 1) * self.batch]
        rng = np.random.default_rng((*self.seed, index))
        images, targets = [], []
        for source, start in chosen:
            limit = self.config.rotation_deg if self.augment else 0.0
            image, target = source.patch(start, rng.uniform(-limit, limit))
            images.append(image)
            targets.append(target)
        if self.variant.network == "unet2d":
            return np.concatenate(images), np.concatenate(targets)
        return np.stack(images), np.stack(targets)


def as_sources(
    cases: Sequence[GridCase] | Sequence[PatchSource], variant: Variant, config: Config
) -> list[PatchSource]:
    """Wrap cases once, so that epochs share what was computed about them."""
    return [
        case if isinstance(case, PatchSource) else PatchSource(case, variant, config)
        for case in cases
    ]
