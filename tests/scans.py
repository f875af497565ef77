"""Tiny scans in KiTS19's layout, a configuration for them, and untrained networks."""

from pathlib import Path

import numpy as np
from tiny import tiny_config

from tunet_lib.config import VARIANTS
from tunet_lib.files import save_json
from tunet_lib.kits19 import save_case

SHAPE = (16, 32, 32)
SPACING_MM = (4.0, 4.0, 4.0)


def scan_config(**changes):
    values = {"grid_fov_mm": (64.0, 128.0, 128.0), "resample_spacing_mm": SPACING_MM}
    return tiny_config(**{**values, "folds": 2, "epochs": 1, "patches_per_case": 2, **changes})


def box_scan(seed):
    """A bright box, half of which is a darker tumor, in noise."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    z, y, x = (int(rng.integers(2, size // 2)) for size in SHAPE)
    label[z : z + 6, y : y + 12, x : x + 12] = 1
    label[z : z + 3, y : y + 12, x : x + 12] = 2
    volume_hu = np.array([0, 150, 60])[label] + rng.normal(0, 20, SHAPE)
    return volume_hu.astype(np.int16), label


def write_scans(folder, count=4):
    return [
        save_case(folder, f"case_{index:05d}", *box_scan(index), SPACING_MM)
        for index in range(count)
    ]


def save_untrained(run, names=tuple(VARIANTS)):
    """Save networks as if they had been trained, for every fold of a run."""
    for fold, held_out in enumerate(run.folds):
        seen = [c for ids in run.folds for c in ids if c not in held_out]
        for name in names:
            save_network(run.model_folder(name, fold), name, run.config, seed=fold)
            save_json(run.model_folder(name, fold) / "training_cases.json", sorted(seen))


def save_network(folder, name, config, seed=0):
    import keras

    from tunet_lib.networks import build, save_model

    keras.utils.set_random_seed(seed)
    save_model(build(VARIANTS[name], config), VARIANTS[name], config, Path(folder))
