"""The smallest cases, configuration and scores; every network trains on them in a moment."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunet_lib.config import VARIANTS, Config
from tunet_lib.evaluation import SCORE_FIELDS
from tunet_lib.files import load_array, save_array

SHAPE = (8, 16, 16)


def tiny_config(**changes):
    values = {
        "grid_shape": SHAPE,
        "lnet_shape": (4, 8, 8),
        "patch_shape": (8, 8, 8),
        "patch_stride": (4, 4, 4),
        "patch_sampling": "random",
        "patches_per_case": 4,
        "foreground_fraction": 0.3,
        "tumor_fraction": 0.3,
        "dice_over": "batch",
        "levels": 2,
        "filters": 2,
        "norm_groups": 2,
        "batch_size": 2,
        "batch_size_2d": 4,
        "learning_rate": 1e-2,
        "decay": "plateau",
        "warmup_epochs": 0,
        "epochs": 2,
        "first_prob": 0.5,
        "rotation_deg": 1.0,
        "zoom": 0.0,
        "mirror": False,
        "gain": 0.0,
        "shift": 0.0,
        "inner_validation": False,
        "lnet_threshold": 0.5,
        "lnet_margin_mm": 0.0,
    }
    return Config.preset("course", **{**values, **changes})


def random_model(name, **changes):
    """Give a network with weights that make every value count."""
    from tunet_lib.model import Model  # loads TensorFlow, which most processes do without

    model = Model.untrained(VARIANTS[name], tiny_config(**changes))
    rng = np.random.default_rng(0)
    weights = model.network.get_weights()  # kernels are drawn anew each time, the rest is 0 or 1
    fixed = [w if w.ndim == 1 else np.zeros_like(w) for w in weights]
    model.network.set_weights([w + rng.normal(0, 0.25, w.shape) for w in fixed])
    return model


@dataclass(frozen=True)
class TinyCase:
    """A prepared case on disk: a bright box, half of which is tumor, in noise."""

    case_id: str
    folder: Path

    def volume(self, median):
        return load_array(self.folder / ("median.npy" if median else "volume.npy"))

    def label(self):
        return load_array(self.folder / "label.npy")


def write_cases(folder, count, shape=SHAPE):
    cases = []
    for index in range(count):
        rng = np.random.default_rng(index)
        label = np.zeros(shape, np.uint8)
        z, y, x = (int(rng.integers(0, size // 2)) for size in shape)
        label[z : z + 4, y : y + 6, x : x + 6] = 1
        label[z : z + 2, y : y + 6, x : x + 6] = 2
        volume = (label + rng.normal(0, 0.5, shape)).astype(np.float16)
        case = TinyCase(f"case_{index:05d}", Path(folder) / f"case_{index:05d}")
        save_array(case.folder / "volume.npy", volume)
        save_array(case.folder / "median.npy", volume + np.float16(100))
        save_array(case.folder / "label.npy", label)
        cases.append(case)
    return cases


def score_row(system, fold, case_id, whole, tumor):
    """Give a scored case as if it had been scored on the grid only."""
    row = dict.fromkeys(SCORE_FIELDS)
    row |= {"system": system, "fold": fold, "case_id": case_id}
    return row | {"grid_whole": whole, "grid_tumor": tumor, "grid_mean": (whole + tumor) / 2}


# Fold means of TuNet: whole 0.7 and 0.9, tumor 0.2 and 0.4.
SCORE_ROWS = [
    score_row("tunet", 0, "case_00000", 0.6, 0.1),
    score_row("tunet", 0, "case_00001", 0.8, 0.3),
    score_row("tunet", 1, "case_00002", 0.9, 0.4),
    score_row("unet3d", 0, "case_00000", 0.5, 0.25),
]
