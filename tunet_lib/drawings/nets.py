"""A U-Net and TuNet with their levels, shapes, filters and injected images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunet_lib.config import Config
from tunet_lib.drawings.svg import (
    IMAGE,
    LOSS,
    TUMOR,
    WHOLE,
    Box,
    Drawing,
    arrow,
    curve,
    frame,
    text,
)

WIDTH, STEP, ROW, INDENT = 740, 190, 88, 58  # of a U, a block, a level; by how much it is in


@dataclass(frozen=True)
class Block:
    """Two convolutions at one level of a U-Net.

    Attributes
    ----------
    side
        ``"down"``, the encoder, or ``"up"``, the decoder.
    level
        From 0, the patch's own size.
    shape
        Voxels (z, y, x), or pixels (y, x), of what they give.
    channels
        Channels that enter, then those after each of the two.
    """

    side: Literal["down", "up"]
    level: int
    shape: tuple[int, ...]
    channels: tuple[int, int, int]


def u_net_blocks(
    config: Config, shape: Sequence[int], *, inputs: int = 1, injected: bool = False
) -> list[Block]:
    """List the blocks of `networks.u_net` in the order in which data pass them.

    Parameters
    ----------
    config
        Gives `levels` and `filters`.
    shape
        Of the input, (z, y, x) or (y, x).
    inputs
        Channels of the input.
    injected
        Whether an image joins each lower level of the encoder.
    """
    blocks: list[Block] = []
    enter = inputs
    for level in range(config.levels):
        size = tuple(n // 2**level for n in shape)
        first = config.filters * 2**level
        blocks.append(Block("down", level, size, (enter, first, 2 * first)))
        enter = 2 * first + injected
    for level in reversed(range(config.levels - 1)):
        size = tuple(n // 2**level for n in shape)
        last = 2 * config.filters * 2**level
        blocks.append(Block("up", level, size, (3 * last, last, last)))
    return blocks


def draw_u_net(config: Config, shape: Sequence[int], *, outputs: str = "whole, tumor") -> Drawing:
    """Draw a U-Net for an input of one channel.

    Parameters
    ----------
    config
        Gives `levels` and `filters`.
    shape
        Of the input, (z, y, x) or (y, x).
    outputs
        What the probability maps are of.
    """
    blocks = u_net_blocks(config, shape)
    title = (
        f"A U-Net of {config.levels} levels for an input of {_times(shape)}: on the left it goes "
        "down, on the right up again; each box holds two convolutions, with the shape of what they "
        "give and their filters; the arrows across are the skip connections"
    )
    parts = _u(blocks, 44, WHOLE, "")
    parts += [
        text(_place(blocks[0], 44, config.levels).x, 16, f"image, {_times(shape)}, 1 channel"),
        text(_place(blocks[-1], 44, config.levels).x, 16, f"probability of {outputs}"),
    ]
    return Drawing(frame(parts, (WIDTH, 44 + ROW * config.levels), title), title)


def draw_tunet(config: Config) -> Drawing:
    """Draw W-Net and T-Net, what flows from one to the other, and the gradient that flows back.

    Parameters
    ----------
    config
        Gives `levels`, `filters` and `patch_shape`.
    """
    shape, levels = config.patch_shape, config.levels
    title = (
        f"TuNet for a patch of {_times(shape)}: W-Net above, T-Net below, two U-Nets of {levels} "
        "levels. The image joins each lower level of both, max-pooled. W-Net's map of the whole is "
        "a second channel of T-Net's input, and along it the gradient of the tumor loss returns"
    )
    below = 44 + ROW * levels + 62
    w_blocks = u_net_blocks(config, shape, injected=True)
    t_blocks = u_net_blocks(config, shape, inputs=2, injected=True)
    parts = [
        *_u(w_blocks, 44, WHOLE, "w", injected=True),
        *_u(t_blocks, below, TUMOR, "t", injected=True),
    ]
    first, last = (_place(block, 44, levels) for block in (w_blocks[0], w_blocks[-1]))
    t_first, t_last = (_place(block, below, levels) for block in (t_blocks[0], t_blocks[-1]))
    middle = WIDTH / 2
    parts += [
        text(middle, 20, "W-Net", size=16, style="bold"),
        text(middle, below - 4, "T-Net", size=16, style="bold"),
        text(first.x, 16, f"image, {_times(shape)}, 1 channel"),
        _map("w", last.x, 16, "map of the whole, 1 channel"),
        _map("t", t_last.x, below - 30, "map of the tumor, 1 channel"),
        text(t_first.x, below - 30, "image and W-Net's map, 2 channels"),
        *_handed_over(last, t_first, below),
    ]
    return Drawing(frame(parts, (WIDTH + 28, below + ROW * levels), title), title)


def _map(name: str, x: float, y: float, words: str) -> str:
    back = Box(x, y - 4, STEP, 20).svg("currentColor", 0.04)
    return f'<g class="map" data-block="{name}">{back}{text(x, y, words)}</g>'


def _handed_over(last: Box, t_first: Box, below: float) -> list[str]:
    """Draw the map's way from W-Net's end to T-Net's beginning, and the gradient's way back."""
    lane, edge = below - 58, WIDTH + 26
    right = last.side("right")[0]
    out = f"M{right:g},{last.y - 8:g} H{edge:g} V{lane:g} H{t_first.x:g} V{lane + 12:g}"
    start = f"M{t_first.x + 10:g},{lane + 15:g} V{lane + 8:g} H{edge - 8:g}"
    return [
        arrow(out, color=WHOLE),
        arrow(f"{start} V{last.y + 8:g} H{right + 7:g}", color=LOSS, dashes="5 4"),
        text(WIDTH / 2, lane - 6, "W-Net's map", size=11),
        text(WIDTH / 2, lane + 22, "gradient of the tumor loss", size=11),
    ]


def _place(block: Block, top: float, levels: int) -> Box:
    """Say where a block stands: the lower, the nearer to the middle."""
    first = STEP / 2 + 6
    # The two blocks of the lowest level but one leave room for each other.
    indent = min(INDENT, (WIDTH / 2 - STEP / 2 - 3 - first) / max(1, levels - 2))
    inward = first + indent * block.level
    middle = block.level == levels - 1
    x = WIDTH / 2 if middle else inward if block.side == "down" else WIDTH - inward
    return Box(x, top + 22 + ROW * block.level, STEP, 46)


def _u(
    blocks: list[Block], top: float, color: str, name: str, *, injected: bool = False
) -> list[str]:
    levels = max(block.level for block in blocks) + 1
    boxes = [_place(block, top, levels) for block in blocks]
    parts = []
    for number, (block, box) in enumerate(zip(blocks, boxes, strict=True)):
        enter, first, second = block.channels
        label = f"{_times(block.shape)}, {enter} channels to {first}, then {second}"
        parts.append(
            f'<g class="block" data-block="{name}{number}">'
            f"<desc>{label}</desc>{box.svg(color)}"
            + text(box.x, box.y - 4, _times(block.shape), size=13, style="bold")
            + text(box.x, box.y + 14, f"{enter} → {first} → {second} channels", size=12)
            + "</g>"
        )
        if number:
            pair = slice(number - 1, number + 1)
            parts.append(_next(blocks[pair], boxes[pair], levels - 1))
        if injected and block.side == "down" and block.level:
            x, y = box.side("left", 7)
            parts.append(arrow(f"M{x - 44:g},{y + 4:g} H{x:g}", color=IMAGE))
            words = f"image ÷ {2**block.level}"
            parts.append(text(x - 6, y + 20, words, size=11, style="end"))
        if block.side == "up":
            across = boxes[block.level].side("right", 3)
            parts.append(arrow(f"M{across[0]:g},{box.y:g} H{box.side('left', 7)[0]:g}"))
            if block.level == 0:
                parts.append(text(WIDTH / 2, box.y - 6, "skip connection", size=11))
    return parts


def _next(blocks: list[Block], boxes: list[Box], lowest: int) -> str:
    """Draw the arrow from a block to the next one, and say what happens on it."""
    down = blocks[1].side == "down"
    start, end = boxes
    # The lowest block is entered on the left and left on the right, so that the arrows are apart.
    if down and blocks[1].level == lowest:
        end = replace(end, x=end.x - STEP / 3)
    elif not down and blocks[0].level == lowest:
        start = replace(start, x=start.x + STEP / 3)
    path = curve(start, "bottom" if down else "top", end, enters="top" if down else "bottom")
    y = (start.y + end.y) / 2 + 4
    words = "max-pool ÷ 2" if down else "upsample × 2"
    x, anchor = (start.x - 8, "end") if down else (end.x + 8, "start")
    return arrow(path) + text(x, y, words, size=11, style=anchor)


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
