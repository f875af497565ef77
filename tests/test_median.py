import numpy as np
import pytest
from scipy import ndimage

from tunet_lib.median import median_3x3x3


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (9, 35, 20), (4, 16, 7), (5, 1, 33)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("spread", [1000, 2])  # 2: many voxels are equal
def test_the_same_as_scipys(shape, dtype, spread):
    for seed in range(5):
        volume = np.random.default_rng(seed).integers(-spread, spread, shape).astype(dtype)
        expected = ndimage.median_filter(volume, 3, mode="nearest")
        filtered = median_3x3x3(volume)
        np.testing.assert_array_equal(filtered, expected)
        assert filtered.dtype == dtype


def test_every_order_of_values_is_sorted_right():
    # Of zeros and ones in any arrangement: then it holds for all values (0-1 principle).
    rng = np.random.default_rng(0)
    ones = rng.random((40, 60, 60)) < np.linspace(0.3, 0.7, 40)[:, None, None]
    expected = ndimage.median_filter(ones.astype(np.uint8), 3, mode="nearest")
    np.testing.assert_array_equal(median_3x3x3(ones.astype(np.uint8)), expected)


def test_a_constant_stays():
    np.testing.assert_array_equal(median_3x3x3(np.full((5, 6, 7), -3.5)), -3.5)


def test_a_speck_goes_and_a_flat_wall_stays():
    volume = np.zeros((6, 6, 6))
    volume[:3] = 1
    volume[1, 1, 1], volume[5, 5, 3] = 50, -50
    filtered = median_3x3x3(volume)
    np.testing.assert_array_equal(filtered[:3], 1)
    np.testing.assert_array_equal(filtered[3:], 0)
