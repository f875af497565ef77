"""The whole chain, from a CT to a label map on the CT's own voxels (Fig. 1 and 4 of the paper)."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tunet_lib.config import ENSEMBLE, Config
from tunet_lib.drawings.svg import IMAGE, TUMOR, WHOLE, Box, Drawing, arrow, curve, frame, text

GRAY = "#8A95A1"
TITLE = (
    "The whole chain: a CT is brought to the grid; L-Net finds the region, W-Net outlines kidney "
    "and tumor together, T-Net the tumor within; the maps of several networks are averaged; "
    "Algorithm 1 decides, within L-Net's mask, and the label map returns to the CT's own voxels"
)


@dataclass(frozen=True)
class Step:
    """One step of the chain: its name, what it does in a few words, its color."""

    name: str
    does: str
    color: str


STEPS = {
    "ct": Step("CT", "any size", GRAY),
    "grid": Step("Grid", "", GRAY),
    "lnet": Step("L-Net", "where?", IMAGE),
    "wnet": Step("W-Net", "kidney + tumor", WHOLE),
    "tnet": Step("T-Net", "tumor within", TUMOR),
    "ensemble": Step("Ensemble", f"mean of {len(ENSEMBLE)}", GRAY),
    "algorithm_1": Step("Algorithm 1", "decides", GRAY),
    "label": Step("Label map", "CT's own voxels", GRAY),
}
NETWORKS = ("lnet", "wnet", "tnet")
# Chapter → the steps that it is about, and what it says of them.
HERE: dict[int, tuple[Collection[str], str]] = {
    0: (STEPS, "the whole chain, once"),
    1: (("ct",), "the CT, as it comes"),
    2: (("grid", "label"), "to the grid, and back from it"),
    3: (("grid",), "the grid, cut into patches"),
    4: (("wnet", "tnet"), "what W-Net and T-Net are told is good"),
    5: (NETWORKS, "the U-Net that all three networks are made of"),
    6: (("lnet",), "L-Net"),
    7: (("wnet", "tnet"), "W-Net and T-Net, one after the other"),
    8: (("wnet", "tnet"), "W-Net and T-Net, with channels weighed"),
    9: (NETWORKS, "the networks, in training"),
    10: (NETWORKS, "the networks, in many trainings at once"),
    11: (("wnet", "tnet", "label"), "from windows to one map, on the CT's own voxels"),
    12: (("ensemble",), "the ensemble"),
    13: (("algorithm_1",), "Algorithm 1"),
    14: (STEPS, "the whole chain, scored"),
    15: (STEPS, "the whole chain, on your own CT"),
    16: (NETWORKS, "the networks, trained again with one part changed"),
}
_BODY = '<ellipse cx="12" cy="12" rx="10.5" ry="8" fill="none" stroke="currentColor"/>'
_U = '<path d="M4,4 v6 q0,10 8,10 q8,0 8,-10 v-6" fill="none" stroke="{}" stroke-width="3.4"/>'
# Signs of the steps, 24 by 24.
ICONS = {
    "ct": _BODY + '<circle cx="7.5" cy="13" r="2" fill="currentColor"/>'
    '<circle cx="16.5" cy="13" r="2" fill="currentColor"/>',
    "grid": '<path d="M3,3 h18 v18 h-18 z M9,3 v18 M15,3 v18 M3,9 h18 M3,15 h18" '
    'fill="none" stroke="currentColor"/>',
    "lnet": _BODY + f'<path d="M4,9 h16 v8 h-16 z" fill="{IMAGE}" fill-opacity="0.4" '
    f'stroke="{IMAGE}" stroke-width="1.6"/>',
    "wnet": _U.format(WHOLE),
    "tnet": _U.format(TUMOR),
    "ensemble": "".join(
        f'<rect x="{at}" y="{14 - at}" width="10" height="10" fill="{WHOLE}" '
        'fill-opacity="0.35" stroke="currentColor"/>'
        for at in (2, 6, 10)
    ),
    "algorithm_1": '<path d="M2,20 q6,0 8,-9 q2,-9 4,0 q2,9 8,9" fill="none" '
    f'stroke="currentColor"/><path d="M2,9 h20" stroke="{TUMOR}" stroke-width="1.6"/>'
    f'<path d="M2,15 h20" stroke="{WHOLE}" stroke-width="1.6"/>',
    "label": _BODY + f'<circle cx="7.5" cy="13" r="2.6" fill="{WHOLE}"/>'
    f'<circle cx="16.5" cy="13" r="2.6" fill="{WHOLE}"/>'
    f'<circle cx="17.6" cy="11.4" r="1.9" fill="{TUMOR}"/>',
}
# Where the steps stand on wide screens and on narrow ones.
_WIDE = {
    "ct": (51, 160), "grid": (170, 160), "lnet": (348, 42), "wnet": (289, 160),
    "tnet": (408, 160), "ensemble": (527, 160), "algorithm_1": (646, 160), "label": (765, 160),
}  # fmt: skip
_NARROW = {
    "ct": (206, 42), "grid": (206, 140), "lnet": (51, 287), "wnet": (206, 238),
    "tnet": (206, 336), "ensemble": (206, 434), "algorithm_1": (206, 532), "label": (206, 630),
}  # fmt: skip
_BOX = (102, 74)  # room for the longest words in the widest of the fonts that a reader may have
_LINE = ("ct", "grid", "wnet", "tnet", "ensemble", "algorithm_1", "label")


def draw_chain(
    config: Config, here: Collection[str] = (), links: Mapping[str, str] | None = None
) -> Drawing:
    """Draw the whole chain, once for wide and once for narrow screens.

    Parameters
    ----------
    config
        Its `grid_shape` and `patch_shape` are written down.
    here
        Steps, as named in `STEPS`, to be lit; by default none stands out.
    links
        Step → the address of the page that explains it.

    Raises
    ------
    KeyError
        There is no such step.
    """
    lit = {name: STEPS[name] for name in here}
    both = []
    for kind, size, places in (
        ("wide", (816, 248), _WIDE),
        ("narrow", (320, 672), _NARROW),
    ):
        boxes = {name: Box(x, y, *_BOX) for name, (x, y) in places.items()}
        parts = _flows(boxes, kind == "wide")
        for name, box in boxes.items():
            parts.append(_step(name, box, config, name in lit, (links or {}).get(name)))
        both.append(frame(parts, size, TITLE, kind=kind))
    return Drawing("".join(both), TITLE)


def _flows(boxes: dict[str, Box], wide: bool) -> list[str]:
    """Draw the straight line, L-Net's way around it, and the image's way to T-Net."""
    leaves, enters = ("right", "left") if wide else ("bottom", "top")
    up, side, mask_at, image_at = (
        ("top", "bottom", (672, 76), (289, 242))
        if wide
        else ("left", "right", (44, 470), (311, 240))
    )
    parts = [
        arrow(curve(boxes[a], leaves, boxes[b], enters=enters))
        for a, b in itertools.pairwise(_LINE)
    ]
    lnet_in, lnet_out = ("left", "right") if wide else ("top", "bottom")
    return [
        *parts,
        arrow(curve(boxes["grid"], up, boxes["lnet"], enters=lnet_in)),
        arrow(curve(boxes["lnet"], lnet_out, boxes["algorithm_1"], enters=up)),
        # T-Net gets the image as well as W-Net's map.
        arrow(curve(boxes["grid"], side, boxes["tnet"], enters=side), color=IMAGE),
        text(*mask_at, "its mask", size=11),
        text(*image_at, "the image" if wide else "image", size=11),
    ]


def _step(name: str, box: Box, config: Config, lit: bool, link: str | None) -> str:
    step = STEPS[name]
    shape = " × ".join(map(str, config.grid_shape))
    icon = f'<g transform="translate({box.x - 12:g},{box.y - 33:g})">{ICONS[name]}</g>'
    parts = [
        box.svg(step.color, 0.55 if lit else 0.16),
        icon,
        text(box.x, box.y + 9, step.name, size=13, style="bold"),
        text(box.x, box.y + 25, step.does or shape, size=10.5),
    ]
    group = f'<g class="step{" here" if lit else ""}">{"".join(parts)}</g>'
    return f'<a href="{link}">{group}</a>' if link else group
