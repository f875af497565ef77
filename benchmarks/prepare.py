"""A CT file to the normalized grid volume, with the median filter: SimpleITK, TorchIO, MONAI.

All do what Fig. 4 says: resample linearly to 2.5 x 1 x 1 mm, pad with air to the field of
view, downsample linearly to (128, 256, 256), filter, and normalize over the patient's own voxels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.cases import full_size_case
from benchmarks.harness import Measured, compare
from tunet_lib.config import Config
from tunet_lib.kits19 import require_image
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import open_scan

CONFIG = Config.preset("paper")
STEP_MM = CONFIG.resample_spacing_mm
# In steps of the common voxel size the field of view is this large, (z, y, x).
PADDED = [math.ceil(fov / step) for fov, step in zip(CONFIG.grid_fov_mm, STEP_MM, strict=True)]


def ours() -> np.ndarray:
    """Prepare with tunet_lib."""
    return prepare_scan(open_scan(require_image(full_size_case())), CONFIG, [True])[True]


def with_simpleitk() -> np.ndarray:
    """Prepare with SimpleITK: one resampling onto a padded image, a second onto the grid."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(require_image(full_size_case())), sitk.sitkFloat32)
    # KiTS19 stores z first: its axes (0, 1, 2) are our (z, y, x).
    center = np.array(
        image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    )
    direction = np.array(image.GetDirection()).reshape(3, 3)

    def onto(source: Any, size: list[int], spacing: list[float], outside: float) -> Any:
        offset = direction @ (np.array(spacing) * (np.array(size) - 1) / 2)
        return sitk.Resample(
            source,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            (center - offset).tolist(),
            spacing,
            image.GetDirection(),
            outside,
        )

    extent = [n * s for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    count = [math.ceil(e / s - 1e-6) for e, s in zip(extent, STEP_MM, strict=True)]
    common = onto(image, count, list(STEP_MM), CONFIG.pad_hu)
    grid = onto(common, list(CONFIG.grid_shape), list(CONFIG.grid_spacing_mm), CONFIG.pad_hu)
    filtered = sitk.Median(grid, [1, 1, 1])
    volume = sitk.GetArrayFromImage(filtered).transpose(2, 1, 0)
    return _normalized(volume, extent)


def with_torchio() -> np.ndarray:
    """Prepare with TorchIO's transforms, and PyTorch for the median."""
    import torchio as tio

    image = tio.ScalarImage(str(require_image(full_size_case())))
    image = tio.Resample(STEP_MM)(image)
    extent = [n * s for n, s in zip(image.spatial_shape, STEP_MM, strict=True)]
    image = tio.CropOrPad(PADDED, padding_mode=CONFIG.pad_hu)(image)
    image = tio.Resize(CONFIG.grid_shape, image_interpolation="linear")(image)
    return _normalized(_torch_median(image.data[0]).numpy(), extent)


def with_monai() -> np.ndarray:
    """Prepare with MONAI's transforms."""
    from monai.transforms import (
        Compose,
        EnsureChannelFirst,
        LoadImage,
        MedianSmooth,
        Resize,
        Spacing,
        SpatialPad,
    )

    volume = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Spacing(STEP_MM, mode="bilinear", padding_mode="border"),
        ]
    )(str(require_image(full_size_case())))
    extent = [n * s for n, s in zip(volume.shape[1:], STEP_MM, strict=True)]
    volume = Compose(
        [
            SpatialPad(PADDED, constant_values=CONFIG.pad_hu),
            Resize(CONFIG.grid_shape, mode="trilinear"),
            MedianSmooth(1),
        ]
    )(volume)
    return _normalized(np.asarray(volume[0]), extent)


def agree(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Compare where there is a patient; the libraries place and filter voxels differently."""
    body = ours > -1
    difference = float(np.abs(ours - theirs)[body].mean())
    correlation = float(np.corrcoef(ours[body], theirs[body])[0, 1])
    assert correlation > 0.9, correlation
    return f"correlation {correlation:.3f}, mean difference {difference:.2f} SD"


def measure() -> list[Measured]:
    """Measure this row."""
    peers = {
        "SimpleITK": (with_simpleitk, 1.5),
        "TorchIO": (with_torchio, 3.0),
        "MONAI": (with_monai, 8.0),
    }
    return compare("prepare 512x512x216 with median", ours, peers, agree)


def _normalized(volume: np.ndarray, extent_mm: list[float]) -> np.ndarray:
    inside = np.zeros(volume.shape, bool)
    box = []
    for n, step, extent in zip(volume.shape, CONFIG.grid_spacing_mm, extent_mm, strict=True):
        half = min(n, round(extent / step)) / 2
        box.append(slice(round(n / 2 - half), round(n / 2 + half)))
    inside[tuple(box)] = True
    own = volume[inside]
    return ((volume - own.mean()) / own.std()).astype(np.float32)


def _torch_median(volume: Any) -> Any:
    import torch

    padded = torch.nn.functional.pad(volume[None, None], (1,) * 6, mode="replicate")[0, 0]
    windows = padded.unfold(0, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1)
    return windows.reshape(*volume.shape, 27).median(dim=-1).values
