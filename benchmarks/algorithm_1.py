"""Algorithm 1 on a case of (128, 256, 256): region growing three ways."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from benchmarks.harness import Measured, compare
from tunet_lib import postprocess
from tunet_lib.config import Config

CONFIG = Config.preset("paper")
CONNECTED = np.ones((3, 3, 3), bool)


def maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give noisy maps with some hundred components above the low thresholds, and a mask."""
    rng = np.random.default_rng(0)
    shape = CONFIG.grid_shape
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    whole = np.zeros(shape, np.float32)
    for center in ((60, 130, 80), (64, 130, 176)):
        far = ((z - center[0]) / 12) ** 2 + ((y - center[1]) / 22) ** 2
        whole = np.maximum(whole, np.exp(-far - ((x - center[2]) / 20) ** 2).astype(np.float32))
    tumor = np.exp(-(((z - 60) / 6) ** 2) - ((y - 120) / 9) ** 2 - ((x - 80) / 9) ** 2)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    noise *= 0.1 / noise.std()
    whole, tumor = (np.clip(prob + noise, 0, 1).astype(np.float32) for prob in (whole, tumor))
    return whole, tumor, ndimage.maximum_filter(whole, 3) > 0.3


def by_propagation(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Grow as scipy.ndimage offers it."""
    return ndimage.binary_propagation(high, structure=CONNECTED, mask=low | high)


def by_a_loop(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Grow as one would write it at first: each component in turn."""
    components, count = ndimage.label(low, CONNECTED)
    grown = high.copy()
    for number in range(1, count + 1):
        component = components == number
        if (component & high).any():
            grown |= component
    return grown


def measure() -> list[Measured]:
    """Measure this row."""
    whole, tumor, mask = maps()
    original = postprocess.grow

    def run(grow: object) -> np.ndarray:
        postprocess.grow = grow  # type: ignore[assignment]
        try:
            return postprocess.postprocess(whole, tumor, CONFIG, lnet_mask=mask)
        finally:
            postprocess.grow = original

    def agree(ours: np.ndarray, theirs: np.ndarray) -> str:
        np.testing.assert_array_equal(ours, theirs)
        return "identical"

    peers = {
        "scipy binary_propagation": (lambda: run(by_propagation), 3.0),
        "loop over components": (lambda: run(by_a_loop), 10.0),
    }
    return compare("Algorithm 1 on (128, 256, 256)", lambda: run(original), peers, agree, rounds=3)
