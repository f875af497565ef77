import math
import subprocess
import sys

import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from tunet_lib.files import DataError
from tunet_lib.metrics import (
    SurfaceDistances,
    dice,
    kits19_score,
    surface_distances,
    volume_ml,
)

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")


def mask(*on, size=4):
    array = np.zeros(size, bool)
    array[list(on)] = True
    return array


def box(shape, *slices):
    array = np.zeros(shape, bool)
    array[slices] = True
    return array


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (mask(0, 1), mask(0, 1), 1.0),
        (mask(0, 1), mask(2, 3), 0.0),
        (mask(0, 1), mask(1, 2), 0.5),
        (mask(0), mask(0, 1, 2), 0.5),
        (mask(0, 1, 2, 3), mask(0), 0.4),
        (mask(), mask(0), 0.0),
        (mask(0), mask(), 0.0),
    ],
)
def test_dice_by_hand(predicted, truth, expected):
    assert dice(predicted, truth) == expected
    assert dice(truth, predicted) == expected


def test_dice_of_two_empty_masks_is_the_named_value():
    assert dice(mask(), mask()) == 1.0
    assert dice(mask(), mask(), empty=0.0) == 0.0
    assert math.isnan(dice(mask(), mask(), empty=math.nan))


def test_masks_of_another_shape_or_dtype_are_rejected():
    with pytest.raises(DataError, match="one grid"):
        dice(mask(), mask(size=5))
    with pytest.raises(DataError, match="bool masks"):
        dice(mask().astype(np.uint8), mask())


def test_kits19_score_by_hand():
    truth = np.array([0, 1, 1, 2, 2, 0])
    predicted = np.array([0, 1, 2, 2, 0, 1])
    score = kits19_score(predicted, truth)
    # whole: 3 in common of 4 + 4; tumor: 1 in common of 2 + 2
    assert score == {"whole": 0.75, "tumor": 0.5, "mean": 0.625}


def test_kits19_score_without_tumor():
    kidney = np.array([0, 1])
    assert kits19_score(kidney, kidney) == {"whole": 1.0, "tumor": 1.0, "mean": 1.0}
    assert kits19_score(kidney, kidney, empty=0.0) == {"whole": 1.0, "tumor": 0.0, "mean": 0.5}
    assert kits19_score(kidney, np.array([0, 2]))["tumor"] == 0.0


def test_volume_by_hand():
    # 2 x 3 x 4 voxels of 2.5 x 0.8 x 0.5 mm: 24 of 1 mm³
    block = box((5, 6, 7), slice(1, 3), slice(2, 5), slice(0, 4))
    assert volume_ml(block, (2.5, 0.8, 0.5)) == pytest.approx(0.024)
    assert volume_ml(block, [10, 10, 10]) == 24.0
    assert volume_ml(np.zeros_like(block), (2.5, 0.8, 0.5)) == 0.0
    assert type(volume_ml(block, np.array([2.5, 0.8, 0.5]))) is float


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.0, 1.0), (2.5, 0.8, 0.7)])
@pytest.mark.parametrize("shift", [None, 2, 20])
def test_surfaces_measure_what_the_reference_package_measures(spacing_mm, shift):
    rng = np.random.default_rng(0)
    truth, other = (ndimage.gaussian_filter(rng.normal(size=(20, 40, 50)), 3) > 0.03 for _ in "ab")
    predicted = other if shift is None else np.roll(truth, shift, axis=1)
    reference = surface_distance.compute_surface_distances(truth, predicted, spacing_mm)
    ours = surface_distances(predicted, truth, spacing_mm, tolerance_mm=2.0)
    hd95_mm = surface_distance.compute_robust_hausdorff(reference, 95)
    mean_mm = np.mean(surface_distance.compute_average_surface_distance(reference))
    within = surface_distance.compute_surface_dice_at_tolerance(reference, 2.0)
    np.testing.assert_allclose(
        [ours.hd95_mm, ours.mean_mm, ours.surface_dice], [hd95_mm, mean_mm, within], rtol=1e-9
    )


def test_surfaces_of_the_same_mask():
    cube = box((9, 9, 9), slice(3, 6), slice(3, 6), slice(3, 6))
    same = surface_distances(cube, cube, (3.0, 1.0, 1.0), tolerance_mm=0.0)
    assert same == SurfaceDistances(0.0, 0.0, 1.0)


def test_surfaces_of_two_slabs_by_hand():
    # Two plates of one voxel's thickness, 4 slices of 2.5 mm apart, and wide: all but
    # the rim of one surface is between 3 and 5 slices from the other.
    shape = (12, 40, 40)
    one = box(shape, slice(3, 4))
    other = box(shape, slice(7, 8))
    apart = surface_distances(one, other, (2.5, 1.0, 1.0), tolerance_mm=2.0)
    assert apart.hd95_mm == 10.0
    assert 7.5 < apart.mean_mm < 10.0
    assert apart.surface_dice == 0.0
    assert surface_distances(one, other, (2.5, 1.0, 1.0), tolerance_mm=10.0).surface_dice == 1.0


def test_hd95_passes_over_a_speck_far_away():
    truth = box((20, 20, 40), slice(4, 16), slice(4, 16), slice(4, 16))
    predicted = truth | box(truth.shape, 10, 10, 38)
    figures = surface_distances(predicted, truth, (1.0, 1.0, 1.0), tolerance_mm=1.0)
    assert figures.hd95_mm == 0.0
    assert figures.mean_mm > 0.0
    assert 0.95 < figures.surface_dice < 1.0


def test_surface_figures_do_not_depend_on_the_order_of_the_masks():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 6, 7, 8)) > 0.7
    there = surface_distances(one, other, (2.0, 1.0, 0.5), tolerance_mm=0.5)
    back = surface_distances(other, one, (2.0, 1.0, 0.5), tolerance_mm=0.5)
    assert vars(there) == pytest.approx(vars(back))


def test_space_around_the_masks_changes_nothing():
    rng = np.random.default_rng(1)
    pair = rng.random((2, 5, 6, 7)) > 0.7
    wide = np.pad(pair, ((0, 0), (3, 9), (11, 2), (4, 8)))
    tight, loose = (
        surface_distances(*masks, (3.0, 1.0, 1.0), tolerance_mm=1.0) for masks in (pair, wide)
    )
    assert tight == loose


def test_surfaces_of_empty_masks():
    cube = box((4, 4, 4), slice(1, 3), slice(1, 3), slice(1, 3))
    nothing = np.zeros_like(cube)
    missed = SurfaceDistances(math.inf, math.inf, 0.0)
    assert surface_distances(nothing, cube, (1, 1, 1), tolerance_mm=1.0) == missed
    assert surface_distances(cube, nothing, (1, 1, 1), tolerance_mm=1.0) == missed
    both = surface_distances(nothing, nothing, (1, 1, 1), tolerance_mm=1.0)
    assert all(map(math.isnan, vars(both).values()))
    named = surface_distances(nothing, nothing, (1, 1, 1), tolerance_mm=1.0, empty=0.0)
    assert named == SurfaceDistances(0.0, 0.0, 0.0)


def test_importing_loads_neither_tensorflow_nor_scipy():
    code = (
        "import sys, tunet_lib.metrics, tunet_lib.postprocess, tunet_lib.evaluation, "
        "tunet_lib.ensemble, tunet_lib.table; "
        "print([m for m in ('tensorflow', 'keras', 'scipy') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert loaded.stdout.strip() == "[]", loaded.stderr


@pytest.mark.parametrize("at", [2, 7, 11])
def test_a_surface_as_far_as_the_tolerance_is_within_it_wherever_it_lies(at):
    one, other = np.zeros((2, 12, 12, 30), bool)
    one[3:8, 3:8, at : at + 5] = other[3:8, 3:8, at + 5 : at + 10] = True
    figures = surface_distances(one, other, (1.0, 1.0, 0.4), tolerance_mm=2.0)
    assert figures.surface_dice == 1
