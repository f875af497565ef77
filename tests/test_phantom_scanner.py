import math

import numpy as np
import pytest

from tunet_lib.phantom.scanner import add_noise, blur, noise_scale


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


def test_noise_of_a_mean_over_a_voxel():
    assert noise_scale((3, 0.8, 0.8)) == 1
    # 6 mm are a = 2 ln 4 instead of ln 4: f(a) = 2 / a^2 (a - 1 + exp(-a))
    double, single = 2 * math.log(4), math.log(4)
    expected = (double - 1 + 1 / 16) / (4 * (single - 1 + 1 / 4))
    assert noise_scale((6, 0.8, 0.8)) == pytest.approx(math.sqrt(expected), rel=1e-12)
    assert noise_scale((4, 2.9, 2.9)) == pytest.approx(0.56, abs=0.005)
    # Far smaller than the correlation reaches, a voxel has the noise of a point; far larger,
    # the noise falls with the square root of the volume.
    point = math.prod(2 / a**2 * (a - 1 + math.exp(-a)) for a in np.log([4, 2.5, 2]))
    assert noise_scale((1e-3, 1e-3, 1e-3)) == pytest.approx(point**-0.5, rel=1e-3)
    ratio = noise_scale((4e6, 1e6, 1e6)) / noise_scale((1e6, 1e6, 1e6))
    assert ratio == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1, 0.6, 0.6), (3, 0.8, 0.8), (4, 2.9, 2.9), (10, 8, 8)])
def test_noise_has_the_sd_that_belongs_to_the_voxel(spacing_mm):
    volume_hu = add_noise(
        np.full((40, 100, 100), -97, np.float32), spacing_mm, np.random.default_rng(4)
    ).astype(float)
    # The SD is the first number drawn. Rounding to whole HU adds 1/12 to the variance.
    sd = np.random.default_rng(4).uniform(19, 26) * noise_scale(spacing_mm)
    assert volume_hu.std() == pytest.approx(math.hypot(sd, 12**-0.5), rel=0.02)
    assert volume_hu.mean() == pytest.approx(-97, abs=1)
