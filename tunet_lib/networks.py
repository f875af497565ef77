"""The networks of Vu et al. 2019: U-Nets in 2D and 3D, L-Net, W-Net, T-Net and TuNet.

Written with Keras 3 layers and `keras.ops` only, so that any Keras backend runs them.
All of them take a normalized CT patch, (batch, z, y, x, 1) or (batch, y, x, 1) float32,
whose sides divide by 2^(levels - 1), and give sigmoid probabilities in [0, 1]. `whole` is
kidney and tumor together, `tumor` the tumor alone: two overlapping binary maps.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras

from tunet_lib.config import VARIANTS, Config, Variant
from tunet_lib.files import DataError, atomic_path, load_json

# A weights file fits a configuration if these fields agree.
NETWORK_FIELDS = ("levels", "filters", "norm_groups", "se_ratio")

WEIGHTS_NAME = "model.weights.h5"
VARIANT_NAME = "variant.json"
CONFIG_NAME = "config.json"


@keras.saving.register_keras_serializable("tunet_lib")
class SqueezeExcite(keras.layers.Layer):
    """Scale each channel by a gate in (0, 1) that is computed from all channel means.

    Squeeze: mean over space. Excite: dense, ReLU, dense, sigmoid.

    Parameters
    ----------
    ratio
        Channels divided by hidden units; there is at least one hidden unit.

    Notes
    -----
    Call arguments: a tensor ``(batch, *space, channels)``. Output: the same shape and dtype.
    Source: Hu et al. 2018, section 3; Vu et al. 2019, 2.3.
    """

    def __init__(self, ratio: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ratio = ratio

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the two dense layers for the input's number of channels."""
        channels = input_shape[-1]
        assert channels is not None
        hidden = max(1, channels // self.ratio)
        self.squeeze = keras.layers.Dense(hidden, activation="relu", dtype=self.dtype_policy)
        self.excite = keras.layers.Dense(channels, activation="sigmoid", dtype=self.dtype_policy)
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))

    def call(self, inputs: Any) -> Any:
        """Give `inputs` with each channel scaled."""
        space = tuple(range(1, len(inputs.shape) - 1))
        means = keras.ops.mean(inputs, axis=space, keepdims=True)
        return inputs * self.excite(self.squeeze(means))

    def get_config(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return {**super().get_config(), "ratio": self.ratio}


@keras.saving.register_keras_serializable("tunet_lib")
class GroupNorm(keras.layers.Layer):
    """Scale groups of channels to zero mean and unit variance, then each channel as learned.

    The same as `keras.layers.GroupNormalization`, written out to be read. It is float32 also where
    the network computes in float16, whose sums end at 65504. The variance is taken about the
    mean: the shorter mean of squares minus squared mean loses its digits in a patch of air,
    where the mean is hundreds of times the spread.

    Parameters
    ----------
    groups
        Number of groups; it divides the number of channels.
    epsilon
        Added to the variance.

    Notes
    -----
    Call arguments: a tensor ``(batch, *space, channels)``. Output: the same shape and dtype.
    Source: Wu and He 2018, section 3.
    """

    def __init__(self, groups: int = 8, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make a learned factor and offset for each channel of the input."""
        shape = (input_shape[-1],)
        if shape[0] is None or shape[0] % self.groups:
            raise ValueError(f"{shape[0]} channels make no {self.groups} groups")
        self.gamma = self.add_weight(shape=shape, initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", autocast=False, name="beta")

    def call(self, inputs: Any) -> Any:
        """Give `inputs` normalized."""
        x = keras.ops.cast(inputs, "float32")
        channels = x.shape[-1]
        space = tuple(range(1, len(x.shape) - 1))
        broad = (-1, *(1 for _ in space), channels)
        mean = self._over_groups(keras.ops.mean(x, axis=space), channels)
        x -= keras.ops.reshape(mean, broad)
        variance = self._over_groups(keras.ops.mean(keras.ops.square(x), axis=space), channels)
        factor = self.gamma * keras.ops.rsqrt(variance + self.epsilon)
        x = x * keras.ops.reshape(factor, broad) + self.beta
        return keras.ops.cast(x, self.compute_dtype)

    def _over_groups(self, per_channel: Any, channels: int) -> Any:
        """Average (batch, channels) within each group and give it back to each channel."""
        size = channels // self.groups
        grouped = keras.ops.reshape(per_channel, (-1, self.groups, size))
        mean = keras.ops.mean(grouped, axis=-1, keepdims=True)
        return keras.ops.reshape(keras.ops.repeat(mean, size, axis=-1), (-1, channels))

    def get_config(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


class _Blocks:
    """Layer makers for one rank (2 or 3) and one configuration."""

    def __init__(self, config: Config, rank: int, squeeze_excite: bool) -> None:
        self.config = config
        self.squeeze_excite = squeeze_excite
        self.policy = "float32" if config.precision == "float32" else f"mixed_{config.precision}"
        layers = keras.layers
        self.conv = layers.Conv3D if rank == 3 else layers.Conv2D
        self.pool = layers.MaxPooling3D if rank == 3 else layers.MaxPooling2D
        self.up = layers.UpSampling3D if rank == 3 else layers.UpSampling2D

    def _gate(self, x: Any) -> Any:
        if not self.squeeze_excite:
            return x
        return SqueezeExcite(self.config.se_ratio, dtype=self.policy)(x)

    def convolve(self, x: Any, filters: int) -> Any:
        x = self.conv(
            filters,
            3,
            padding="same",
            kernel_regularizer=keras.regularizers.L2(self.config.l2),
            dtype=self.policy,
        )(x)
        x = GroupNorm(self.config.norm_groups, dtype=self.policy)(x)
        return self._gate(keras.layers.ReLU(dtype=self.policy)(x))

    def concatenate(self, *parts: Any) -> Any:
        return self._gate(keras.layers.Concatenate(dtype=self.policy)(list(parts)))

    def halve(self, x: Any) -> Any:
        # TensorFlow has no float16 max-pooling in 3D for a CPU; float32 gives the same.
        return self.pool(2, dtype="float32")(x)

    def double(self, x: Any) -> Any:
        return self.up(2, dtype=self.policy)(x)

    def head(self, x: Any, channels: int) -> Any:
        # float32 always: a float16 sigmoid is 0 or 1 where Dice needs a gradient.
        return self.conv(
            channels,
            1,
            activation="sigmoid",
            kernel_regularizer=keras.regularizers.L2(self.config.l2),
            dtype="float32",
            name="probability",
        )(x)


def _u_shape(x: Any, blocks: _Blocks, channels: int, injected: Any = None) -> Any:
    """Encode and decode `x`; `injected` joins each encoder level at that level's size."""
    config = blocks.config
    skips = []
    for level in range(config.levels):
        if level:
            x = blocks.halve(x)
            if injected is not None:
                injected = blocks.halve(injected)
                x = blocks.concatenate(x, injected)
        x = blocks.convolve(x, config.filters * 2**level)
        x = blocks.convolve(x, 2 * config.filters * 2**level)
        skips.append(x)
    skips.pop()
    for level in reversed(range(config.levels - 1)):
        x = blocks.concatenate(blocks.double(x), skips.pop())
        x = blocks.convolve(x, 2 * config.filters * 2**level)
        x = blocks.convolve(x, 2 * config.filters * 2**level)
    return blocks.head(x, channels)


def unet_2d(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give the 2D baseline: axial slices (batch, y, x, 1) to (batch, y, x, 2).

    The output's channels are whole and tumor. Source: Vu et al. 2019, Table 1;
    Ronneberger et al. 2015.
    """
    image = keras.Input((None, None, 1), name="image")
    outputs = _u_shape(image, _Blocks(config, 2, squeeze_excite), channels=2)
    return keras.Model(image, outputs, name="unet_2d")


def unet_3d(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give the 3D baseline: patches (batch, z, y, x, 1) to (batch, z, y, x, 2).

    The output's channels are whole and tumor. Source: Vu et al. 2019, Table 1.
    """
    image = keras.Input((None, None, None, 1), name="image")
    outputs = _u_shape(image, _Blocks(config, 3, squeeze_excite), channels=2)
    return keras.Model(image, outputs, name="unet_3d")


def l_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give L-Net: the whole downsampled CT (batch, z, y, x, 1) to (batch, z, y, x, 1).

    The one output channel is whole. Source: Vu et al. 2019, 2.1, Fig. 2.
    """
    image = keras.Input((None, None, None, 1), name="image")
    outputs = _u_shape(image, _Blocks(config, 3, squeeze_excite), channels=1)
    return keras.Model(image, outputs, name="l_net")


def w_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give W-Net: an image (batch, z, y, x, 1) to whole_prob (batch, z, y, x, 1).

    The image, max-pooled to each level's size, joins the feature map there.
    Source: Vu et al. 2019, 2.2, Fig. 3.
    """
    image = keras.Input((None, None, None, 1), name="image")
    outputs = _u_shape(image, _Blocks(config, 3, squeeze_excite), channels=1, injected=image)
    return keras.Model(image, outputs, name="w_net")


def t_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give T-Net: [image, whole_prob], each (batch, z, y, x, 1), to tumor_prob alike.

    Both enter as two channels of the first level; only the image is injected below.
    Source: Vu et al. 2019, 2.2, Fig. 3.
    """
    blocks = _Blocks(config, 3, squeeze_excite)
    image = keras.Input((None, None, None, 1), name="image")
    whole_prob = keras.Input((None, None, None, 1), name="whole_prob")
    both = blocks.concatenate(image, whole_prob)
    outputs = _u_shape(both, blocks, channels=1, injected=image)
    return keras.Model([image, whole_prob], outputs, name="t_net")


def tunet(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give TuNet: W-Net and T-Net, trained end to end; (batch, z, y, x, 1) to (…, 2).

    The output's channels are whole and tumor. T-Net reads W-Net's probability map itself,
    not its binarization, so the tumor loss also trains W-Net.
    Source: Vu et al. 2019, 2.2, Fig. 1.
    """
    image = keras.Input((None, None, None, 1), name="image")
    whole_prob = w_net(config, squeeze_excite)(image)
    tumor_prob = t_net(config, squeeze_excite)([image, whole_prob])
    outputs = keras.layers.Concatenate(dtype="float32", name="whole_and_tumor")(
        [whole_prob, tumor_prob]
    )
    return keras.Model(image, outputs, name="tunet")


NETWORKS = {"unet2d": unet_2d, "unet3d": unet_3d, "lnet": l_net, "tunet": tunet}


def build(variant: Variant, config: Config) -> keras.Model:
    """Give the untrained network of a variant, its weights drawn from Keras' global seed."""
    return NETWORKS[variant.network](config, squeeze_excite=variant.squeeze_excite)


def save_model(model: keras.Model, variant: Variant, config: Config, folder: Path) -> None:
    """Write weights, configuration and variant into `folder`, each atomically.

    The weights come last: a folder that holds them is complete.
    """
    config.save(folder / CONFIG_NAME)
    with atomic_path(folder / VARIANT_NAME) as temporary:
        temporary.write_text(f'"{variant.name}"\n')
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        model.save_weights(temporary)


def load_model(folder: str | Path, config: Config | None = None) -> tuple[keras.Model, Config]:
    """Read a network that `save_model` wrote.

    Parameters
    ----------
    folder
        Holds the weights and the configuration that they were trained with.
    config
        The configuration that the caller expects, if any.

    Returns
    -------
    model, config
        The network, and the configuration it was trained with.

    Raises
    ------
    DataError
        A file is missing or damaged, the weights are of another network, or the
        configuration differs from the expected one in the network's fields.
    """
    folder = Path(folder)
    trained_with = Config.load(folder / CONFIG_NAME)
    if config is not None:
        wrong = [name for name in trained_with.differences(config) if name in NETWORK_FIELDS]
        if wrong:
            raise DataError(
                f"{folder}: the weights were trained with another configuration "
                f"({', '.join(wrong)} differ); train again or load with their own"
            )
    name = load_json(folder / VARIANT_NAME)
    if not isinstance(name, str) or name not in VARIANTS:
        raise DataError(f"{folder / VARIANT_NAME}: names no known variant: {name!r}")
    # Predictions are float32 wherever they run: only training gains from fewer bits.
    model = build(VARIANTS[name], dataclasses.replace(trained_with, precision="float32"))
    try:
        # Keras passes over arrays that the network has no place for.
        if (count := _count_arrays(folder / WEIGHTS_NAME)) != len(model.weights):
            raise ValueError(f"it holds {count} arrays, the network {len(model.weights)}")
        with warnings.catch_warnings():
            # Keras also warns of its own tables of layers, which hold no weights.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(folder / WEIGHTS_NAME)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # Keras goes on to print whole arrays
        raise DataError(
            f"{folder / WEIGHTS_NAME}: cannot be read as the weights of {name} ({reason}); "
            "it is damaged or from another configuration; train again"
        ) from error
    return model, trained_with


def _count_arrays(path: Path) -> int:
    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: arrays.append(item) if hasattr(item, "shape") else None)
    return len(arrays)
