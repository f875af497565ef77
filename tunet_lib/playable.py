"""TuNet to play with: the feature map behind each box of its drawing, and what a voxel sees.

Chapter 07 (``notebooks/07_cascade.ipynb``).
"""

from __future__ import annotations

import base64
import html
import inspect
import io
import json
import secrets
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.drawings import Block, draw_tunet, u_net_blocks

if TYPE_CHECKING:  # takes long to load
    from IPython.display import HTML

    from tunet_lib.config import Config
    from tunet_lib.quiet import keras

_PANEL = """
<p class="player-says" aria-live="polite">Press a box, or move to it with the tab key.</p>
<div class="player-pictures">
  <figure><svg role="img" aria-label="the patch that enters"></svg>
    <figcaption>the image, and what the voxel sees</figcaption></figure>
  <figure><svg role="img" aria-label="feature map"></svg>
    <figcaption>the feature map, and the voxel</figcaption></figure>
</div>
<label>row <input type="range" min="0" value="0" step="1"> <output></output></label>
<label>column <input type="range" min="0" value="0" step="1"> <output></output></label>"""
Field = tuple[np.ndarray, np.ndarray]  # first and last voxel of the input that each voxel sees


def play_cascade(network: keras.Model, config: Config, patch: np.ndarray, *, z: int) -> HTML:
    """Show TuNet's drawing; a box that is pressed shows what the network computes there.

    All that is shown is computed now and stored in the page, which then needs no kernel and no
    other file.

    Parameters
    ----------
    network
        A trained TuNet.
    config
        The configuration that it was trained with.
    patch
        The normalized image, float32 of the configured `patch_shape`.
    z
        Which of its slices is shown; on a lower level the slice that holds it.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        The patch has another shape, or no such slice.
    """
    from IPython.display import HTML

    if patch.shape != config.patch_shape or not 0 <= z < patch.shape[0]:
        raise ValueError(f"slice {z} of a patch {patch.shape}, not of {config.patch_shape}")
    blocks = u_net_blocks(config, config.patch_shape)
    fields = [cascade_fields(config.levels, size) for size in patch.shape]
    found = _computed(network, patch)
    shown = {}
    for name, maps in found.items():
        at = z * maps.shape[0] // patch.shape[0]
        channel = int(maps[at].std(axis=(0, 1)).argmax())
        depth, rows, columns = (axis[name] for axis in fields)
        shown[name] = {
            "picture": _png(maps[at, ..., channel]),
            "says": _says(name, maps.shape, channel, at, blocks),
            "code": _code(name, blocks),
            "slices": [int(end[at]) for end in depth],
            "rows": np.stack(rows, axis=1).tolist(),
            "columns": np.stack(columns, axis=1).tolist(),
        }
    ident = f"player-{secrets.token_hex(4)}"
    data = json.dumps([_png(patch[z]), list(patch.shape[1:]), shown]).replace("</", "<\\/")
    script = (resources.files("tunet_lib") / "data" / "playable.js").read_text(encoding="utf-8")
    drawing = draw_tunet(config)
    return HTML(
        f'<div class="player" id="{ident}">{drawing._repr_html_()}{_PANEL}\n{_table(shown)}\n'
        f'<script>({script.strip()})("{ident}", {data});</script></div>'
    )


def u_net_fields(levels: int, enters: Field) -> list[Field]:
    """Tell what each voxel after each block of a U-Net sees, along one axis.

    Parameters
    ----------
    levels
        Of the U-Net.
    enters
        What each voxel of its input sees: first and last, (n,) integers.

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray)
        First and last voxel, for each block in the order of `drawings.u_net_blocks`.

    Notes
    -----
    Normalization is left out: through its mean every voxel has a little say in every other.
    """
    fields: list[Field] = []
    first, last = enters
    for level in range(levels):
        if level:
            first, last = first[::2], last[1::2]  # max-pooling
        fields.append(_two_convolutions(first, last))
        first, last = fields[-1]
    for level in reversed(range(levels - 1)):
        skip = fields[level]
        first = np.minimum(np.repeat(first, 2), skip[0])
        last = np.maximum(np.repeat(last, 2), skip[1])
        fields.append(_two_convolutions(first, last))
        first, last = fields[-1]
    return fields


def cascade_fields(levels: int, size: int) -> dict[str, Field]:
    """Tell what each voxel of W-Net and T-Net sees of the image, along one axis.

    Parameters
    ----------
    levels
        Of both.
    size
        Voxels of the patch along the axis.

    Returns
    -------
    dict
        Name of a block on the drawing → first and last voxel. ``"w"`` and ``"t"`` are the maps.
    """
    everywhere = np.arange(size)
    w_net = u_net_fields(levels, (everywhere, everywhere))
    t_net = u_net_fields(levels, w_net[-1])
    named = {f"w{k}": field for k, field in enumerate(w_net)}
    named |= {f"t{k}": field for k, field in enumerate(t_net)}
    return {**named, "w": w_net[-1], "t": t_net[-1]}


def _two_convolutions(first: np.ndarray, last: np.ndarray) -> Field:
    for _ in range(2):
        first = np.concatenate([first[:1], first[:-1]])
        last = np.concatenate([last[1:], last[-1:]])
    return first, last


def _computed(network: keras.Model, patch: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the feature maps after every block, and both probability maps, (z, y, x, c)."""
    from tunet_lib.quiet import keras

    def run(name: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
        net = network.get_layer(name)
        relus = [layer.output for layer in net.layers if isinstance(layer, keras.layers.ReLU)]
        features = keras.Model(net.inputs, [*relus[1::2], net.output])
        return features.predict_on_batch([x[None, ..., None] for x in inputs])

    w_net = run("w_net", [patch])
    t_net = run("t_net", [patch, w_net[-1][0, ..., 0]])
    found: dict[str, np.ndarray] = {}
    for letter, arrays in (("w", w_net), ("t", t_net)):
        found |= {f"{letter}{k}": array[0] for k, array in enumerate(arrays[:-1])}
        found[letter] = arrays[-1][0]
    return found


def _says(name: str, shape: Sequence[int], channel: int, at: int, blocks: list[Block]) -> str:
    net = {"w": "W-Net", "t": "T-Net"}[name[0]]
    size = " × ".join(map(str, shape[:-1]))
    if len(name) == 1:
        region = {"w": "whole", "t": "tumor"}[name]
        return f"{net}'s answer, the probability of {region}: {size}, slice {at}."
    block = blocks[int(name[1:])]
    way = {"down": "encoder", "up": "decoder"}[block.side]
    return (
        f"{net}, {way}, level {block.level + 1}: {size} with {shape[-1]} channels. "
        f"Channel {channel}, which varies most, slice {at}."
    )


def _code(name: str, blocks: list[Block]) -> str:
    """Find the line of the library that computes what is shown."""
    from tunet_lib import networks

    if len(name) == 1:
        net = {"w": networks.w_net, "t": networks.t_net}[name]
        (line,) = (line for line in inspect.getsource(net).splitlines() if " = u_net(" in line)
    else:
        source = inspect.getsource(networks.u_net).splitlines()
        lines = [line for line in source if "blocks.conv_block(" in line]
        line = lines[1 if blocks[int(name[1:])].side == "down" else 3]
    return line.split("  #")[0].strip()


def _table(shown: dict[str, dict[str, Any]]) -> str:
    """Say in words what the boxes show, for whom no script runs."""
    rows = "".join(
        f"<li>{html.escape(one['says'])} <code>{html.escape(one['code'])}</code></li>"
        for one in shown.values()
    )
    return f"<details><summary>All boxes, in words</summary><ul>{rows}</ul></details>"


def _png(image: np.ndarray) -> str:
    """Write a slice as a small gray PNG: black is its lowest value, white its highest."""
    from PIL import Image

    low, high = float(image.min()), float(image.max())
    gray = np.round(255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, format="png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
