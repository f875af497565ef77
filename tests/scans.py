"""Tiny scans in KiTS19's layout, a configuration for them, and untrained networks."""

import itertools
import weakref

import numpy as np
from nibabel import orientations
from tiny import tiny_config

from tunet_lib.config import VARIANTS, Config
from tunet_lib.kits19 import save_case

SHAPE = (16, 32, 32)
SPACING_MM = (4.0, 4.0, 4.0)

# A CT of which no two voxels are alike, in KiTS19's orientation, and a label map for it.
VOLUME = np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6)
LABEL = (np.arange(120, dtype=np.uint8) % 3).reshape(4, 5, 6)
VOLUME_MM = (3.0, 0.8, 0.7)
AFFINE = np.array([[0, 0, -0.7, 0], [0, -0.8, 0, 0], [-3, 0, 0, 0], [0, 0, 0, 1]])

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]

# A grid of 8 x 16 x 16 voxels of 4 x 2 x 2 mm: 32 x 32 x 32 mm
SMALL = Config(
    resample_spacing_mm=(2.0, 1.0, 1.0),
    grid_fov_mm=(32.0, 32.0, 32.0),
    grid_shape=(8, 16, 16),
    lnet_shape=(4, 8, 8),
    levels=3,
    patch_shape=(8, 8, 8),
    patch_stride=(8, 8, 8),
)


def as_oriented(image, codes):
    """Turn a nibabel image to an orientation such as "RAS"."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes)
    )
    return image.as_reoriented(turn)


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
        save_case(folder / f"case_{index:05d}", *box_scan(index), spacing_mm=SPACING_MM)
        for index in range(count)
    ]


def save_untrained(run, names=tuple(VARIANTS)):
    """Save networks as if they had been trained, for every fold of a run."""
    for fold, held_out in enumerate(run.folds):
        seen = [c for ids in run.folds for c in ids if c not in held_out]
        for name in names:
            folder = run.model_folder((name, fold))
            if not folder.is_trained:
                folder.note_cases(sorted(seen))
            save_network(folder.path, name, run.config, seed=fold)


def save_network(folder, name, config, seed=0):
    from tunet_lib.model import Model
    from tunet_lib.quiet import keras

    keras.utils.set_random_seed(seed)
    Model.untrained(VARIANTS[name], config).save(folder)


def one_map_at_a_time(made):
    """Give a `Model.predict` that notes its maps in `made` and wants the ones before to be gone."""

    def answer(self, volumes, **_):
        assert all(reference() is None for reference in made)
        shape = volumes[self.variant.median].shape
        prob = np.zeros((*shape, len(self.variant.regions)), np.float32)
        made.append(weakref.ref(prob))
        return prob

    return answer
