import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_config

from tunet_lib.config import VARIANTS, Config
from tunet_lib.losses import DiceLoss
from tunet_lib.networks import (
    GroupNorm,
    SqueezeExcite,
    build,
    l_net,
    t_net,
    tunet,
    unet_2d,
    unet_3d,
    w_net,
)
from tunet_lib.quiet import keras

PAPER = Config.preset("paper")


@pytest.fixture(autouse=True)
def same_weights_each_time():
    """In so small a network an unlucky draw may leave a kernel without a gradient."""
    keras.utils.set_random_seed(0)


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("network", "plain", "with_seb"),
    [
        (unet_3d, 4_082_082, 4_127_205),
        (l_net, 4_082_049, 4_127_172),
        (w_net, 4_088_097, 4_136_177),  # 27 * (32 + 64 + 128) more than L-Net: the image
        (t_net, 4_088_529, 4_136_616),  # 27 * 16 more than W-Net: the probability map
        (unet_2d, 1_363_074, 1_408_197),
    ],
)
def test_parameters_at_the_paper_size(network, plain, with_seb):
    assert network(PAPER).count_params() == plain
    assert network(PAPER, squeeze_excite=True).count_params() == with_seb


def test_tunet_is_a_w_net_and_a_t_net():
    assert tunet(PAPER).count_params() == 4_088_097 + 4_088_529


def test_parameters_of_the_3d_unet_by_hand():
    def conv(channels, filters):
        return 27 * channels * filters + filters + 2 * filters  # and group norm's scale and shift

    encoder = conv(1, 16) + conv(16, 32) + conv(32, 32) + conv(32, 64)
    encoder += conv(64, 64) + conv(64, 128) + conv(128, 128) + conv(128, 256)
    decoder = conv(256 + 128, 128) + conv(128, 128) + conv(128 + 64, 64) + conv(64, 64)
    decoder += conv(64 + 32, 32) + conv(32, 32)
    head = 32 * 2 + 2
    assert unet_3d(PAPER).count_params() == encoder + decoder + head


@pytest.mark.parametrize("name", ["unet2d", "unet3d", "tunet", "tunet_seb", "lnet"])
def test_output_has_the_inputs_shape_and_is_a_probability(name):
    space = (8, 12) if VARIANTS[name].network == "unet2d" else (4, 8, 12)
    channels = 1 if VARIANTS[name].network == "lnet" else 2
    prob = np.asarray(build(VARIANTS[name], tiny_config())(random_image(2, *space, 1)))
    assert prob.shape == (2, *space, channels)
    assert prob.dtype == np.float32
    assert prob.min() > 0
    assert prob.max() < 1


def set_dense(layer, kernel, bias):
    layer.set_weights([np.array(kernel, np.float32), np.array(bias, np.float32)])


def test_squeeze_and_excite_by_hand():
    layer = SqueezeExcite(ratio=2)
    layer.build((None, None, None, None, 2))
    set_dense(layer.squeeze, [[0.5], [0.25]], [-1.0])
    set_dense(layer.excite, [[np.log(3), -np.log(3)]], [0.0, 0.0])
    x = np.zeros((2, 1, 1, 2, 2), np.float32)
    x[0, 0, 0] = [[1, 3], [3, 5]]  # means 2 and 4: hidden 1, gates 3/4 and 1/4
    x[1, 0, 0] = [[1, 0], [1, 0]]  # means 1 and 0: ReLU cuts to 0, gates 1/2
    expected = x * np.array([[3 / 4, 1 / 4], [1 / 2, 1 / 2]]).reshape(2, 1, 1, 1, 2)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6)
    np.testing.assert_allclose(layer(x[:, 0]), expected[:, 0], rtol=1e-6)  # 2D alike


@pytest.mark.parametrize(("channels", "hidden"), [(64, 4), (16, 1), (2, 1)])
def test_squeeze_and_excite_has_at_least_one_hidden_unit(channels, hidden):
    layer = SqueezeExcite(ratio=16)
    layer.build((None, 4, 4, channels))
    assert layer.squeeze.kernel.shape == (channels, hidden)
    assert layer.excite.kernel.shape == (hidden, channels)


def test_squeeze_and_excite_is_made_again_from_its_configuration():
    layer = SqueezeExcite(ratio=3, name="gate")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (again.ratio, again.name) == (3, "gate")


def test_squeeze_and_excite_of_many_float16_voxels_does_not_overflow():
    layer = SqueezeExcite(ratio=1, dtype="mixed_float16")
    layer.build((None, None, None, None, 1))
    set_dense(layer.squeeze, [[1.0]], [0.0])
    set_dense(layer.excite, [[1.0]], [-4.0])
    # 64^3 voxels of 4 sum to 1e6; float16 ends at 65504. The mean is 4, the gate 1/2.
    out = np.asarray(layer(np.full((1, 64, 64, 64, 1), 4, np.float16)))
    np.testing.assert_array_equal(out, 2)


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("network", "blocks"),
    [
        (unet_3d, 2 * 3 + 2 * 2 + 2),  # convolutions down and up, concatenated skips
        (w_net, 2 * 3 + 2 * 2 + 2 + 2),  # and injections at two levels
        (t_net, 2 * 3 + 2 * 2 + 2 + 2 + 1),  # and the probability map at the first
    ],
)
def test_a_gate_follows_each_convolution_and_concatenation(network, blocks):
    model = network(tiny_config(levels=3, patch_shape=(8, 8, 8)), squeeze_excite=True)
    gates = layers_of(model, SqueezeExcite)
    assert len(gates) == blocks
    gated = {gate.input._keras_history.operation for gate in gates}
    concatenations = layers_of(model, keras.layers.Concatenate)
    assert gated == {*concatenations, *layers_of(model, keras.layers.ReLU)}
    # What a gate gives out replaces what it took in.
    for layer in gated:
        assert [node.operation for node in layer._outbound_nodes] != []
        assert all(isinstance(node.operation, SqueezeExcite) for node in layer._outbound_nodes)


def test_no_gate_when_it_is_off():
    for network in (unet_2d, unet_3d, l_net, w_net, t_net):
        assert not layers_of(network(tiny_config()), SqueezeExcite)


def halved(image, times):
    for _ in range(times):
        b, z, y, x, c = image.shape
        image = image.reshape(b, z // 2, 2, y // 2, 2, x // 2, 2, c).max(axis=(2, 4, 6))
    return image


@pytest.mark.parametrize("squeeze_excite", [False, True])
@pytest.mark.parametrize("network", [w_net, t_net])
def test_the_image_at_each_levels_size_is_what_is_injected(network, squeeze_excite):
    model = network(tiny_config(levels=3), squeeze_excite)
    image = random_image(1, 8, 12, 16, 1)
    whole_prob = np.random.default_rng(1).random(image.shape, dtype=np.float32)
    inputs = [image, whole_prob] if network is t_net else image
    joined = layers_of(model, keras.layers.Concatenate)
    if network is t_net:
        first, joined = joined[0], joined[1:]
        found = keras.Model(model.input, first.input)(inputs)
        np.testing.assert_array_equal(found[0], image)
        np.testing.assert_array_equal(found[1], whole_prob)
    assert len(joined) == 2 + 2  # injections on the way down, skips on the way up
    for level, layer in enumerate(joined[:2], start=1):
        features, injected = keras.Model(model.input, layer.input)(inputs)
        np.testing.assert_array_equal(injected, halved(image, level))
        assert features.shape == (*injected.shape[:-1], 4 * 2 ** (level - 1))


@pytest.mark.parametrize("network", [unet_3d, l_net])
def test_nothing_is_injected_into_a_plain_unet(network):
    model = network(tiny_config(levels=3))
    assert len(layers_of(model, keras.layers.Concatenate)) == 2


def test_l2_on_every_convolution_kernel_and_nothing_else():
    model = w_net(tiny_config(l2=0.5), squeeze_excite=True)
    kernels = [w.numpy() for w in model.weights if w.path.split("/")[-1] == "kernel"]
    kernels = [kernel for kernel in kernels if kernel.ndim == 5]
    assert len(kernels) == 2 * 2 + 2 + 1
    total = sum(float(loss) for loss in model.losses)
    assert total == pytest.approx(0.5 * sum(np.square(kernel).sum() for kernel in kernels), 1e-5)


def test_the_tumor_loss_trains_w_net_and_the_whole_loss_does_not_train_t_net():
    import tensorflow as tf

    model = tunet(tiny_config())
    image = random_image(1, 8, 8, 8, 1)
    truth = (image > 1).astype(np.float32)
    w_weights = model.get_layer("w_net").trainable_weights
    t_weights = model.get_layer("t_net").trainable_weights

    def gradients(channel, weights):
        with tf.GradientTape() as tape:
            prob = model(image, training=True)[..., channel : channel + 1]
            loss = DiceLoss()(truth, prob)
        return tape.gradient(loss, [weight.value for weight in weights])

    from_tumor = gradients(1, w_weights)
    assert all(gradient is not None for gradient in from_tumor)
    kernels = [g for g, w in zip(from_tumor, w_weights, strict=True) if w.path.endswith("kernel")]
    assert all(np.abs(kernel).max() > 0 for kernel in kernels)
    assert any(np.abs(gradient).max() > 0 for gradient in gradients(1, t_weights))
    assert all(np.abs(gradient).max() == 0 for gradient in gradients(0, t_weights))


def test_group_norm_by_hand():
    layer = GroupNorm(groups=1, epsilon=0.0)
    layer.build((None, None, None, None, 2))
    layer.set_weights([np.array([1.0, 2.0], np.float32), np.array([0.0, 10.0], np.float32)])
    x = np.array([[1, 3], [5, 7]], np.float32).reshape(1, 1, 1, 2, 2)  # mean 4, variance 5
    expected = np.array([[-3, 10 * 5**0.5 - 2], [1, 10 * 5**0.5 + 6]]) / 5**0.5
    np.testing.assert_allclose(np.ravel(layer(x)), expected.ravel(), rtol=1e-6)


@pytest.mark.parametrize(("shape", "groups"), [((2, 3, 4, 5, 8), 4), ((2, 6, 5, 6), 6)])
def test_group_norm_gives_what_keras_gives(shape, groups):
    ours, theirs = GroupNorm(groups), keras.layers.GroupNormalization(groups)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, shape).astype(np.float32)
    for layer in (ours, theirs):
        layer.build(shape)
        layer.set_weights([np.linspace(0.5, 2, shape[-1]), np.linspace(-1, 1, shape[-1])])
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_each_channel_gets_the_mean_and_spread_of_its_own_group(groups):
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 5, 6, 6)) * np.linspace(1, 5, 6)
    grouped = x.reshape(2, 4, 5, 6, groups, 6 // groups)
    mean = grouped.mean(axis=(1, 2, 3, 5), keepdims=True)
    variance = grouped.var(axis=(1, 2, 3, 5), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    layer = GroupNorm(groups)
    np.testing.assert_allclose(layer(x.astype(np.float32)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [GroupNorm, SqueezeExcite])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("space", [(None, None), (None, None, None), (4, 6, 8)])
def test_the_shape_that_a_layer_gives_is_known_without_tracing_it(
    monkeypatch, kind, precision, space
):
    layer = kind(2, dtype=precision)
    sizes = [size or 6 for size in space]
    real = layer(np.ones((3, *sizes, 4), np.float32))
    with monkeypatch.context() as patched:
        patched.setattr(kind, "call", None)
        told = layer(keras.Input((*space, 4)))
    assert told.shape == (None, *space, 4)
    assert (real.shape, real.dtype) == ((3, *sizes, 4), told.dtype)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_group_norm_of_a_constant_is_its_offset(value):
    layer = GroupNorm(groups=2)
    layer.build((None, 4, 4, 4, 4))
    layer.set_weights([np.ones(4), np.arange(4)])
    result = np.asarray(layer(np.full((1, 4, 4, 4, 4), value, np.float32)))
    np.testing.assert_allclose(result, np.broadcast_to(np.arange(4), result.shape), atol=0.05)


def test_group_norm_keeps_its_digits_in_a_patch_of_air():
    x = np.random.default_rng(0).normal(3, 0.008, (1, 16, 16, 16, 8)).astype(np.float32)
    exact = x.astype(np.float64)
    mean, variance = exact.mean(axis=(1, 2, 3)), exact.var(axis=(1, 2, 3))
    layer = GroupNorm(groups=8)
    layer.build(x.shape)
    # The mean of squares minus the squared mean is off by 0.01 here.
    np.testing.assert_allclose(layer(x), (exact - mean) / np.sqrt(variance + 1e-3), atol=5e-4)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_group_norm_takes_its_statistics_in_float32(precision):
    layer = GroupNorm(groups=1, dtype=f"mixed_{precision}")
    x = np.random.default_rng(0).normal(100, 1, (1, 48, 48, 48, 1)).astype(np.float32)
    layer.build(x.shape)
    result = layer(x)  # 110592 values of about 100: a float16 sum would be infinite
    assert result.dtype == precision
    spread = np.asarray(keras.ops.cast(result, "float32"))
    rounded = np.asarray(keras.ops.cast(keras.ops.cast(x, precision), "float32"))
    expected = (rounded - rounded.mean()) / np.sqrt(rounded.var() + 1e-3)
    np.testing.assert_allclose(spread, expected, atol=0.02)


def test_group_norm_needs_a_whole_number_of_channels_a_group():
    with pytest.raises(ValueError, match="12 channels make no 8 groups"):
        GroupNorm(groups=8).build((None, 4, 4, 12))


def test_group_norm_is_made_again_from_its_configuration():
    layer = GroupNorm(groups=4, epsilon=0.5, name="norm")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (again.groups, again.epsilon, again.name) == (4, 0.5, "norm")


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["unet2d", "unet3d", "tunet_seb", "lnet"])
def test_heads_are_float32_under_mixed_precision(name, precision):
    model = build(VARIANTS[name], tiny_config(precision=precision))
    assert model.output.dtype == "float32"
    parts = [model.get_layer("w_net"), model.get_layer("t_net")] if "tunet" in name else [model]
    for part in parts:
        assert part.get_layer("probability").compute_dtype == "float32"
        inner = [layer for layer in part.layers if "conv" in layer.name]
        assert inner
        assert {layer.compute_dtype for layer in inner} == {precision}
        assert {weight.dtype for weight in part.weights} == {"float32"}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["unet3d", "tunet", "tunet_seb", "lnet"])
def test_mixed_precision_has_nearly_the_loss_of_float32(name, precision):
    exact = build(VARIANTS[name], tiny_config(filters=4))
    mixed = build(VARIANTS[name], tiny_config(filters=4, precision=precision))
    mixed.set_weights(exact.get_weights())
    image = random_image(2, 16, 16, 16, 1)
    truth = (random_image(2, 16, 16, 16, exact.output.shape[-1], seed=1) > 1).astype(np.float32)
    losses, gradients = [], []
    for model in (exact, mixed):
        with tf.GradientTape() as tape:
            loss = DiceLoss()(truth, model(image))
        each = tape.gradient(loss, model.trainable_variables)
        gradients.append(np.concatenate([np.ravel(gradient) for gradient in each]))
        losses.append(float(loss))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    lengths = np.linalg.norm(gradients, axis=1)  # finite only if all of it is
    assert np.isfinite(lengths).all()
    assert lengths[1] == pytest.approx(lengths[0], rel=0.1)
    assert np.dot(*gradients) / lengths.prod() > 0.95


ON_JAX = """
import sys
import keras
import numpy as np
from tiny import tiny_config
from tunet_lib.config import VARIANTS
from tunet_lib.training import compiled

assert keras.backend.backend() == "jax"
arrays = dict(np.load(sys.argv[1]))
model = compiled(VARIANTS["tunet_seb"], tiny_config())
model.set_weights([arrays[f"weight_{i}"] for i in range(len(model.weights))])
prob = model.predict_on_batch(arrays["image"])
losses = [float(model.train_on_batch(arrays["image"], arrays["truth"])) for _ in range(2)]
trained = {f"trained_{i}": value for i, value in enumerate(model.get_weights())}
np.savez(sys.argv[2], prob=prob, losses=losses, **trained)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_a_small_tunet_trains_a_step_on_jax_too(tmp_path):
    from tunet_lib.training import compiled

    model = compiled(VARIANTS["tunet_seb"], tiny_config())
    weights = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    image = random_image(2, 8, 8, 8, 1)
    truth = np.concatenate([image > 0.5, image > 1], axis=-1).astype(np.float32)
    np.savez(tmp_path / "in.npz", image=image, truth=truth, **weights)
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", ON_JAX, tmp_path / "in.npz", tmp_path / "out.npz"],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles in half the time
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
        },
        check=True,
        timeout=300,
    )
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["prob"], model.predict_on_batch(image), atol=1e-4)
    # The loss of the same weights is the same on both; a step lowers it.
    assert out["losses"][0] == pytest.approx(float(model.train_on_batch(image, truth)), abs=1e-4)
    assert np.isfinite(out["losses"]).all()
    assert out["losses"][1] < out["losses"][0]
    changed = [not np.array_equal(out[f"trained_{i}"], weights[f"weight_{i}"]) for i in range(10)]
    assert any(changed)  # not all: a channel may be dead from the start
