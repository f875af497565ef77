"""The networks of Vu et al. 2019: U-Nets in 2D and 3D, L-Net, W-Net, T-Net and TuNet.

Written with Keras 3 layers and `keras.ops` only, so that any Keras backend runs them.
All of them take a normalized CT patch, (batch, z, y, x, 1) or (batch, y, x, 1) float32,
whose sides divide by 2^(levels - 1), and give sigmoid probabilities in [0, 1]. `whole` is
kidney and tumor together, `tumor` the tumor alone: two overlapping binary maps.

Shape comments leave the batch out: s is the patch's shape, F the configured `filters`, and
s/2 the shape halved along each axis.

Chapters 05 to 08 (``notebooks/05_unet.ipynb``, ``notebooks/06_lnet.ipynb``,
``notebooks/07_cascade.ipynb``, ``notebooks/08_squeeze_excite.ipynb``).
"""

from __future__ import annotations

import math
from typing import Any

from tunet_lib.config import Config, Variant
from tunet_lib.quiet import computing, keras


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
        means = keras.ops.mean(inputs, axis=space, keepdims=True)  # (1, 1, 1, channels)
        hidden = self.squeeze(means)  # (1, 1, 1, channels / ratio)
        return inputs * self.excite(hidden)  # (*space, channels)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Give the input's: Keras would have to trace the layer to find out."""
        return input_shape

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
        x = keras.ops.cast(inputs, "float32")  # (*space, channels)
        channels = x.shape[-1]
        space = tuple(range(1, len(x.shape) - 1))
        broad = (-1, *(1 for _ in space), channels)
        mean = self.group_mean(keras.ops.mean(x, axis=space), channels)  # (channels)
        x -= keras.ops.reshape(mean, broad)
        variance = self.group_mean(keras.ops.mean(keras.ops.square(x), axis=space), channels)
        factor = self.gamma * keras.ops.rsqrt(variance + self.epsilon)
        x = x * keras.ops.reshape(factor, broad) + self.beta
        return keras.ops.cast(x, self.compute_dtype)

    def group_mean(self, per_channel: Any, channels: int) -> Any:
        """Average (batch, channels) within each group, and repeat that for each of its channels."""
        size = channels // self.groups
        grouped = keras.ops.reshape(per_channel, (-1, self.groups, size))
        mean = keras.ops.mean(grouped, axis=-1, keepdims=True)
        return keras.ops.reshape(mean * keras.ops.ones_like(grouped), (-1, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Give the input's: Keras would have to trace the layer to find out."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


class Blocks:
    """The building blocks of one network, for images of rank 2 or 3.

    Parameters
    ----------
    config
        `norm_groups`, `se_ratio`, `l2`, `first_prob` and `precision` are used.
    rank
        2 for axial slices, 3 for volumes.
    squeeze_excite
        Whether each block ends in a `SqueezeExcite`.
    """

    def __init__(self, config: Config, rank: int = 3, squeeze_excite: bool = False) -> None:
        self.config = config
        self.squeeze_excite = squeeze_excite
        self.policy = "float32" if config.precision == "float32" else f"mixed_{config.precision}"
        layers = keras.layers
        self.conv = layers.Conv3D if rank == 3 else layers.Conv2D
        self.pool = layers.MaxPooling3D if rank == 3 else layers.MaxPooling2D
        self.up = layers.UpSampling3D if rank == 3 else layers.UpSampling2D

    def conv_block(self, x: Any, filters: int) -> Any:
        """Convolve 3x3x3, normalize groups, ReLU, and gate: ``(*s, any)`` to ``(*s, filters)``."""
        x = self.conv(
            filters,
            3,
            padding="same",
            kernel_regularizer=keras.regularizers.L2(self.config.l2),
            dtype=self.policy,
        )(x)
        x = GroupNorm(self.config.norm_groups, dtype=self.policy)(x)
        return self.gate(keras.layers.ReLU(dtype=self.policy)(x))

    def concatenate(self, *parts: Any) -> Any:
        """Join feature maps of one shape by their channels, and gate."""
        return self.gate(keras.layers.Concatenate(dtype=self.policy)(list(parts)))

    def gate(self, x: Any) -> Any:
        """Squeeze and excite, if the network does."""
        if not self.squeeze_excite:
            return x
        return SqueezeExcite(self.config.se_ratio, dtype=self.policy)(x)

    def downsample(self, x: Any) -> Any:
        """Keep the largest of each 2x2x2 voxels: ``(*s, channels)`` to ``(*s/2, channels)``."""
        # TensorFlow pools no float16 in 3D on CPUs; float32 gives the same.
        return self.pool(2, dtype="float32")(x)

    def upsample(self, x: Any) -> Any:
        """Repeat each voxel 2x2x2 times: ``(*s/2, channels)`` to ``(*s, channels)``."""
        return self.up(2, dtype=self.policy)(x)

    def sigmoid_head(self, x: Any, channels: int) -> Any:
        """Weigh the features of each voxel, by a 1x1x1 convolution, into probabilities."""
        # Kidneys fill a hundredth of a body; 0.5 must be unlearned first.
        prior = math.log(self.config.first_prob / (1 - self.config.first_prob))
        # float32 always: a float16 sigmoid is 0 or 1 where Dice
        # needs a gradient.
        return self.conv(
            channels,
            1,
            activation="sigmoid",
            bias_initializer=keras.initializers.Constant(prior),
            kernel_regularizer=keras.regularizers.L2(self.config.l2),
            dtype="float32",
            name="probability",
        )(x)


def u_net(x: Any, blocks: Blocks, channels: int, *, injected: Any = None) -> Any:
    """Build a U-Net: encode, level by level, and decode with what each level remembered.

    Parameters
    ----------
    x
        The input, ``(batch, *s, any number of channels)``.
    blocks
        The building blocks; their configuration gives `levels` and `filters`.
    channels
        How many probability maps to give.
    injected
        An image ``(batch, *s, 1)`` that joins the feature map of each lower encoder level at that
        level's size.

    Returns
    -------
    tensor
        ``(batch, *s, channels)`` float32, 0 to 1.

    Notes
    -----
    Source: Ronneberger et al. 2015; Vu et al. 2019, 2.1 and, for `injected`, 2.2.
    """
    levels, filters = blocks.config.levels, blocks.config.filters
    skips = []
    for level in range(levels):
        if level:
            x = blocks.downsample(x)  # s/2^level, F 2^level
            if injected is not None:
                injected = blocks.downsample(injected)  # s/2^level, 1
                x = blocks.concatenate(x, injected)  # s/2^level, F 2^level + 1
        x = blocks.conv_block(x, filters * 2**level)  # s/2^level, F 2^level
        x = blocks.conv_block(x, 2 * filters * 2**level)  # s/2^level, 2F 2^level
        skips.append(x)
    skips.pop()  # the lowest level is what the decoder begins with
    for level in reversed(range(levels - 1)):
        x = blocks.upsample(x)  # s/2^level, 4F 2^level
        x = blocks.concatenate(x, skips.pop())  # s/2^level, 6F 2^level
        x = blocks.conv_block(x, 2 * filters * 2**level)  # s/2^level, 2F 2^level
        x = blocks.conv_block(x, 2 * filters * 2**level)  # s/2^level, 2F 2^level
    return blocks.sigmoid_head(x, channels)  # s, channels


def unet_2d(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give the 2D baseline: axial slices (batch, y, x, 1) to (batch, y, x, 2).

    The output's channels are whole and tumor. Source: Vu et al. 2019, Table 1;
    Ronneberger et al. 2015.
    """
    image = keras.Input((None, None, 1), name="image")
    whole_and_tumor = u_net(image, Blocks(config, 2, squeeze_excite), channels=2)  # y, x, 2
    return keras.Model(image, whole_and_tumor, name="unet_2d")


def unet_3d(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give the 3D baseline: patches (batch, z, y, x, 1) to (batch, z, y, x, 2).

    The output's channels are whole and tumor. Source: Vu et al. 2019, Table 1.
    """
    image = keras.Input((None, None, None, 1), name="image")
    whole_and_tumor = u_net(image, Blocks(config, 3, squeeze_excite), channels=2)  # z, y, x, 2
    return keras.Model(image, whole_and_tumor, name="unet_3d")


def l_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give L-Net: the whole downsampled CT (batch, z, y, x, 1) to (batch, z, y, x, 1).

    The one output channel is whole. Source: Vu et al. 2019, 2.1, Fig. 2.
    """
    image = keras.Input((None, None, None, 1), name="image")
    whole_prob = u_net(image, Blocks(config, 3, squeeze_excite), channels=1)  # z, y, x, 1
    return keras.Model(image, whole_prob, name="l_net")


def w_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give W-Net: an image (batch, z, y, x, 1) to whole_prob (batch, z, y, x, 1).

    The image, max-pooled to each level's size, joins the feature map there.
    Source: Vu et al. 2019, 2.2, Fig. 3.
    """
    image = keras.Input((None, None, None, 1), name="image")
    blocks = Blocks(config, 3, squeeze_excite)
    whole_prob = u_net(image, blocks, channels=1, injected=image)  # z, y, x, 1
    return keras.Model(image, whole_prob, name="w_net")


def t_net(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give T-Net: [image, whole_prob], each (batch, z, y, x, 1), to tumor_prob alike.

    Both enter as two channels of the first level; only the image is injected below.
    Source: Vu et al. 2019, 2.2, Fig. 3.
    """
    blocks = Blocks(config, 3, squeeze_excite)
    image = keras.Input((None, None, None, 1), name="image")
    whole_prob = keras.Input((None, None, None, 1), name="whole_prob")
    both = blocks.concatenate(image, whole_prob)  # z, y, x, 2
    tumor_prob = u_net(both, blocks, channels=1, injected=image)  # z, y, x, 1
    return keras.Model([image, whole_prob], tumor_prob, name="t_net")


def tunet(config: Config, squeeze_excite: bool = False) -> keras.Model:
    """Give TuNet: W-Net and T-Net, trained end to end; (batch, z, y, x, 1) to (…, 2).

    The output's channels are whole and tumor. T-Net reads W-Net's probability map itself,
    not its binarization, so the tumor loss also trains W-Net.
    Source: Vu et al. 2019, 2.2, Fig. 1.
    """
    image = keras.Input((None, None, None, 1), name="image")
    whole_prob = w_net(config, squeeze_excite)(image)  # z, y, x, 1
    tumor_prob = t_net(config, squeeze_excite)([image, whole_prob])  # z, y, x, 1
    both = keras.layers.Concatenate(dtype="float32", name="whole_and_tumor")
    return keras.Model(image, both([whole_prob, tumor_prob]), name="tunet")  # z, y, x, 2


NETWORKS = {"unet2d": unet_2d, "unet3d": unet_3d, "lnet": l_net, "tunet": tunet}


@computing()
def build(variant: Variant, config: Config) -> keras.Model:
    """Give the untrained network of a variant, its weights drawn from Keras' global seed."""
    return NETWORKS[variant.network](config, squeeze_excite=variant.squeeze_excite)
