import numpy as np
import pytest

from tunet_lib.phantom.scanner import add_noise, blur


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_the_sd_and_the_correlation_of_a_real_scan(seed):
    noise = add_noise(
        np.zeros((40, 100, 100), np.float32), (3, 0.8, 0.8), np.random.default_rng(seed)
    ).astype(float)
    assert 18.5 < noise.std() < 26.5
    for axis, expected in enumerate((0.25, 0.4, 0.5)):
        a, b = (np.take(noise, range(s, noise.shape[axis] - 1 + s), axis) for s in (0, 1))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(expected, abs=0.02)


def test_blur_keeps_a_constant_and_spreads_one_voxel_to_its_neighbors():
    constant = np.full((5, 6, 7), -97, np.float32)
    blur(constant)
    np.testing.assert_allclose(constant, -97, rtol=1e-6)
    point = np.zeros((5, 5, 5), np.float32)
    point[2, 2, 2] = 1.4**3
    blur(point)
    assert point[2, 2, 2] == pytest.approx(1)
    assert point[2, 2, 3] == point[1, 2, 2] == pytest.approx(0.2)
    assert point[1, 1, 1] == pytest.approx(0.008)
    assert point.sum() == pytest.approx(1.4**3)
