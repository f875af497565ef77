"""Trained networks as ONNX graphs, which run without Keras: in a browser, or in any other program.

A graph is built by `u_net`, the function that also builds the Keras network: only the blocks are
others, which write ONNX operations in place of Keras layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.config import Config, Variant
from tunet_lib.extras import library
from tunet_lib.files import DataError, atomic_path, save_json
from tunet_lib.model import Model
from tunet_lib.model_folder import ModelFolder, check_alike, models_below
from tunet_lib.networks import Blocks, GroupNorm, u_net
from tunet_lib.plausible import SURE_PROB
from tunet_lib.predict import find_models

OPSET, IR_VERSION = 17, 8  # old enough for every runtime, and all that the networks need
LIST_NAME = "networks.json"


class OnnxBlocks(Blocks):
    """The building blocks of a network, as operations of an ONNX graph.

    Feature maps go by their names in the graph, where channels come before space.

    Parameters
    ----------
    model
        Gives the weights, in the order in which the blocks ask for them.
    half
        Whether to store weights as float16, half as large; they are computed with in float32.
    """

    def __init__(self, model: Model, *, half: bool = False) -> None:
        rank = 2 if model.variant.sees == "slice" else 3
        super().__init__(model.config, rank, model.variant.squeeze_excite)
        self.onnx = library("onnx", "onnx", "the export")
        self.rank = rank
        self.half = half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._weights = iter(model.network.get_weights())

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation, and give its output's name."""
        name = f"{operation}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operation, inputs, [name], name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add an array, and give its name."""
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def conv_block(self, x: str, filters: int) -> str:
        """Convolve, normalize groups, ReLU, and gate."""
        x = self._convolution(x)
        return self.gate(self.node("Relu", self._group_norm(x, filters)))

    def concatenate(self, *parts: str) -> str:
        """Join feature maps by their channels, and gate."""
        return self.gate(self.node("Concat", *parts, axis=1))

    def gate(self, x: str) -> str:
        """Squeeze and excite, if the network does; on one voxel a dense layer is a convolution."""
        if not self.squeeze_excite:
            return x
        means = self.node("ReduceMean", x, axes=list(range(2, 2 + self.rank)), keepdims=1)
        hidden = self.node("Relu", self._convolution(means))
        return self.node("Mul", x, self.node("Sigmoid", self._convolution(hidden)))

    def downsample(self, x: str) -> str:
        """Keep the largest of each 2x2x2 voxels."""
        twos = [2] * self.rank
        return self.node("MaxPool", x, kernel_shape=twos, strides=twos)

    def upsample(self, x: str) -> str:
        """Repeat each voxel 2x2x2 times."""
        scales = self.constant([1, 1, *[2] * self.rank])
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", scales, mode="nearest", **how)

    def sigmoid_head(self, x: str, channels: int) -> str:
        """Weigh the features of each voxel into probabilities."""
        return self.node("Sigmoid", self._convolution(x))

    def _weight(self) -> np.ndarray:
        return next(self._weights)

    def _large(self, values: np.ndarray) -> str:
        """Add an array that decides the file's size."""
        if not self.half:
            return self.constant(values)
        return self.node("Cast", self.constant(values, np.float16), to=self.onnx.TensorProto.FLOAT)

    def _convolution(self, x: str) -> str:
        kernel, bias = self._weight(), self._weight()
        space = kernel.ndim - 2  # 0 for a dense layer
        kernel = np.moveaxis(kernel, (-1, -2), (0, 1))  # (out, in, *space)
        kernel = kernel.reshape(*kernel.shape, *[1] * (self.rank - space))
        pads = [size // 2 for size in kernel.shape[2:]] * 2
        return self.node("Conv", x, self._large(kernel), self.constant(bias), pads=pads)

    def _group_norm(self, x: str, filters: int) -> str:
        """Normalize each group as if it were one channel, and then scale each channel."""
        groups = self.config.norm_groups
        merged = self.node("Reshape", x, self.constant([0, groups, -1], np.int64))
        one, zero = self.constant(np.ones(groups)), self.constant(np.zeros(groups))
        epsilon = GroupNorm().epsilon
        merged = self.node("InstanceNormalization", merged, one, zero, epsilon=epsilon)
        x = self.node("Reshape", merged, self.node("Shape", x))
        channels = (1, filters, *[1] * self.rank)
        gamma, beta = (self.constant(self._weight().reshape(channels)) for _ in range(2))
        return self.node("Add", self.node("Mul", x, gamma), beta)


def onnx_graph(model: Model, *, half: bool = False) -> Any:
    """Give a trained network as an ONNX graph.

    Parameters
    ----------
    model
        Any of the variants.
    half
        Whether to store the weights as float16. The file is half as large, and probabilities
        change in the third or fourth digit.

    Returns
    -------
    onnx.ModelProto
        ``image``, float32 (batch, z, y, x, 1), to ``probability``, (batch, z, y, x, channels),
        as the Keras network; without z for slices. Any size that the levels divide is fine.

    Raises
    ------
    DataError
        onnx is not installed.
    """
    blocks = OnnxBlocks(model, half=half)
    onnx, space = blocks.onnx, list(range(2, 2 + blocks.rank))
    image = blocks.node("Transpose", "image", perm=[0, space[-1], *range(1, space[-1])])
    prob = _architecture(image, model.variant, blocks)
    # The node is made by hand: its output is the graph's.
    last = onnx.helper.make_node("Transpose", [prob], ["probability"], perm=[0, *space, 1])
    sides = ["batch", *"zyx"[-blocks.rank :]]
    graph = onnx.helper.make_graph(
        [*blocks.nodes, last],
        model.variant.name,
        [_tensor(onnx, "image", [*sides, 1])],
        [_tensor(onnx, "probability", [*sides, len(model.variant.regions)])],
        blocks.constants,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(made)
    return made


def export_onnx(
    models: str | Path,
    folder: str | Path,
    *,
    variants: Iterable[str] | None = None,
    half: bool = False,
) -> list[Path]:
    """Write the L-Nets and TuNets below a folder, or others, as ONNX files, and a list of them.

    Parameters
    ----------
    models
        A folder of trained networks, searched in depth.
    folder
        Where to write ``NAME.onnx`` for each, and ``networks.json``: their configuration, and of
        each its file, its variant and whether it sees the median-filtered volume.
    variants
        Only these, of whichever kind.
    half
        As in `onnx_graph`.

    Returns
    -------
    list of pathlib.Path
        The ONNX files.

    Raises
    ------
    DataError
        There is no such network, the configurations differ, or onnx is not installed.
    """
    models, folder = Path(models), Path(folder)
    if variants is None:
        chosen = [each for several in find_models(models) for each in several]
    else:
        chosen = _named(models, {variants} if isinstance(variants, str) else set(variants))
    paths, entries = [], []
    for each in chosen:
        model = Model.load(each.path)
        name = each.path.relative_to(models).as_posix()
        path = folder / f"{model.variant.name if name == '.' else name}.onnx"
        graph = onnx_graph(model, half=half).SerializeToString()
        with atomic_path(path) as temporary:
            temporary.write_bytes(graph)
        paths.append(path)
        known = {key: getattr(model.variant, key) for key in ("name", "network", "median")}
        entries.append({"file": path.relative_to(folder).as_posix(), "bytes": len(graph)} | known)
    config = dataclasses.asdict(chosen[0].config())
    about = {"config": config, "paper": _paper(), "sure_prob": SURE_PROB}
    save_json(folder / LIST_NAME, {**about, "networks": entries})
    return paths


def _named(models: Path, wanted: set[str]) -> list[ModelFolder]:
    """Find the trained networks of some variants, which have one configuration."""
    if not wanted:
        raise DataError("no network is named; name one, or leave `variants` out for all")
    found = models_below(models)
    chosen = [each for each in found if each.variant().name in wanted]
    if missing := wanted - {each.variant().name for each in chosen}:
        raise DataError(f"{models}: holds no trained {', '.join(sorted(missing))}")
    check_alike(chosen)
    return chosen


def _architecture(image: str, variant: Variant, blocks: OnnxBlocks) -> str:
    if variant.network != "tunet":
        return u_net(image, blocks, len(variant.regions))
    whole_prob = u_net(image, blocks, 1, injected=image)
    both = blocks.concatenate(image, whole_prob)
    tumor_prob = u_net(both, blocks, 1, injected=image)
    return blocks.node("Concat", whole_prob, tumor_prob, axis=1)


def _tensor(onnx: Any, name: str, shape: list[Any]) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _paper() -> dict[str, Any]:
    """Give what Algorithm 1 needs to know of the paper's grid: a tumor is small in its voxels."""
    return {"grid_spacing_mm": Config.preset("paper").grid_spacing_mm}
