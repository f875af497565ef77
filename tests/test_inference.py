from types import SimpleNamespace

import numpy as np
import pytest
from tiny import tiny_config

from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.inference import predict_volume, predict_windows
from tunet_lib.networks import build
from tunet_lib.postprocess import postprocess

CASES = [
    # shape, window, stride
    ((8, 8, 8), (8, 8, 8), (4, 4, 4)),
    ((8, 8, 8), (4, 4, 4), (4, 4, 4)),
    ((8, 9, 7), (4, 4, 4), (2, 3, 1)),
    ((3, 9, 7), (4, 4, 4), (4, 4, 4)),  # the window is larger along z
    ((3, 2, 1), (4, 4, 4), (1, 1, 1)),  # and along all
    ((5, 6, 7), (1, 6, 7), (1, 6, 7)),
]


def random_volume(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def add_one(batch):
    return batch + 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize(("shape", "window", "stride"), CASES)
def test_a_prediction_that_adds_one(shape, window, stride, batch_size):
    volume = random_volume(*shape)
    result = predict_windows(add_one, volume, window, stride, batch_size)
    assert result.shape == (*shape, 1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[..., 0], volume + 1, rtol=1e-6)


@pytest.mark.parametrize(("shape", "window", "stride"), CASES)
def test_constant_in_constant_out(shape, window, stride):
    def predict(batch):
        return np.repeat(batch, 2, axis=-1) * np.float32([1, 0.3])

    result = predict_windows(predict, np.full(shape, 0.7, np.float32), window, stride)
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
    result = predict_windows(WindowIndex(), volume, (1, 1, 4), (1, 1, 2), batch_size)
    np.testing.assert_allclose(result.ravel(), [0, 0, 0.5, 1, 1.5, 1.5, 2])


def test_the_mean_at_overlaps_in_plane_by_hand():
    volume = np.zeros((1, 3, 3), np.float32)  # four windows
    result = predict_windows(WindowIndex(), volume, (1, 2, 2), (1, 1, 1))
    np.testing.assert_allclose(result[0, ..., 0], [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])


def test_no_batch_is_larger_than_asked_for():
    sizes = []

    def predict(batch):
        sizes.append(batch.shape)
        return batch

    predict_windows(predict, np.zeros((2, 2, 5), np.float16), (2, 2, 1), (2, 2, 1), batch_size=2)
    assert sizes == [(2, 2, 2, 1, 1), (2, 2, 2, 1, 1), (1, 2, 2, 1, 1)]


def test_a_window_that_exceeds_the_volume_sees_its_border_repeated():
    batches = []

    def predict(batch):
        batches.append(batch)
        return batch

    volume = random_volume(2, 3, 3)
    predict_windows(predict, volume, (4, 4, 4), (2, 2, 2))
    expected = np.pad(volume, ((0, 2), (0, 1), (0, 1)), mode="edge")
    np.testing.assert_array_equal(batches[0][0, ..., 0], expected)


def test_25_predictions_for_the_paper_grid():
    seen = WindowIndex()
    predict_windows(seen, np.zeros((4, 8, 8), np.float32), (4, 4, 4), (1, 1, 1))
    assert seen.seen == 25


IDENTITY = SimpleNamespace(predict_on_batch=lambda batch: batch)
LNET = VARIANTS["lnet"]


@pytest.mark.parametrize("shape", [(8, 16, 16), (10, 20, 16), (2, 16, 16), (9, 17, 16)])
def test_lnet_gives_the_grids_shape_and_keeps_a_constant(shape):
    result = predict_volume(IDENTITY, LNET, np.full(shape, 0.4, np.float32), tiny_config())
    assert result.shape == (*shape, 1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.4, rtol=1e-6)


def test_lnet_by_hand():
    # Blocks of two have means 0 and 4; linear between their centers, flat outside.
    volume = np.broadcast_to(np.float32([0, 0, 3, 5]), (8, 16, 4))
    result = predict_volume(IDENTITY, LNET, volume, tiny_config())
    np.testing.assert_allclose(result[..., 0], np.broadcast_to([0, 1, 3, 4], (8, 16, 4)))


@pytest.mark.parametrize(
    ("grid", "seen"),
    [((8, 16, 16), (4, 8, 8)), ((16, 16, 18), (8, 8, 10)), ((2, 16, 32), (4, 8, 16))],
)
def test_lnet_sees_one_downsampled_volume_however_large(grid, seen):
    shapes = []

    def predict(batch):
        shapes.append(batch.shape)
        return batch

    predict_volume(
        SimpleNamespace(predict_on_batch=predict), LNET, np.zeros(grid, np.float32), tiny_config()
    )
    assert shapes == [(1, *seen, 1)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_2d_is_slice_by_slice(batch_size):
    model = build(VARIANTS["unet2d"], tiny_config())
    volume = random_volume(8, 16, 16)
    result = predict_volume(model, VARIANTS["unet2d"], volume, tiny_config(), batch_size)
    slices = [model.predict_on_batch(plane[None, ..., None])[0] for plane in volume]
    assert result.shape == (8, 16, 16, 2)
    np.testing.assert_allclose(result, np.stack(slices), atol=1e-6)


def test_batch_sizes_agree_for_tunet():
    model = build(VARIANTS["tunet"], tiny_config())
    volume = random_volume(8, 16, 16).astype(np.float16)
    one = predict_volume(model, VARIANTS["tunet"], volume, tiny_config(), batch_size=1)
    assert one.shape == (8, 16, 16, 2)
    assert one.min() > 0
    assert one.max() < 1
    four = predict_volume(model, VARIANTS["tunet"], volume, tiny_config(), batch_size=4)
    np.testing.assert_allclose(one, four, atol=1e-6)


def blob_maps(*blobs, shape=(4, 24, 24)):
    """Give a volume that is a probability map: boxes (corner, size, probability)."""
    volume = np.zeros(shape, np.float32)
    for corner, size, prob in blobs:
        volume[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = prob
    return volume


def whole_and_tumor(batch):
    """Whole where the volume is above 0, tumor with the volume's own value."""
    return np.concatenate([(batch > 0).astype(np.float32), batch], axis=-1)


def labels_both_ways(volume, mask, **changes):
    """Give the label maps with all windows, and with those that reach the mask."""
    config = tiny_config(small_tumor_voxels=10, **changes)
    labels, counts = [], []
    for where in (None, mask):
        windows = []

        def predict(batch, windows=windows):
            windows.append(len(batch))
            return whole_and_tumor(batch)

        maps = predict_windows(predict, volume, (4, 8, 8), (4, 4, 4), where=where)
        if where is not None:
            maps[~where] = 0  # as `predict_scan` does
        labels.append(
            postprocess(maps[..., 0], maps[..., 1], config, lnet_mask=mask, voxel_volume_mm3=25.0)
        )
        counts.append(sum(windows))
    assert counts[1] < counts[0]
    return labels


MASK = np.zeros((4, 24, 24), bool)
MASK[:, 2:9, 2:9] = True
INSIDE = ((1, 3, 3), (2, 4, 4))


def test_windows_that_reach_the_mask_give_the_same_inside_it():
    volume = random_volume(4, 24, 24)
    everywhere = predict_windows(add_one, volume, (4, 8, 8), (4, 4, 4))
    limited = predict_windows(add_one, volume, (4, 8, 8), (4, 4, 4), where=MASK)
    np.testing.assert_array_equal(limited[MASK], everywhere[MASK])
    assert not limited[:, 20:, 20:].any()


@pytest.mark.parametrize("prob", [0.9, 0.35, 0.15])
@pytest.mark.parametrize("outside", [[], [((0, 18, 18), (2, 3, 3), 0.05)]])
def test_the_label_map_is_the_same_if_nothing_outside_matters(prob, outside):
    full, limited = labels_both_ways(blob_maps((*INSIDE, prob), *outside), MASK)
    np.testing.assert_array_equal(full, limited)
    assert (full == 2).sum() == 32


def test_a_sure_tumor_outside_ends_the_search_for_an_unsure_one_inside():
    full, limited = labels_both_ways(
        blob_maps((*INSIDE, 0.35), ((0, 18, 18), (2, 3, 3), 0.9)), MASK
    )
    assert not (full == 2).any()  # line 11 did not apply: something reached T, out there
    assert (limited == 2).sum() == 32


def test_an_unsure_tumor_outside_keeps_the_kidney_from_being_called_one():
    volume = blob_maps((*INSIDE, 0.05), ((0, 18, 18), (2, 3, 3), 0.15))
    full, limited = labels_both_ways(volume, MASK)
    assert (full == 1).sum() == 32  # line 13 did not apply: something reached 0.1, out there
    assert (limited == 2).sum() == 32


def test_voxels_outside_make_a_small_tumor_a_large_one():
    # Of a small tumor the rim down to 0.2 counts (line 21), of a large one down to 0.3.
    inside = [(*INSIDE, 0.25), ((1, 3, 3), (1, 2, 2), 0.9)]
    full, limited = labels_both_ways(blob_maps(*inside, ((0, 16, 16), (4, 8, 8), 0.9)), MASK)
    assert (full == 2).sum() == 4
    assert (limited == 2).sum() == 32


def test_an_empty_mask_is_an_error():
    with pytest.raises(DataError, match="the mask is empty"):
        predict_windows(
            add_one, random_volume(4, 8, 8), (4, 4, 4), (4, 4, 4), where=MASK[:, :8, :8] & False
        )


class Counting:
    """Stand for a TuNet: whole is the volume, tumor its half; count what is asked."""

    def __init__(self):
        self.windows = []

    def predict_on_batch(self, batch):
        self.windows += list(batch.shape[:1])
        return np.concatenate([batch, batch / 2], axis=-1)


def test_windows_over_the_box_around_the_mask_are_fewer():
    config = tiny_config(
        grid_shape=(8, 64, 64),
        lnet_shape=(4, 32, 32),
        patch_shape=(8, 16, 16),
        patch_stride=(8, 4, 4),
        grid_fov_mm=(40.0, 512.0, 512.0),
    )
    volume = random_volume(8, 64, 64)
    mask = np.zeros(volume.shape, bool)
    mask[2:5, 30:40, 2:6] = True
    counts, maps = {}, {}
    for tight in (False, True):
        model = Counting()
        maps[tight] = predict_volume(
            model, VARIANTS["tunet"], volume, config, where=mask, tight=tight
        )
        counts[tight] = sum(model.windows)
    # 25 mm are 4 voxels in plane: y 26 to 44 and x 0 to 10, which is less than a window.
    assert counts == {False: 12, True: 2}
    np.testing.assert_allclose(maps[True][mask], maps[False][mask], rtol=1e-6)
    assert maps[True][:, 26:44, :16].any()
    maps[True][:, 26:44, :16] = 0
    assert not maps[True].any()


def test_a_box_is_all_of_a_volume_smaller_than_a_window():
    config = tiny_config()
    volume = random_volume(*config.grid_shape)
    where = np.ones(volume.shape, bool)
    both = [
        predict_volume(Counting(), VARIANTS["tunet"], volume, config, where=where, tight=tight)
        for tight in (False, True)
    ]
    np.testing.assert_array_equal(*both)
