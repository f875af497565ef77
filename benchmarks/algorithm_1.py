"""Algorithm 1 on a case of (128, 256, 256): region growing three ways."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from benchmarks.cases import full_size_case
from benchmarks.harness import Measured, compare
from tunet_lib import postprocess
from tunet_lib.config import Config
from tunet_lib.kits19 import require_image, require_label
from tunet_lib.placement import Placement
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import load_label, open_scan

CONFIG = Config.preset("paper")
CONNECTED = np.ones((3, 3, 3), bool)


def maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the smoothed regions of a case, noisy within the body, and a mask around them.

    Noise makes some hundred components besides, as a network in mid-training does.
    """
    case = full_size_case()
    scan = open_scan(require_image(case))
    label = Placement(scan, CONFIG).label_to_grid(load_label(require_label(case)))
    body = prepare_scan(scan, CONFIG, [False])[False] > 0
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=label.shape), 1.2)
    noise *= 0.13 * body / noise.std()
    whole, tumor = (
        np.clip(ndimage.gaussian_filter((label >= least) * 1.0, 1.0) + noise, 0, 1)
        for least in (1, 2)
    )
    mask = ndimage.binary_dilation(label > 0, iterations=2)
    return whole.astype(np.float32), tumor.astype(np.float32), mask


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
