"""Grid volumes to training patches: where they are drawn, how they are turned, and batches.

Chapter 03 (``notebooks/03_patches.ipynb``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy import sparse

from tunet_lib.config import Config, Variant
from tunet_lib.quiet import keras
from tunet_lib.windows import Shape, block_mean, cut_patch, window_starts


class GridCase(Protocol):
    """What a training case must offer; `preprocess.PreparedCase` does."""

    @property
    def case_id(self) -> str:
        """The case's name."""

    def volume(self, median: bool) -> np.ndarray:
        """Give the normalized volume (z, y, x), floating point."""

    def label(self) -> np.ndarray:
        """Give the label map (z, y, x), uint8 0/1/2."""


@dataclass(frozen=True)
class Augmentation:
    """How a training patch differs from what the CT shows at its place.

    Attributes
    ----------
    angle_deg
        Rotation in plane, clockwise as a slice is shown with y downward.
    zoom
        Factor by which all is larger in plane.
    mirror
        Left and right are exchanged.
    gain, shift
        The intensities are multiplied by the one, then the other is added, in SD of the volume.
    """

    angle_deg: float = 0.0
    zoom: float = 1.0
    mirror: bool = False
    gain: float = 1.0
    shift: float = 0.0

    @classmethod
    def draw(cls, config: Config, rng: np.random.Generator) -> Augmentation:
        """Draw each number uniformly from what the configuration allows."""
        angle_deg = rng.uniform(-config.rotation_deg, config.rotation_deg)
        # What is off draws no number, so that it changes none that others draw.
        zoom, gain, shift = (
            rng.uniform(-limit, limit) if limit else 0.0
            for limit in (config.zoom, config.gain, config.shift)
        )
        mirror = config.mirror and bool(rng.random() < 0.5)
        return cls(angle_deg, 1 + zoom, mirror, 1 + gain, shift)

    def margin(self, width: int) -> int:
        """Give how many voxels beside a patch of that width may move into it."""
        # A corner lies half a diagonal from the center, 0.71 of the width however it turns.
        turned, drawn_in = np.deg2rad(abs(self.angle_deg)), max(0.0, 1 / self.zoom - 1)
        return int(np.ceil((min(turned, 0.71) + drawn_in) * width))


def rotate_in_plane(
    patch: np.ndarray,
    angle_deg: float,
    order: int,
    *,
    zoom: float = 1.0,
    mirror: bool = False,
    margin: int = 0,
) -> np.ndarray:
    """Rotate each axial slice about its center; borders are repeated.

    Parameters
    ----------
    patch
        (z, y, x): floating point to be interpolated, any type for order 0.
    angle_deg
        Clockwise, as a slice is shown with y downward.
    order
        1 (linear) for an image, 0 (nearest) for a label map.
    zoom
        Enlarge by this factor as well.
    mirror
        Exchange left and right, in the end.
    margin
        Voxels on each side in plane that are there to move into the rest; the result has none.
    """
    inner = patch[:, margin : patch.shape[1] - margin, margin : patch.shape[2] - margin]
    if angle_deg == 0 and zoom == 1:
        return inner[..., ::-1] if mirror else inner
    _, height, width = patch.shape
    turn = np.deg2rad(angle_deg)
    down = np.arange(margin, height - margin) - (height - 1) / 2
    right = np.arange(margin, width - margin) - (width - 1) / 2
    if mirror:
        right = right[::-1]
    y = (np.cos(turn) * down[:, None] - np.sin(turn) * right) / zoom + (height - 1) / 2
    x = (np.sin(turn) * down[:, None] + np.cos(turn) * right) / zoom + (width - 1) / 2
    y, x = np.clip(y, 0, height - 1).ravel(), np.clip(x, 0, width - 1).ravel()
    slices = patch.reshape(len(patch), -1)
    if order == 0:
        nearest = np.rint(y).astype(np.intp) * width + np.rint(x).astype(np.intp)
        return slices[:, nearest].reshape(inner.shape)
    # All slices turn alike, so four weights a pixel serve them all:
    # one sparse matrix.
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
        shape=(y.size, height * width),
    )
    return np.ascontiguousarray((matrix @ slices.T).T).reshape(inner.shape)


@dataclass
class PatchSource:
    """One case as its network sees it, with the places where foreground lies.

    L-Net's volume and label are downsampled here; all the rest of the code is the same.
    """

    case: GridCase
    variant: Variant
    config: Config
    _places: dict[int, np.ndarray] = field(default_factory=dict)
    _downsampled: tuple[np.ndarray, np.ndarray] | None = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the volume and the label map, (z, y, x) each; memory-mapped if they are."""
        factor = self.variant.downsampling(self.config)
        if factor == (1, 1, 1):
            return self.case.volume(self.variant.median), self.case.label()
        if self._downsampled is None:
            volume = block_mean(self.case.volume(self.variant.median), factor)
            whole = block_mean(self.case.label() > 0, factor) >= 0.5
            self._downsampled = volume.astype(np.float16), whole.astype(np.uint8)
        return self._downsampled

    def windows(self) -> list[Shape]:
        """List the corners of all windows of this case."""
        window = self.variant.patch_shape(self.config)
        stride = self.variant.patch_stride(self.config)
        return window_starts(self.arrays()[0].shape, window, stride)

    def random_starts(self, rng: np.random.Generator) -> list[Shape]:
        """Draw the corners of this case's patches of one epoch."""
        patch_voxels = np.prod(self.variant.patch_shape(self.config))
        # A 2D patch is one slice of many: as many voxels as the 3D patches have.
        voxels = self.config.patches_per_case * np.prod(self.config.patch_shape)
        count = int(np.ceil(voxels / patch_voxels))
        return [self.random_start(rng) for _ in range(count)]

    def random_start(self, rng: np.random.Generator) -> Shape:
        """Draw a corner: uniform, or so that the patch holds a random whole or tumor voxel.

        That voxel may lie anywhere in the patch, as it does in the windows of prediction: a
        network that always found it in the middle would look for it there alone. Where a case
        has no such voxel the corner is uniform.
        """
        window = self.variant.patch_shape(self.config)
        shape = self.arrays()[0].shape
        last = [max(0, size - width) for size, width in zip(shape, window, strict=True)]
        z, y, x = rng.integers(0, np.array(last) + 1)
        kind = rng.random()
        lowest = 2 if kind < self.config.tumor_fraction else 1
        if kind < self.config.tumor_fraction + self.config.foreground_fraction:
            places = self.foreground(lowest)
            if len(places):
                voxel = np.unravel_index(places[rng.integers(len(places))], shape)
                corner = np.array(voxel) - rng.integers(0, window)
                z, y, x = np.clip(corner, 0, last)
        return int(z), int(y), int(x)

    def foreground(self, lowest: int) -> np.ndarray:
        """Find the voxels of label `lowest` or higher: their flat indices (n), int32, kept."""
        if lowest not in self._places:
            self._places[lowest] = np.flatnonzero(self.arrays()[1] >= lowest).astype(np.int32)
        return self._places[lowest]

    def patch(
        self, start: Shape, augmentation: Augmentation = Augmentation()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give image (z, y, x, 1) float32 and target (z, y, x, channels) float32."""
        volume, label = self.arrays()
        shape = self.variant.patch_shape(self.config)
        # Beyond the volume there is nothing but its repeated border.
        margin = min(augmentation.margin(max(shape[1:])), max(volume.shape[1:]))

        def cut(array: np.ndarray, order: int) -> np.ndarray:
            return rotate_in_plane(
                cut_patch(array, start, shape, margin=margin),
                augmentation.angle_deg,
                order,
                zoom=augmentation.zoom,
                mirror=augmentation.mirror,
                margin=margin,
            )

        image, truth = cut(volume, 1).astype(np.float32), cut(label, 0)
        image = image * np.float32(augmentation.gain) + np.float32(augmentation.shift)
        masks = {"whole": truth > 0, "tumor": truth == 2}
        target = np.stack([masks[region] for region in self.variant.regions], axis=-1)
        return image[..., None], target.astype(np.float32)


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
        Change each patch by an `Augmentation` of its own, and shuffle. False gives the
        windows, or the random patches of this seed, as they are and in order.
    workers
        Threads that prepare batches ahead.

    Notes
    -----
    A batch is (image, target): (batch, z, y, x, 1) float32, cut from the normalized volume
    and then augmented, and (batch, z, y, x, channels) float32 in {0, 1}, channels whole and
    tumor (L-Net: whole only). The 2D baseline has no z axis. An incomplete last batch is left
    out when `augment` is set, for one batch size means one compiled training step; where it
    is the only one, it is given.
    Source: Vu et al. 2019, 3.3 and 3.4.
    """

    def __init__(
        self,
        cases: Sequence[GridCase] | Sequence[PatchSource],
        variant: Variant,
        config: Config,
        *,
        seed: Sequence[int],
        augment: bool = True,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self.variant = variant
        self.config = config
        self.seed = tuple(seed)
        self.augment = augment
        self.batch = config.batch_size_2d if variant.sees == "slice" else config.batch_size
        rng = np.random.default_rng(self.seed)
        all_windows = config.patch_sampling == "windows" or variant.sees == "volume"
        self.items: list[tuple[PatchSource, Shape]] = []
        for source in as_sources(cases, variant, config):
            starts = source.windows() if all_windows else source.random_starts(rng)
            self.items += [(source, start) for start in starts]
        if augment:
            rng.shuffle(self.items)

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
            changed = Augmentation.draw(self.config, rng) if self.augment else Augmentation()
            image, target = source.patch(start, changed)
            images.append(image)
            targets.append(target)
        if self.variant.sees == "slice":
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
