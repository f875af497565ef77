"""Algorithm 1: from probability maps and L-Net's mask to one label map.

`postprocess` reads like the printed algorithm; each function names the lines it stands for.

Chapters 06 (``notebooks/06_lnet.ipynb``) and 13 (``notebooks/13_postprocess.ipynb``).
"""

from __future__ import annotations

import math
import warnings

import cc3d
import numpy as np

from tunet_lib.boxes import box_of
from tunet_lib.config import Config
from tunet_lib.files import DataError


def postprocess(
    whole_prob: np.ndarray,
    tumor_prob: np.ndarray,
    config: Config,
    *,
    lnet_mask: np.ndarray | None = None,
    voxel_volume_mm3: float | None = None,
) -> np.ndarray:
    """Turn probability maps into a label map.

    Parameters
    ----------
    whole_prob, tumor_prob
        float (z, y, x) probability maps of one shape, 0 to 1.
    config
        The thresholds, `small_tumor_voxels`, and the options `tumor_is_whole_if_none`
        and `keep_low_if_high_empty`.
    lnet_mask
        bool (z, y, x), L-Net's crude mask of the whole region; None leaves line 28 out.
    voxel_volume_mm3
        Volume of one voxel of the maps; None is a voxel of the configuration's grid. The
        tumors of a CT are small if all their voxels above T together are fewer than
        `small_tumor_voxels` *of the paper's grid*, so that the same tumors take the same
        branch on every grid.

    Returns
    -------
    numpy.ndarray
        uint8 label map (z, y, x): 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    DataError
        The shapes differ.
    TypeError
        L-Net's mask is not bool.

    Warns
    -----
    UserWarning
        L-Net's mask is empty and therefore not applied.

    Source
    ------
    Vu et al. 2019, Algorithm 1.
    """
    _check_shapes(whole_prob, tumor_prob, lnet_mask)
    if voxel_volume_mm3 is None:
        voxel_volume_mm3 = math.prod(config.grid_spacing_mm)
    paper_voxel_mm3 = math.prod(Config.preset("paper").grid_spacing_mm)
    small_voxels = config.small_tumor_voxels * paper_voxel_mm3 / voxel_volume_mm3

    whole = whole_region(whole_prob, config)
    tumor = tumor_region(tumor_prob, whole, config, small_voxels=small_voxels)
    label = merge(whole, tumor)
    return label if lnet_mask is None else apply_lnet(label, lnet_mask)


def threshold_labels(
    whole_prob: np.ndarray, tumor_prob: np.ndarray, threshold: float = 0.5
) -> np.ndarray:
    """Make the label map of a system without post-processing.

    Parameters
    ----------
    whole_prob, tumor_prob
        float (z, y, x) probability maps of one shape, 0 to 1.
    threshold
        A voxel belongs to a region from this probability on.

    Returns
    -------
    numpy.ndarray
        uint8 label map: 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    DataError
        The shapes differ.
    """
    _check_shapes(whole_prob, tumor_prob)
    return merge(whole_prob >= threshold, tumor_prob >= threshold)


def whole_region(whole_prob: np.ndarray, config: Config) -> np.ndarray:
    """Find the whole region: kidneys and tumors.

    Parameters
    ----------
    whole_prob
        float (z, y, x), 0 to 1.
    config
        `high_threshold` (T), `whole_low_threshold`, and `empty_low_threshold` for the
        case that nothing reaches T.

    Returns
    -------
    numpy.ndarray
        bool (z, y, x).

    Source
    ------
    Vu et al. 2019, Algorithm 1, lines 1-9.
    """
    high = whole_prob >= config.high_threshold
    if not high.any():
        return whole_prob >= config.empty_low_threshold
    return grow(high, whole_prob >= config.whole_low_threshold)


def tumor_region(
    tumor_prob: np.ndarray, whole: np.ndarray, config: Config, *, small_voxels: float
) -> np.ndarray:
    """Find the tumor region.

    Where some voxel reaches T, the region grows from there: further if it is small.
    Where none does, a low threshold decides, and if even that finds nothing, the whole
    region is taken for tumor (`tumor_is_whole_if_none`; true for KiTS19, where every
    patient has a tumor, false for people in general).

    With `keep_low_if_high_empty` off, line 17 is read literally: it grows from the empty
    map of line 2, and so erases whatever lines 12 and 14 have found.

    Parameters
    ----------
    tumor_prob
        float (z, y, x), 0 to 1.
    whole
        bool (z, y, x), the result of `whole_region`.
    config
        The thresholds and the two options.
    small_voxels
        The tumors of a CT are small if there are fewer voxels above T, of all of them.

    Returns
    -------
    numpy.ndarray
        bool (z, y, x).

    Source
    ------
    Vu et al. 2019, Algorithm 1, lines 1-2 and 10-26.
    """
    high = tumor_prob >= config.high_threshold
    if not high.any():
        low = tumor_prob >= config.empty_low_threshold
        if not low.any() and config.tumor_is_whole_if_none:
            low = whole
        return low if config.keep_low_if_high_empty else grow(high, low)
    if np.count_nonzero(high) < small_voxels:
        return grow(high, tumor_prob >= config.small_tumor_low_threshold)
    return grow(high, tumor_prob >= config.tumor_low_threshold)


def is_tumor_by_rule(label: np.ndarray, tumor_prob: np.ndarray, config: Config) -> bool:
    """Say whether a label map has its tumor from `tumor_is_whole_if_none` alone.

    Parameters
    ----------
    label
        uint8 (z, y, x), what `postprocess` gave.
    tumor_prob
        float (z, y, x), 0 to 1, what it was given.
    config
        The thresholds and the option.

    Source
    ------
    Vu et al. 2019, Algorithm 1, line 14.
    """
    lowest = min(config.high_threshold, config.empty_low_threshold)
    found = bool((tumor_prob >= lowest).any())
    return config.tumor_is_whole_if_none and not found and bool((label == 2).any())


def grow(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Refine a region: keep the components of `low` that touch `high`.

    Parameters
    ----------
    high
        bool (z, y, x), the sure voxels: map A. All of them are kept.
    low
        bool (z, y, x), the possible voxels: map B, thresholded lower.

    Returns
    -------
    numpy.ndarray
        bool (z, y, x). Components are 26-connected: voxels that share a face, an edge or
        a corner.

    Raises
    ------
    TypeError
        A mask is not bool: NumPy would take 0 and 1 for the places of voxels.

    Examples
    --------
    >>> low = np.array([[[1, 1, 0, 1, 1]]], bool)
    >>> high = np.array([[[0, 1, 0, 0, 0]]], bool)
    >>> grow(high, low).astype(int)
    array([[[1, 1, 0, 0, 0]]])

    Source
    ------
    Vu et al. 2019, 3.5, and Algorithm 1, lines 8, 17, 21 and 24.
    """
    grown = high.astype(bool, casting="safe")
    box = box_of(low)
    part = low[box].astype(bool, casting="safe")
    # cc3d expects too few components in a thin box:
    # a border makes room.
    padded = np.pad(part, [(0, 1)] * 3)
    components, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    components = components[:-1, :-1, :-1]
    # One look-up in place of a loop over components,
    # of which a noisy map has thousands.
    touched = np.zeros(count + 1, bool)
    touched[components[grown[box]]] = True
    touched[0] = False  # the background
    grown[box][part] |= touched[components[part]]
    return grown


def merge(whole: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Merge two regions into a label map.

    Parameters
    ----------
    whole, tumor
        bool (z, y, x). A tumor voxel outside `whole` stays tumor, and thereby counts as
        whole, as in the labels of KiTS19.

    Returns
    -------
    numpy.ndarray
        uint8 label map: 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    TypeError
        A mask is not bool.

    Source
    ------
    Vu et al. 2019, Algorithm 1, line 27.
    """
    label = whole.astype(bool, casting="safe").astype(np.uint8)
    label[tumor.astype(bool, casting="safe")] = 2
    return label


def apply_lnet(label: np.ndarray, lnet_mask: np.ndarray) -> np.ndarray:
    """Remove what lies outside L-Net's mask, unless that mask is empty.

    Parameters
    ----------
    label
        uint8 label map (z, y, x).
    lnet_mask
        bool (z, y, x).

    Returns
    -------
    numpy.ndarray
        uint8 label map.

    Warns
    -----
    UserWarning
        The mask is empty, and `label` is returned as it is.

    Raises
    ------
    TypeError
        The mask is not bool, and not empty: of a map of probabilities nothing would be left.

    Source
    ------
    Vu et al. 2019, Algorithm 1, line 28.
    """
    if not lnet_mask.any():
        warnings.warn("L-Net found no kidney: its mask is not applied", stacklevel=3)
        return label
    return label * lnet_mask.astype(bool, casting="safe")


def _check_shapes(
    whole_prob: np.ndarray, tumor_prob: np.ndarray, lnet_mask: np.ndarray | None = None
) -> None:
    for name, array in (("tumor_prob", tumor_prob), ("lnet_mask", lnet_mask)):
        if array is not None and array.shape != whole_prob.shape:
            raise DataError(
                f"{name} has shape {array.shape}, whole_prob {whole_prob.shape}: "
                "predict both on one grid"
            )
