"""Windows over a volume: where they lie, what they hold, and the mean of what they answer."""

import numpy as np
import pytest

from tunet_lib.config import Config
from tunet_lib.files import DataError
from tunet_lib.windows import (
    block_mean,
    box_around,
    cut_patch,
    predict_windows,
    starts_at,
    window_starts,
)


@pytest.mark.parametrize(
    ("size", "window", "stride", "starts"),
    [
        (8, 8, 4, [0]),
        (8, 4, 4, [0, 4]),
        (8, 4, 2, [0, 2, 4]),
        (9, 4, 4, [0, 4, 5]),  # the last one is moved back to the border
        (9, 4, 3, [0, 3, 5]),
        (5, 4, 4, [0, 1]),
        (3, 4, 2, [0]),  # the window is larger than the volume
        (1, 1, 1, [0]),
    ],
)
def test_starts_along_each_axis(size, window, stride, starts):
    for axis in range(3):
        shape, width, step = [7, 7, 7], [7, 7, 7], [1, 1, 1]
        shape[axis], width[axis], step[axis] = size, window, stride
        found = window_starts(tuple(shape), tuple(width), tuple(step))
        assert [start[axis] for start in found] == starts
        assert all(sum(start) == start[axis] for start in found)


def test_starts_are_in_raster_order():
    assert window_starts((4, 2, 4), (2, 2, 2), (2, 2, 2)) == [
        (0, 0, 0),
        (0, 0, 2),
        (2, 0, 0),
        (2, 0, 2),
    ]


def test_25_windows_on_the_paper_grid():
    paper = Config.preset("paper")
    starts = window_starts(paper.grid_shape, paper.patch_shape, paper.patch_stride)
    in_plane = (0, 32, 64, 96, 128)
    assert starts == [(0, y, x) for y in in_plane for x in in_plane]


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_every_voxel_and_stay_inside(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 14, 3)
    window = rng.integers(1, 8, 3)
    stride = rng.integers(1, window + 1)
    covered = np.zeros(shape, int)
    starts = window_starts(tuple(shape), tuple(window), tuple(stride))
    for z, y, x in starts:
        assert (np.array([z, y, x]) + window <= np.maximum(window, shape)).all()
        covered[z : z + window[0], y : y + window[1], x : x + window[2]] += 1
    assert covered.min() >= 1
    assert len(set(starts)) == len(starts)


def test_block_mean_by_hand():
    volume = np.arange(16, dtype=np.float16).reshape(2, 2, 4)
    means = block_mean(volume, (2, 1, 2))
    np.testing.assert_array_equal(means, [[[4.5, 6.5], [8.5, 10.5]]])
    assert means.dtype == np.float32
    mask = block_mean(volume > 7, (2, 2, 4))
    np.testing.assert_array_equal(mask, [[[0.5]]])


def test_block_mean_keeps_a_constant():
    # 1000 * 1000.5 does not fit float16: the sum must be float32.
    means = block_mean(np.full((10, 20, 20), 1000.5, np.float16), (10, 10, 10))
    np.testing.assert_array_equal(means, np.full((1, 2, 2), 1000.5))


VOLUME = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def test_patch_inside():
    patch = cut_patch(VOLUME, (1, 2, 1), (2, 1, 3))
    np.testing.assert_array_equal(patch, VOLUME[1:3, 2:3, 1:4])
    assert patch.dtype == np.int16


def test_patch_is_a_copy():
    patch = cut_patch(VOLUME, (0, 0, 0), VOLUME.shape)
    np.testing.assert_array_equal(patch, VOLUME)
    assert not np.shares_memory(patch, VOLUME)


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3), (2, 3, 4), (-2, -1, -3)])
def test_patch_that_reaches_outside_repeats_the_border(start):
    padded = np.pad(VOLUME, 4, mode="edge")
    block = tuple(slice(s + 4, s + 4 + 3) for s in start)
    np.testing.assert_array_equal(cut_patch(VOLUME, start, (3, 3, 3)), padded[block])


def test_margin_is_in_plane_only():
    patch = cut_patch(VOLUME, (1, 0, 3), (1, 2, 2), margin=2)
    padded = np.pad(VOLUME, ((0, 0), (2, 2), (2, 2)), mode="edge")
    np.testing.assert_array_equal(patch, padded[1:2, 0:6, 3:9])


CASES = [
    # shape, window, stride
    ((8, 8, 8), (8, 8, 8), (4, 4, 4)),
    ((8, 8, 8), (4, 4, 4), (4, 4, 4)),
    ((8, 9, 7), (4, 4, 4), (2, 3, 1)),
    ((3, 9, 7), (4, 4, 4), (4, 4, 4)),  # the window is larger along z
    ((3, 2, 1), (4, 4, 4), (1, 1, 1)),  # and along all
    ((5, 6, 7), (1, 6, 7), (1, 6, 7)),
]


def over_windows(predict, volume, window, stride, batch_size=1, where=None):
    starts = window_starts(volume.shape, window, stride)
    if where is not None:
        starts = starts_at(where, starts, window)
    return predict_windows(predict, volume, starts, window=window, batch_size=batch_size)


def random_volume(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def add_one(batch):
    return batch + 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize(("shape", "window", "stride"), CASES)
def test_a_prediction_that_adds_one(shape, window, stride, batch_size):
    volume = random_volume(*shape)
    result = over_windows(add_one, volume, window, stride, batch_size)
    assert result.shape == (*shape, 1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[..., 0], volume + 1, rtol=1e-6)


@pytest.mark.parametrize(("shape", "window", "stride"), CASES)
def test_constant_in_constant_out(shape, window, stride):
    def predict(batch):
        return np.repeat(batch, 2, axis=-1) * np.float32([1, 0.3])

    result = over_windows(predict, np.full(shape, 0.7, np.float32), window, stride)
    np.testing.assert_allclose(result[..., 0], 0.7, rtol=1e-6)
    np.testing.assert_allclose(result[..., 1], 0.21, rtol=1e-6)


class WindowIndex:
    """Predicts for each window which one it is, in the order it was asked for them."""

    def __init__(self):
        self.seen = 0

    def __call__(self, batch):
        first, self.seen = self.seen, self.seen + len(batch)
        indices = np.arange(first, self.seen, dtype=np.float32)
        return np.broadcast_to(indices.reshape(-1, 1, 1, 1, 1), batch.shape)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_mean_at_overlaps_by_hand(batch_size):
    volume = np.zeros((1, 1, 7), np.float32)  # windows start at 0, 2 and 3
    result = over_windows(WindowIndex(), volume, (1, 1, 4), (1, 1, 2), batch_size)
    np.testing.assert_allclose(result.ravel(), [0, 0, 0.5, 1, 1.5, 1.5, 2])


def test_the_mean_at_overlaps_in_plane_by_hand():
    volume = np.zeros((1, 3, 3), np.float32)  # four windows
    result = over_windows(WindowIndex(), volume, (1, 2, 2), (1, 1, 1))
    np.testing.assert_allclose(result[0, ..., 0], [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])


def test_no_batch_is_larger_than_asked_for():
    sizes = []

    def predict(batch):
        sizes.append(batch.shape)
        return batch

    over_windows(predict, np.zeros((2, 2, 5), np.float16), (2, 2, 1), (2, 2, 1), batch_size=2)
    assert sizes == [(2, 2, 2, 1, 1), (2, 2, 2, 1, 1), (1, 2, 2, 1, 1)]


def test_a_window_that_exceeds_the_volume_sees_its_border_repeated():
    batches = []

    def predict(batch):
        batches.append(batch)
        return batch

    volume = random_volume(2, 3, 3)
    over_windows(predict, volume, (4, 4, 4), (2, 2, 2))
    expected = np.pad(volume, ((0, 2), (0, 1), (0, 1)), mode="edge")
    np.testing.assert_array_equal(batches[0][0, ..., 0], expected)


def test_each_of_25_windows_is_predicted_once():
    seen = WindowIndex()
    over_windows(seen, np.zeros((4, 8, 8), np.float32), (4, 4, 4), (1, 1, 1))
    assert seen.seen == 25


MASK = np.zeros((4, 24, 24), bool)
MASK[:, 2:9, 2:9] = True
INSIDE = ((1, 3, 3), (2, 4, 4))


def test_windows_that_reach_the_mask_give_the_same_inside_it():
    volume = random_volume(4, 24, 24)
    everywhere = over_windows(add_one, volume, (4, 8, 8), (4, 4, 4))
    limited = over_windows(add_one, volume, (4, 8, 8), (4, 4, 4), where=MASK)
    np.testing.assert_array_equal(limited[MASK], everywhere[MASK])
    assert not limited[:, 20:, 20:].any()


def test_an_empty_mask_is_an_error():
    with pytest.raises(DataError, match="the mask is empty"):
        over_windows(
            add_one, random_volume(4, 8, 8), (4, 4, 4), (4, 4, 4), where=MASK[:, :8, :8] & False
        )


def test_windows_that_hold_something_of_the_mask_by_hand():
    where = np.zeros((1, 1, 8), bool)
    where[0, 0, [3, 6]] = True
    starts = window_starts((1, 1, 8), (1, 1, 2), (1, 1, 2))
    assert starts_at(where, starts, (1, 1, 2)) == [(0, 0, 2), (0, 0, 6)]


def test_each_batch_tells_its_share():
    parts = []
    volume = np.zeros((1, 1, 5), np.float32)
    starts = window_starts((1, 1, 5), (1, 1, 1), (1, 1, 1))
    predict_windows(add_one, volume, starts, window=(1, 1, 1), batch_size=2, on_part=parts.append)
    assert parts == [0.4, 0.4, 0.2]


def test_the_box_around_a_mask_by_hand():
    where = np.zeros((20, 100, 100), bool)
    where[8:10, 40:44, 2:5] = True
    # 25 mm are 5 voxels of 5 mm along z, and 13 of 2 mm in plane.
    box = box_around(where, (4, 8, 8), (5.0, 2.0, 2.0))
    assert box == (slice(3, 15), slice(27, 57), slice(0, 18))
    # Less than a window: it is widened about its middle, as far as the volume goes.
    box = box_around(where, (16, 64, 64), (5.0, 2.0, 2.0))
    assert box == (slice(1, 17), slice(10, 74), slice(0, 64))
    assert box_around(where, (32, 8, 8), (5.0, 2.0, 2.0))[0] == slice(0, 20)
