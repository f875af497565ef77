"""The ensemble: a mean over the probability maps of several models.

Chapter 12 (``notebooks/12_ensemble.ipynb``).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tunet_lib.files import DataError


def mean_maps(maps: Iterable[np.ndarray]) -> np.ndarray:
    """Average probability maps, holding one map and the sum.

    Parameters
    ----------
    maps
        Probability maps of one shape, any float dtype, 0 to 1. Give a generator that
        predicts one map at a time: then only one is in memory, however many models vote.

    Returns
    -------
    numpy.ndarray
        float32 mean map, 0 to 1, of the same shape.

    Raises
    ------
    DataError
        There is no map, or the shapes differ.

    Source
    ------
    Vu et al. 2019, Eq. 4.
    """
    total: np.ndarray | None = None
    count = 0
    for prob in maps:
        if total is None:
            total = np.zeros(prob.shape, np.float32)
        if prob.shape != total.shape:
            raise DataError(
                f"map {count + 1} of the ensemble has shape {prob.shape}, "
                f"the first one {total.shape}: predict all on one grid"
            )
        total += prob
        count += 1
        del prob  # or it would still be here while the next one is made
    if total is None:
        raise DataError("an ensemble needs at least one probability map")
    total /= count
    return total
