"""Pictures drawn ahead for every position of some sliders: they move in a page without a kernel."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # both take long to load
    from IPython.display import HTML
    from matplotlib.figure import Figure

MOST_PICTURES = 150

_SLIDER = """
<label style="display: flex; gap: 0.6em; align-items: center">
  <span style="min-width: 9em">{name}: <output>{shown}</output></span>
  <input type="range" aria-label="{name}" min="0" max="{last}" value="{start}"
    style="flex: 1; max-width: 20em">
</label>"""  # which names by itself the first that it holds, and that is the output


def flipbook(
    draw: Callable[..., Figure],
    sliders: Mapping[str, Sequence[Any]],
    *,
    alt: Callable[..., str],
    start: Sequence[int] | None = None,
    dpi: int = 80,
) -> HTML:
    """Draw a picture for every position of the sliders, and let them turn the pages.

    The result holds all pictures and a few lines of script. So it works in Jupyter, in Colab
    and in the built book alike, with no kernel and no other file.

    Parameters
    ----------
    draw
        Gives the picture; called with one value of each slider, in their order.
    sliders
        Name → its values. All combinations are drawn, at most 150.
    alt
        Gives the text that says what the picture shows; called as `draw` is.
    start
        Where each slider stands at first, as an index; by default in the middle.
    dpi
        Dots per inch: pictures are kept small, for all of them are in the page.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        There is nothing to draw, too much, or `start` does not fit the sliders.
    """
    from IPython.display import HTML

    count = math.prod(len(values) for values in sliders.values()) if sliders else 0
    if not 0 < count <= MOST_PICTURES:
        raise ValueError(f"{count} pictures: choose 1 to {MOST_PICTURES}")
    places = [len(values) // 2 for values in sliders.values()] if start is None else list(start)
    sizes = [len(values) for values in sliders.values()]
    if len(places) != len(sizes) or not all(0 <= p < n for p, n in zip(places, sizes, strict=True)):
        raise ValueError(f"start {places} does not fit sliders of {sizes} values")
    pages = list(itertools.product(*sliders.values()))
    pictures = [_webp(draw(*page), dpi) for page in pages]
    alts = [alt(*page) for page in pages]
    shown = [[str(value) for value in values] for values in sliders.values()]
    first = 0
    for place, size in zip(places, sizes, strict=True):
        first = first * size + place
    name = f"flipbook-{secrets.token_hex(4)}"
    inputs = "".join(
        _SLIDER.format(
            name=html.escape(title), shown=html.escape(texts[k]), last=len(texts) - 1, start=k
        )
        for title, texts, k in zip(sliders, shown, places, strict=True)
    )
    image = f'<img src="data:image/webp;base64,{pictures[first]}" alt="{html.escape(alts[first])}">'
    data = json.dumps([shown, pictures, alts]).replace("</", "<\\/")
    script = (resources.files("tunet_lib") / "data" / "flipbook.js").read_text(encoding="utf-8")
    return HTML(
        f'<div class="flipbook" id="{name}">{inputs}\n{image}\n'
        f'<script>({script.strip()})("{name}", {data});</script></div>'
    )


def _webp(figure: Figure, dpi: int) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="webp", dpi=dpi, pil_kwargs={"quality": 80})
    return base64.b64encode(stream.getvalue()).decode()
