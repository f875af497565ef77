import weakref

import numpy as np
import pytest

from tunet_lib.ensemble import mean_maps
from tunet_lib.files import DataError


def test_mean_by_hand():
    maps = [np.array([[0.0, 0.5]]), np.array([[0.5, 0.5]]), np.array([[1.0, 0.125]])]
    mean = mean_maps(maps)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, [[0.5, 0.375]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_in_constant_out(dtype):
    constant = np.full((2, 3, 4), 0.3, dtype)
    np.testing.assert_allclose(mean_maps([constant] * 20), constant, rtol=1e-6)


def test_one_map_is_its_own_mean_and_is_not_changed():
    only = np.array([0.25, 0.75], np.float32)
    mean = mean_maps([only])
    np.testing.assert_array_equal(mean, only)
    mean += 1
    np.testing.assert_array_equal(only, [0.25, 0.75])


def test_maps_are_taken_one_at_a_time():
    # Every map is the same memory, overwritten: a mean that kept them all would be wrong.
    buffer = np.zeros(3, np.float32)

    def predict():
        for value in (0.0, 0.25, 0.5, 1.0):
            buffer[:] = value
            yield buffer

    np.testing.assert_array_equal(mean_maps(predict()), np.full(3, 0.4375))


def test_no_map_is_rejected():
    with pytest.raises(DataError, match="at least one"):
        mean_maps([])


def test_shapes_that_would_broadcast_are_rejected():
    with pytest.raises(DataError, match=r"map 2 .* shape \(1, 4\)"):
        mean_maps([np.zeros((3, 4)), np.zeros((1, 4))])


def test_no_map_is_alive_while_the_next_is_made():
    made = []

    def maps():
        for _ in range(3):
            assert all(reference() is None for reference in made)
            prob = np.ones((2, 2, 2), np.float32)
            made.append(weakref.ref(prob))
            yield prob
            del prob

    np.testing.assert_array_equal(mean_maps(maps()), 1)
    assert len(made) == 3
