import keras
import numpy as np
import pytest

from tunet_lib.files import DataError
from tunet_lib.losses import DiceLoss

# Two patches of two voxels, one channel. The second holds no foreground.
PROB = np.array([[[0.5], [0.25]], [[0.5], [0.5]]], np.float32)
TRUTH = np.array([[[1.0], [0.0]], [[0.0], [0.0]]], np.float32)


def gradient(loss, truth, prob):
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda u: loss(truth, u))(prob))
    import tensorflow as tf

    u = tf.Variable(prob)
    with tf.GradientTape() as tape:
        value = loss(truth, u)
    return tape.gradient(value, u).numpy()


def test_per_sample_by_hand():
    # -2 * 0.5 / (0.75 + 1) for the first patch and 0 for the second, halved.
    assert float(DiceLoss("sample", 1e-12)(TRUTH, PROB)) == pytest.approx(-4 / 7 / 2)


def test_over_the_batch_by_hand():
    # -2 * 0.5 / (1.75 + 1): the second patch's false positives count.
    assert float(DiceLoss("batch", 1e-12)(TRUTH, PROB)) == pytest.approx(-4 / 11)


def test_both_agree_at_a_batch_of_one():
    sample = DiceLoss("sample")(TRUTH[:1], PROB[:1])
    assert float(sample) == pytest.approx(float(DiceLoss("batch")(TRUTH[:1], PROB[:1])))


def test_epsilon_by_hand():
    assert float(DiceLoss(epsilon=0.25)(TRUTH[:1], PROB[:1])) == pytest.approx(-1 / 2)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_channels_are_added(over):
    truth = np.concatenate([TRUTH, 1 - TRUTH], axis=-1)
    prob = np.concatenate([PROB, 1 - PROB], axis=-1)
    both = float(DiceLoss(over)(truth, prob))
    one = float(DiceLoss(over)(TRUTH, PROB))
    other = float(DiceLoss(over)(1 - TRUTH, 1 - PROB))
    assert both == pytest.approx(one + other)


@pytest.mark.parametrize("shape", [(2, 4, 4, 2), (2, 4, 4, 4, 2)])
@pytest.mark.parametrize("over", ["sample", "batch"])
def test_perfect_and_hopeless_in_2d_and_3d(over, shape):
    truth = np.zeros(shape, np.uint8)
    truth[:, :2] = 1
    assert float(DiceLoss(over)(truth, truth)) == pytest.approx(-2, abs=1e-5)
    assert float(DiceLoss(over)(truth, 1 - truth)) == 0


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_all_empty_is_zero_not_nan(over):
    nothing = np.zeros((2, 3, 3, 3, 2), np.float32)
    assert float(DiceLoss(over)(nothing, nothing)) == 0


def test_sums_do_not_overflow_float16():
    ones = np.ones((1, 300, 300, 1), np.float16)  # 90,000 voxels; float16 ends at 65,504
    loss = DiceLoss().call(keras.ops.convert_to_tensor(ones), keras.ops.convert_to_tensor(ones))
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(-1)


def test_gradient_by_hand():
    # d/du of -2 u v / (u + w + v): (-2 * 1.75 + 2 * 0.5) / 1.75^2 and 2 * 0.5 / 1.75^2.
    found = gradient(DiceLoss(), TRUTH[:1], PROB[:1])
    np.testing.assert_allclose(found.ravel(), [-2.5 / 1.75**2, 1 / 1.75**2], rtol=1e-4)


def test_an_empty_patch_has_a_gradient_only_over_the_batch():
    assert not gradient(DiceLoss("sample"), TRUTH, PROB)[1].any()
    # 2 * 0.5 / 2.75^2: fewer false positives lower the loss.
    np.testing.assert_allclose(gradient(DiceLoss("batch"), TRUTH, PROB)[1], 1 / 2.75**2, rtol=1e-4)


def test_unknown_over_is_rejected():
    with pytest.raises(DataError, match="'volume' is unknown"):
        DiceLoss("volume")


def test_keras_saves_it_with_a_compiled_network():
    loss = DiceLoss("batch", 0.5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (type(again), again.over, again.epsilon) == (DiceLoss, "batch", 0.5)
