from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_config

from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.localization import lnet_mask, predict_lnet
from tunet_lib.model import Model


def identity(batch):
    return batch


@pytest.mark.parametrize("shape", [(8, 16, 16), (10, 20, 16), (2, 16, 16), (9, 17, 16)])
def test_lnet_gives_the_grids_shape_and_keeps_a_constant(shape):
    result = predict_lnet(identity, np.full(shape, 0.4, np.float32), tiny_config())
    assert result.shape == (*shape, 1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.4, rtol=1e-6)


def test_lnet_by_hand():
    # Blocks of two have means 0 and 4; linear between their centers, flat outside.
    volume = np.broadcast_to(np.float32([0, 0, 3, 5]), (8, 16, 4))
    result = predict_lnet(identity, volume, tiny_config())
    np.testing.assert_allclose(result[..., 0], np.broadcast_to([0, 1, 3, 4], (8, 16, 4)))


@pytest.mark.parametrize(
    ("grid", "seen"),
    [((8, 16, 16), (4, 8, 8)), ((16, 16, 18), (8, 8, 10)), ((2, 16, 32), (4, 8, 16))],
)
def test_lnet_sees_one_downsampled_volume_however_large(grid, seen):
    shapes, parts = [], []

    def predict(batch):
        shapes.append(batch.shape)
        return batch

    predict_lnet(predict, np.zeros(grid, np.float32), tiny_config(), on_part=parts.append)
    assert shapes == [(1, *seen, 1)]
    assert parts == [1]


def test_a_model_that_sees_the_volume_predicts_so():
    class Identity:
        predict_on_batch = staticmethod(identity)

    volume = np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    model = Model(Identity(), VARIANTS["lnet"], tiny_config())
    np.testing.assert_array_equal(
        model.predict({False: volume}), predict_lnet(identity, volume, tiny_config())
    )


def test_the_mask_is_cut_at_its_threshold_and_widened_by_its_margin():
    prob = np.zeros((8, 16, 16), np.float32)
    prob[4, 8, 8], prob[4, 8, 9] = 0.5, 0.2
    config = tiny_config(grid_fov_mm=(8 * 4.0, 16 * 2.0, 16 * 3.0), lnet_threshold=0.5)
    assert np.argwhere(lnet_mask(prob, config)).tolist() == [[4, 8, 8]]
    lower = replace(config, lnet_threshold=0.2)
    assert lnet_mask(prob, lower).sum() == 2
    wider = lnet_mask(prob, replace(config, lnet_margin_mm=4.0))
    z, y, x = np.indices(prob.shape)
    away_mm = np.sqrt(((z - 4) * 4.0) ** 2 + ((y - 8) * 2.0) ** 2 + ((x - 8) * 3.0) ** 2)
    np.testing.assert_array_equal(wider, away_mm <= 4)


def test_a_map_with_channels_is_refused():
    with pytest.raises(DataError, match=r"\(8, 16, 16, 1\); give \(z, y, x\)"):
        lnet_mask(np.zeros((8, 16, 16, 1), np.float32), tiny_config())


@pytest.mark.parametrize("margin_mm", [0.0, 30.0])
def test_an_empty_mask_stays_empty_whatever_the_margin(margin_mm):
    config = tiny_config(lnet_margin_mm=margin_mm)
    assert not lnet_mask(np.zeros((8, 16, 16), np.float32), config).any()
