"""L-Net's prediction: the volume as a whole, downsampled.

Chapter 06 (``notebooks/06_lnet.ipynb``).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tunet_lib.config import Config
from tunet_lib.files import DataError
from tunet_lib.windows import OnPart, Predict, block_mean, predict_windows


def predict_lnet(
    predict: Predict, volume: np.ndarray, config: Config, *, on_part: OnPart | None = None
) -> np.ndarray:
    """Predict where the kidneys are: downsample, one pass, upsample.

    L-Net has to see where in the body it is, so it sees the volume as a whole, however large.

    Parameters
    ----------
    predict
        (1, z, y, x, 1) float32 to the probability of whole, alike.
    volume
        Normalized grid volume (z, y, x).
    config
        `lnet_shape` against `grid_shape` says how far to downsample.
    on_part
        Called with 1 at the end.

    Returns
    -------
    numpy.ndarray
        (z, y, x, 1) float32, the probability of whole on the grid.

    Notes
    -----
    Source: Vu et al. 2019, 2.1.
    """
    factor = config.lnet_downsampling
    # The grid divides by the factor unless a caller made it otherwise.
    margins = [(0, -size % step) for size, step in zip(volume.shape, factor, strict=True)]
    coarse = block_mean(np.pad(volume, margins, mode="edge"), factor)
    halved = 2 ** (config.levels - 1)  # what the network's levels divide by
    z, y, x = (
        max(least, -(-size // halved) * halved)
        for least, size in zip(config.lnet_shape, coarse.shape, strict=True)
    )
    prob = predict_windows(predict, coarse, [(0, 0, 0)], window=(z, y, x), on_part=on_part)
    fine = ndimage.zoom(prob[..., 0], factor, order=1, mode="nearest", grid_mode=True)
    return fine[tuple(map(slice, volume.shape))][..., None].astype(np.float32, copy=False)


def lnet_mask(prob: np.ndarray, config: Config) -> np.ndarray:
    """Make L-Net's crude mask of kidneys and tumors: line 28 of Algorithm 1 keeps what lies in it.

    Parameters
    ----------
    prob
        (z, y, x), the probability of whole on the grid, from one L-Net or the mean of several.
    config
        `lnet_threshold`, and `lnet_margin_mm` by which the mask is then widened: what L-Net
        misses, mostly at the rim and in tumors, is lost for good.

    Returns
    -------
    numpy.ndarray
        bool (z, y, x).

    Raises
    ------
    DataError
        The map has channels.
    """
    if prob.ndim != 3:
        raise DataError(f"the map of L-Net is {prob.shape}; give (z, y, x)")
    mask = prob >= config.lnet_threshold
    if not config.lnet_margin_mm or not mask.any():
        return mask
    outside_mm = ndimage.distance_transform_edt(~mask, sampling=config.grid_spacing_mm)
    return outside_mm <= config.lnet_margin_mm
