import itertools

import numpy as np
import pytest

from tunet_lib.boxes import box_of


def test_a_row_gives_one_slice():
    assert box_of(np.array([0, 0, 1, 0, 1, 0], bool)) == (slice(2, 5),)
    assert box_of(np.array([1], bool)) == (slice(0, 1),)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (1, 1, 1), (1, 5, 2, 3)])
def test_a_full_mask_is_its_own_box(shape):
    assert box_of(np.ones(shape, bool)) == tuple(slice(0, size) for size in shape)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 3), (3, 0)])
def test_an_empty_mask_has_an_empty_box(shape):
    mask = np.zeros(shape, bool)
    assert box_of(mask) == (slice(0, 0),) * len(shape)
    assert mask[box_of(mask)].size == 0


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_left_out_and_nothing_could_be(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 8, 9)) < 0.01
    mask[3, 4, int(rng.integers(9))] = True
    box = box_of(mask)
    places = np.argwhere(mask)
    assert [part.start for part in box] == places.min(axis=0).tolist()
    assert [part.stop for part in box] == (places.max(axis=0) + 1).tolist()
    assert mask[box].sum() == mask.sum()


def test_one_voxel_in_any_corner():
    for corner in itertools.product((0, 4), (0, 5), (0, 6)):
        mask = np.zeros((5, 6, 7), bool)
        mask[corner] = True
        assert box_of(mask) == tuple(slice(place, place + 1) for place in corner)


def test_whatever_is_not_zero_is_set():
    assert box_of(np.array([[0, 0.0, -0.5], [0, 2, 0]])) == (slice(0, 2), slice(1, 3))
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 2:4, 0] = 2
    assert box_of(label) == (slice(1, 2), slice(2, 4), slice(0, 1))
