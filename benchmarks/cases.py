"""What is measured: a CT of 512x512x216 and its label map, made once and kept."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from tunet_lib.kits19 import LABEL_NAME, Case, find_cases, save_case
from tunet_lib.phantom import make_phantom

FOLDER = Path("data") / "benchmarks"
SHAPE, SPACING_MM = (216, 512, 512), (2.0, 0.78, 0.78)


@functools.cache
def full_size_case() -> Case:
    """Give a phantom with 216 slices of 512x512 as int16 .nii.gz, with its label map."""
    folder = FOLDER / "full_size"
    if not (folder / "case_00000" / LABEL_NAME).exists():  # it is written last
        volume_hu, label, spacing_mm = make_phantom(np.random.default_rng(7), SHAPE, SPACING_MM)
        save_case(folder / "case_00000", volume_hu, label, spacing_mm=spacing_mm)
    return find_cases(folder)[0]
