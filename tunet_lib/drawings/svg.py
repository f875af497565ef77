"""Boxes, texts and arrows, and the drawing that they make."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from html import escape

WHOLE, TUMOR, IMAGE, LOSS = "#56B4E9", "#E69F00", "#009E73", "#D55E00"  # those of the pictures
# Where a line leaves a box or enters it: (x, y) in half boxes from the middle.
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
HEAD = "head-of-arrows"  # until `frame` gives each drawing one of its own
GAP = 3  # between a line and a box


@dataclass(frozen=True)
class Box:
    """A place on the drawing: middle, width and height."""

    x: float
    y: float
    width: float
    height: float

    def side(self, name: str, gap: float = 0) -> tuple[float, float]:
        """Give the middle of a side."""
        across, down = SIDES[name]
        x = self.x + across * (self.width / 2 + gap)
        return x, self.y + down * (self.height / 2 + gap)

    def svg(self, color: str, opacity: float = 0.22) -> str:
        """Draw it."""
        left, top = self.x - self.width / 2, self.y - self.height / 2
        return (
            f'<rect x="{left:g}" y="{top:g}" width="{self.width:g}" height="{self.height:g}" '
            f'rx="7" fill="{color}" fill-opacity="{opacity:g}" stroke="{color}" '
            f'stroke-width="1.6"/>'
        )


@dataclass(frozen=True)
class Drawing:
    """An SVG that a notebook and the built book show.

    Attributes
    ----------
    svg
        One or two ``<svg>``: the second one for narrow screens.
    title
        What is drawn, in one sentence: its caption.
    """

    svg: str = field(repr=False)
    title: str

    def _repr_html_(self) -> str:
        return f'<div class="drawing-box">{self.svg}</div>'


def text(x: float, y: float, words: str, *, size: float = 12, style: str = "middle") -> str:
    """Write a line with x in its middle, also in bold, or at its start or end."""
    anchor = "middle" if style == "bold" else style
    weight = ' font-weight="700"' if style == "bold" else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{weight} '
        f'fill="currentColor">{escape(words)}</text>'
    )


def arrow(path: str, *, color: str = "currentColor", dashes: str = "") -> str:
    """Draw a path with a head at its end."""
    dashed = f'stroke-dasharray="{dashes}" ' if dashes else ""
    return (
        f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.6" {dashed}'
        f'marker-end="url(#{HEAD})"/>'
    )


def curve(start: Box, leaves: str, end: Box, *, enters: str) -> str:
    """Give a path that leaves and enters two boxes at right angles to their sides."""
    (x1, y1), (x2, y2) = start.side(leaves, GAP), end.side(enters, GAP + 4)
    (a, b), (c, d) = SIDES[leaves], SIDES[enters]
    turn, back = (
        0.55 * abs(x2 - x1 if across else y2 - y1) + (30 if leaves == enters else 0)
        for across in (a, c)
    )
    return (
        f"M{x1:g},{y1:g} C{x1 + a * turn:g},{y1 + b * turn:g} "
        f"{x2 + c * back:g},{y2 + d * back:g} {x2:g},{y2:g}"
    )


def frame(parts: list[str], size: tuple[float, float], title: str, *, kind: str = "wide") -> str:
    """Put parts into one ``<svg>`` of a size, which says what it shows."""
    width, height = size
    name = f"drawing-{zlib.crc32(f'{title} {kind}'.encode()):08x}"
    head = (
        f'<marker id="{name}-head" viewBox="0 0 10 10" refX="7" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0,1 L9,5 L0,9 z" '
        'fill="context-stroke"/></marker>'
    )
    drawn = "".join(parts).replace(f"#{HEAD}", f"#{name}-head")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing {kind}" '
        f'viewBox="-16 0 {width + 32:g} {height:g}" width="{width + 32:g}" role="group" '
        f'aria-labelledby="{name}" font-family="inherit"><title id="{name}">{escape(title)}</title>'
        f"<defs>{head}</defs>{drawn}</svg>"
    )
