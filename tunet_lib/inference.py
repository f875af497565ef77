"""Prediction on a whole grid volume: overlapping windows, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from scipy import ndimage

from tunet_lib.boxes import box_of
from tunet_lib.config import Config, Variant
from tunet_lib.files import DataError
from tunet_lib.patches import (
    Shape,
    block_mean,
    cut_patch,
    lnet_factor,
    patch_shape,
    patch_stride,
    window_starts,
)

Predict = Callable[[np.ndarray], np.ndarray]
OnPart = Callable[[float], Any]

BOX_MARGIN_MM = 25.0  # what a window sees around the mask: about the radius of a kidney


def predict_windows(
    predict: Predict,
    volume: np.ndarray,
    window: Shape,
    stride: Shape,
    batch_size: int = 1,
    on_part: OnPart | None = None,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """Predict a volume window by window and average where windows overlap.

    Parameters
    ----------
    predict
        (batch, z, y, x, 1) float32 to (batch, z, y, x, channels).
    volume
        Normalized grid volume (z, y, x).
    window, stride
        In voxels, (z, y, x). Borders are repeated where a window exceeds the volume.
    batch_size
        Windows predicted at a time: more is faster and takes more memory.
    on_part
        Called after each batch with its share of all windows.
    where
        bool (z, y, x): windows that hold none of these voxels are left out. At these voxels
        the result is the same as without; elsewhere it may be of fewer windows, or 0.

    Returns
    -------
    numpy.ndarray
        (z, y, x, channels) float32. A constant prediction comes back as that constant.

    Raises
    ------
    DataError
        `where` holds no voxel.

    Notes
    -----
    Source: Vu et al. 2019, 3.3; the reading of PAPER's overlap is a plain mean.
    """
    starts = window_starts(volume.shape, window, stride)  # type: ignore[arg-type]
    if where is not None:
        starts = [start for start in starts if where[_place(start, window)].any()]
        if not starts:
            raise DataError("no voxel is to be predicted: the mask is empty")
    total: np.ndarray | None = None
    count = np.zeros(volume.shape, np.uint16)
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        batch = np.stack([cut_patch(volume, start, window) for start in chosen])
        maps = predict(batch[..., None].astype(np.float32))
        if total is None:
            total = np.zeros((*volume.shape, maps.shape[-1]), np.float32)
        for start, result in zip(chosen, maps, strict=True):
            place = _place(start, window)
            inside = total[place].shape[:3]
            total[place] += result[: inside[0], : inside[1], : inside[2]]
            count[place] += 1
        if on_part is not None:
            on_part(len(chosen) / len(starts))
    assert total is not None  # there is a window
    total /= np.maximum(count, 1)[..., None]
    return total


def _place(start: Shape, window: Shape) -> tuple[slice, slice, slice]:
    z, y, x = (slice(first, first + width) for first, width in zip(start, window, strict=True))
    return z, y, x


def predict_volume(
    model: keras.Model,
    variant: Variant,
    volume: np.ndarray,
    config: Config,
    batch_size: int = 1,
    on_part: OnPart | None = None,
    where: np.ndarray | None = None,
    tight: bool = False,
) -> np.ndarray:
    """Predict a grid volume with any of the networks.

    Parameters
    ----------
    model
        The trained network of `variant`.
    volume
        Normalized grid volume (z, y, x), prepared as `variant` was trained (median or not).
    config
        Patch shape and stride.
    batch_size
        Windows, or axial slices of the 2D baseline, at a time.
    on_part
        Called again and again with the share of the work done since.
    where
        bool (z, y, x), where the prediction is wanted; see `predict_windows`. L-Net always
        predicts everywhere.
    tight
        Lay the windows not over the volume but over the box around `where`, wider by
        `BOX_MARGIN_MM` on each side. They are far fewer, and so are the answers of which each
        voxel gets the mean: it differs from the one without. Outside of the box it is 0.

    Returns
    -------
    numpy.ndarray
        (z, y, x, 2) float32, whole and tumor probabilities; from L-Net (z, y, x, 1), the
        whole probability, upsampled from its own downsampled volume to the grid.
    """
    window, stride = patch_shape(variant, config), patch_stride(variant, config)
    predict: Predict = model.predict_on_batch
    if variant.network == "lnet":
        factor = lnet_factor(config)
        # The grid divides by the factor unless a caller made it otherwise.
        margins = [(0, -size % step) for size, step in zip(volume.shape, factor, strict=True)]
        coarse = block_mean(np.pad(volume, margins, mode="edge"), factor)
        # It has to see where in the body it is: one pass, however large the scan.
        halved = 2 ** (config.levels - 1)
        z, y, x = (
            max(w, -(-n // halved) * halved) for w, n in zip(window, coarse.shape, strict=True)
        )
        window = z, y, x
        prob = predict_windows(predict, coarse, window, window, batch_size, on_part)[..., 0]
        fine = ndimage.zoom(prob, factor, order=1, mode="nearest", grid_mode=True)
        z, y, x = volume.shape
        return fine[:z, :y, :x, None].astype(np.float32, copy=False)
    if variant.network == "unet2d":
        # A 2D network sees (batch, y, x, 1): the slices of the batch.
        def predict(batch: np.ndarray) -> np.ndarray:
            return model.predict_on_batch(batch[:, 0])[:, None]

    if where is None or not tight:
        return predict_windows(predict, volume, window, stride, batch_size, on_part, where)
    box = _box_around(where, window, config.grid_spacing_mm)
    maps = np.zeros((*volume.shape, 2), np.float32)
    maps[box] = predict_windows(
        predict, volume[box], window, stride, batch_size, on_part, where[box]
    )
    return maps


def _box_around(where: np.ndarray, window: Shape, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Give the box around `where` with its margin, at least as large as a window."""
    box = []
    for part, size, width, mm in zip(box_of(where), where.shape, window, spacing_mm, strict=True):
        margin = math.ceil(BOX_MARGIN_MM / mm)
        first, last = max(0, part.start - margin), min(size, part.stop + margin)
        length = max(last - first, min(width, size))
        first = min(max(0, (first + last - length) // 2), size - length)
        box.append(slice(first, first + length))
    return tuple(box)
